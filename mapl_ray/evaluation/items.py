"""The relations of all groups as arrays: one item per relation, the same for every model.

Dimensions: R relations of all groups.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mapl_ray.data.records import Level
from mapl_ray.evaluation.column_table import LEVELS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.signedinteger[Any]]
BoolArray = npt.NDArray[np.bool_]
Rewards = Sequence[tuple[float, ...]]  # of one model: one tuple per group, one float per sequence


@dataclass(frozen=True, slots=True, eq=False)
class RelationItems:
    """Properties of the R relations that do not depend on a model."""

    level_R: IntArray  # index into `LEVELS`
    group_R: IntArray  # index of the group
    prompt_R: IntArray  # index of the original prompt; groups with the same text share it
    k_R: IntArray  # maximum number of instructions of the relation's prompts, 0 for pref
    family_R: IntArray  # index into `family_sets`
    family_sets: tuple[frozenset[str], ...]  # instruction families of a relation's prompts
    unseen_phrasing_R: BoolArray  # whether a prompt has a phrasing that `held_out_phrasings` holds out

    def of_family(self, level_family: str) -> BoolArray:
        """Mask [R] of the relations of `pref`, `intra` or `inter`."""
        return np.array([level.family == level_family for level in LEVELS], dtype=np.bool_)[self.level_R]

    def of_level(self, level: Level) -> BoolArray:
        """Mask [R] of the relations of exactly this level."""
        mask_R: BoolArray = self.level_R == LEVELS.index(level)
        return mask_R

    def with_any(self, families: Collection[str]) -> BoolArray:
        """Mask [R] of the relations whose prompts have an instruction of one of these families."""
        return np.array([not one.isdisjoint(families) for one in self.family_sets], dtype=np.bool_)[self.family_R]
