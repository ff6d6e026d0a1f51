"""Read original preference pairs and split them by prompt."""

from mapl_ray.preferences.canonical_order import place_of
from mapl_ray.preferences.contamination import Contamination, benchmark_digests
from mapl_ray.preferences.duplicates import Duplicates
from mapl_ray.preferences.normal_form import eval_split, prompt_key
from mapl_ray.preferences.read import MARGIN_STAGE, read_pairs, read_rows
from mapl_ray.preferences.remote import RemoteFile, check_address, is_uri, remote_files
from mapl_ray.preferences.sources import check_source, source_identity

__all__ = [
    "MARGIN_STAGE",
    "Contamination",
    "Duplicates",
    "RemoteFile",
    "benchmark_digests",
    "check_address",
    "check_source",
    "eval_split",
    "is_uri",
    "place_of",
    "prompt_key",
    "read_pairs",
    "read_rows",
    "remote_files",
    "source_identity",
]
