"""Intra and inter accuracy by the number of instructions k."""

from __future__ import annotations

import numpy as np

from mapl_ray.evaluation.bootstrap import Estimate, estimate
from mapl_ray.evaluation.items import FloatArray, RelationItems


def accuracy_by_k(
    items: RelationItems, margins_R: FloatArray, samples: int, seed: int
) -> dict[str, dict[str, Estimate]]:
    """`{"intra": {"1": ..., "2": ...}, "inter": ...}`; k as text because JSON keys are; in rising order of k."""
    results: dict[str, dict[str, Estimate]] = {}
    correct_R = (margins_R > 0.0).astype(float)
    for level_family in ("intra", "inter"):
        of_level_R = items.of_family(level_family)
        results[level_family] = {}
        for k in np.unique(items.k_R[of_level_R]):
            mask_R = of_level_R & (items.k_R == k)
            accuracy = estimate(correct_R[mask_R], items.prompt_R[mask_R], samples, seed)
            if accuracy is not None:
                results[level_family][str(int(k))] = accuracy
    return results
