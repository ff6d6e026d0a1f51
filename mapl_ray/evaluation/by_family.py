"""Intra and inter accuracy by instruction family.

A relation counts for each family of its prompts' instructions, so the families overlap for k > 1.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypedDict

from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.items import BoolArray, FloatArray, RelationItems


class WorstFamily(TypedDict):
    """The family with the lowest accuracy at one level."""

    family: str
    accuracy: Estimate


def accuracy_by_family(
    items: RelationItems, margins_R: FloatArray, samples: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """`{"intra": {family: ...}, "inter": {family: ...}}`, families in alphabetical order."""
    results: dict[str, dict[str, Estimate]] = {}
    correct_R = (margins_R > 0.0).astype(float)
    for level_family in ("intra", "inter"):
        of_level_R = items.of_family(level_family)
        results[level_family] = {}
        for family in sorted(frozenset().union(*items.family_sets)):
            mask_R = of_level_R & items.with_any((family,))
            accuracy = estimate(correct_R[mask_R], items.prompt_R[mask_R], samples, seed)
            if accuracy is not None:
                results[level_family][family] = accuracy
    return results


def accuracy_by_novelty(
    items: RelationItems, margins_R: FloatArray, unseen: Collection[str], samples: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """`{"intra": {"seen": ..., "unseen": ...}, "inter": ...}`: unseen relations have a family not seen in training.

    Empty if training saw every family.
    """
    if not unseen:
        return {}
    return _seen_and_unseen(items, margins_R, items.with_any(unseen), samples, seed)


def accuracy_by_phrasing(
    items: RelationItems, margins_R: FloatArray, samples: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """Like `accuracy_by_novelty`: unseen relations have an instruction in a phrasing that training held out.

    The result is only meaningful with `synthesis.held_out_phrasings`.
    """
    return _seen_and_unseen(items, margins_R, items.unseen_phrasing_R, samples, seed)


def _seen_and_unseen(
    items: RelationItems, margins_R: FloatArray, unseen_R: BoolArray, samples: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    results: dict[str, dict[str, Estimate]] = {}
    correct_R = (margins_R > 0.0).astype(float)
    for level_family in ("intra", "inter"):
        results[level_family] = {}
        for name, of_kind_R in (("seen", ~unseen_R), ("unseen", unseen_R)):
            mask_R = items.of_family(level_family) & of_kind_R
            accuracy = estimate(correct_R[mask_R], items.prompt_R[mask_R], samples, seed)
            if accuracy is not None:
                results[level_family][name] = accuracy
    return results


def worst_families(by_family: dict[str, dict[str, Estimate]]) -> dict[str, WorstFamily]:
    """The family with the lowest accuracy at each level; levels without families are absent."""
    results: dict[str, WorstFamily] = {}
    for level_family, accuracies in by_family.items():
        if accuracies:
            worst = min(accuracies, key=lambda family: accuracies[family]["value"])
            results[level_family] = WorstFamily(family=worst, accuracy=accuracies[worst])
    return results
