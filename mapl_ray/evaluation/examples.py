"""A few example groups for the report, with every model's rewards."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np

from mapl_ray.evaluation.columns import GroupColumns


class Example(TypedDict):
    """One group as a plain row of `GROUP_SCHEMA`, and for each model one reward per sequence."""

    group: dict[str, Any]
    rewards: dict[str, list[float]]


def pick_examples(columns: GroupColumns, count: int = 4, max_words: int = 150) -> list[int]:
    """Indices of up to `count` groups, preferably short ones, chosen greedily to show as many functions as possible.

    The choice is deterministic: the first of equal candidates is taken.
    """
    words_G = columns.text_words_G
    short_G = words_G <= max_words
    candidates = np.flatnonzero(short_G)
    if len(candidates) < count:
        others = np.flatnonzero(~short_G)
        order = np.argsort(words_G[others], kind="stable")
        candidates = np.concatenate([candidates, others[order[: count - len(candidates)]]])
    shown: set[str] = set()
    picked: list[int] = []
    while len(candidates) and len(picked) < count:
        new = np.array([len(names - shown) for names in columns.function_sets])
        place = int(np.argmax(new[columns.functions_G[candidates]]))  # the first of equal candidates
        picked.append(int(candidates[place]))
        candidates = np.delete(candidates, place)
        shown |= columns.function_sets[columns.functions_G[picked[-1]]]
    return picked
