"""Reading original preference pairs, and splitting them by prompt."""

from mapl_ray.preferences.read import read_pairs
from mapl_ray.preferences.sources import source_files
from mapl_ray.preferences.split import eval_split, prompt_key

__all__ = ["eval_split", "prompt_key", "read_pairs", "source_files"]
