"""Synthesis: preference pairs become relation groups."""

from mapl_ray.synthesis.export import ExportFormat, export_rows, export_schema, write_export
from mapl_ray.synthesis.join import join_prompt
from mapl_ray.synthesis.synthesize import select_functions, synthesize
from mapl_ray.synthesis.verify import verify_group

__all__ = [
    "ExportFormat",
    "export_rows",
    "export_schema",
    "join_prompt",
    "select_functions",
    "synthesize",
    "verify_group",
    "write_export",
]
