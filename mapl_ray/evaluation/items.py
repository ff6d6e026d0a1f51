"""Relation groups flattened into arrays: one item a relation, the same items for every model.

Dimensions: R relations of all groups, S sequences of one group, P distinct original prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mapl_ray.data.records import InstructionRecord, Level, Relation, RelationGroup
from mapl_ray.errors import RunError
from mapl_ray.instructions import REGISTRY
from mapl_ray.instructions.phrasing import held_out_wordings

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Rewards = Sequence[tuple[float, ...]]  # of one model: one tuple per group, one float per sequence


@dataclass(frozen=True, slots=True, eq=False)
class RelationItems:
    """What is known of the R relations before any model scores them."""

    levels_R: tuple[Level, ...]
    group_R: IntArray  # index of the group
    prompt_R: IntArray  # index of the original prompt; groups with the same text share it
    k_R: IntArray  # instructions of the relation's most instructed prompt, 0 for pref
    families_R: tuple[frozenset[str], ...]  # instruction families of the relation's prompts
    unseen_phrasing_R: BoolArray  # whether a prompt carries a phrasing that `held_out_phrasings` holds out

    def of_family(self, level_family: str) -> BoolArray:
        """Mask [R] of the relations of `pref`, `intra` or `inter`."""
        return np.array([level.family == level_family for level in self.levels_R], dtype=np.bool_)

    def of_level(self, level: Level) -> BoolArray:
        """Mask [R] of the relations of exactly this level."""
        return np.array([other == level for other in self.levels_R], dtype=np.bool_)

    def with_family(self, instruction_family: str) -> BoolArray:
        """Mask [R] of the relations whose prompts carry an instruction of this family."""
        return np.array([instruction_family in families for families in self.families_R], dtype=np.bool_)


def relation_items(groups: Sequence[RelationGroup], families: Mapping[str, str]) -> RelationItems:
    """Flatten the relations of all groups; `families` maps a function's name to its family.

    A function that the mapping does not know counts as the family `unknown`.
    """
    keys: dict[str, int] = {}
    levels: list[Level] = []
    rows: list[tuple[int, int, int]] = []
    of_items: list[frozenset[str]] = []
    unseen: list[bool] = []
    for index, group in enumerate(groups):
        key = keys.setdefault(prompt_text(group), len(keys))
        unseen_P = [any(map(is_unseen_wording, some)) for some in group.instructions]
        for relation in group.relations:
            prompts = _prompts(group, relation)
            carried = [group.instructions[prompt] for prompt in prompts]
            levels.append(relation.level)
            rows.append((index, key, max((len(instructions) for instructions in carried), default=0)))
            of_items.append(frozenset(families.get(i.name, "unknown") for some in carried for i in some))
            unseen.append(any(unseen_P[prompt] for prompt in prompts))
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    columns = (table[:, 0], table[:, 1], table[:, 2])
    return RelationItems(tuple(levels), *columns, tuple(of_items), np.array(unseen, dtype=np.bool_))


def prompt_text(group: RelationGroup) -> str:
    """The text of the group's original prompt: what the bootstrap resamples by."""
    return "\n\n".join(f"{message.role}: {message.content}" for message in group.prompts[0])


def relation_margins(groups: Sequence[RelationGroup], rewards: Rewards, model: str) -> FloatArray:
    """Signed sums of rewards [R]: over preferred minus over dispreferred sequences (docs/method.md).

    Raises `RunError` where the rewards do not fit the groups or are not finite; `model` names them in messages.
    """
    if len(rewards) != len(groups):
        raise RunError(f"model {model}: rewards of {len(rewards)} groups, but there are {len(groups)} groups.")
    margins: list[float] = []
    for group, rewards_S in zip(groups, rewards, strict=True):
        if len(rewards_S) != len(group.sequences):
            raise RunError(
                f"model {model}, group {group.pair_id}: {len(rewards_S)} rewards, but {len(group.sequences)} sequences."
            )
        if not np.all(np.isfinite(rewards_S)):
            raise RunError(f"model {model}, group {group.pair_id}: the rewards are not finite: {list(rewards_S)}.")
        for relation in group.relations:
            preferred = sum(rewards_S[s] for s in relation.preferred)
            margins.append(preferred - sum(rewards_S[s] for s in relation.dispreferred))
    return np.array(margins, dtype=np.float64)


def _prompts(group: RelationGroup, relation: Relation) -> set[int]:
    return {group.sequences[s].prompt for s in (*relation.preferred, *relation.dispreferred)}


def is_unseen_wording(record: InstructionRecord) -> bool:
    """Whether the text is a wording that `synthesis.held_out_phrasings` holds out; no for unknown functions."""
    function = REGISTRY.get(record.name)
    if function is None:
        return False
    phrasings = function.phrasings(record.args)
    return any(phrasings[index] == record.text for index in held_out_wordings(phrasings))
