"""Synthesis: convert preference pairs to relation groups."""

from mapl_ray.synthesis.export_files import Exported, write_export
from mapl_ray.synthesis.export_parts import ExportFolder
from mapl_ray.synthesis.join import join_prompt, rejoin_prompt
from mapl_ray.synthesis.left_out import left_out_lines
from mapl_ray.synthesis.plain_rows import ExportFormat, Prompts, export_rows, export_schema
from mapl_ray.synthesis.select import select_functions
from mapl_ray.synthesis.synthesize import synthesize, synthesize_all
from mapl_ray.synthesis.tally import Tally
from mapl_ray.synthesis.user_modules import load_modules, module_digests, with_absolute_paths
from mapl_ray.synthesis.verify import verify_group

__all__ = [
    "ExportFolder",
    "ExportFormat",
    "Exported",
    "Prompts",
    "Tally",
    "export_rows",
    "export_schema",
    "join_prompt",
    "left_out_lines",
    "load_modules",
    "module_digests",
    "rejoin_prompt",
    "select_functions",
    "synthesize",
    "synthesize_all",
    "verify_group",
    "with_absolute_paths",
    "write_export",
]
