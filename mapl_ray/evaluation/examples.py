"""A few groups for people to look at, with every model's rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from mapl_ray.data.records import RelationGroup
from mapl_ray.evaluation.items import Rewards


class Example(TypedDict):
    """One group as a plain row of `GROUP_SCHEMA`, and per model one reward a sequence."""

    group: dict[str, Any]
    rewards: dict[str, list[float]]


def pick_examples(
    groups: Sequence[RelationGroup], rewards: Mapping[str, Rewards], count: int = 4, max_words: int = 150
) -> list[Example]:
    """Up to `count` groups: short ones first choice, each adding as many functions not yet shown as it can."""
    short = [g for g, group in enumerate(groups) if _words(group) <= max_words]
    rest = sorted(set(range(len(groups))) - set(short), key=lambda g: (_words(groups[g]), g))
    candidates = short + rest[: max(0, count - len(short))]
    names = {g: {i.name for some in groups[g].instructions for i in some} for g in candidates}
    shown: set[str] = set()
    picked: list[int] = []
    while candidates and len(picked) < count:
        # max keeps the first of equals: the choice depends on the groups alone.
        best = max(candidates, key=lambda g: len(names[g] - shown))
        candidates.remove(best)
        picked.append(best)
        shown |= names[best]
    return [
        Example(
            group=groups[g].to_row(),
            rewards={model: [float(r) for r in of_model[g]] for model, of_model in rewards.items()},
        )
        for g in picked
    ]


def _words(group: RelationGroup) -> int:
    texts = [message.content for message in group.prompts[0]] + list(group.responses)
    return sum(len(text.split()) for text in texts)
