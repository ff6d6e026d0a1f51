"""Relation groups as tensors: tokenization, prefix trees, collation."""

from mapl_ray.batches.collate import Batch, collate
from mapl_ray.batches.encode import (
    EncodedGroup,
    TokenIds,
    encode_group,
    encode_prompt,
    of_levels,
    without_relations,
)
from mapl_ray.batches.pack import pack
from mapl_ray.batches.relations import RelationBatch
from mapl_ray.batches.tree import PrefixTree, build_tree

__all__ = [
    "Batch",
    "EncodedGroup",
    "PrefixTree",
    "RelationBatch",
    "TokenIds",
    "build_tree",
    "collate",
    "encode_group",
    "encode_prompt",
    "of_levels",
    "pack",
    "without_relations",
]
