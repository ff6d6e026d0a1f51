"""Tokenization, prefix trees and collation: from relation groups to tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapl_ray.batches.batch import pack
from mapl_ray.batches.encode import (
    ENCODING,
    RENDER,
    EncodedGroup,
    TokenIds,
    encode_group,
    encode_prompt,
    end_of_turn,
    of_levels,
    read_at,
    without_relations,
)
from mapl_ray.batches.render import CURE, RenderError, render
from mapl_ray.batches.tree import PrefixTree, build_tree
from mapl_ray.lazy import lazy_names

if TYPE_CHECKING:  # these load torch
    from mapl_ray.batches.batch import Batch, collate
    from mapl_ray.batches.relations import RelationBatch

__all__ = [
    "CURE",
    "ENCODING",
    "RENDER",
    "Batch",
    "EncodedGroup",
    "PrefixTree",
    "RelationBatch",
    "RenderError",
    "TokenIds",
    "build_tree",
    "collate",
    "encode_group",
    "encode_prompt",
    "end_of_turn",
    "of_levels",
    "pack",
    "read_at",
    "render",
    "without_relations",
]

__getattr__ = lazy_names(__name__, __file__)
