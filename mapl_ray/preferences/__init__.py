"""Reading original preference pairs, and splitting them by prompt."""

from mapl_ray.preferences.read import read_pairs
from mapl_ray.preferences.sources import check_source, source_files
from mapl_ray.preferences.split import eval_split, prompt_key

__all__ = ["check_source", "eval_split", "prompt_key", "read_pairs", "source_files"]
