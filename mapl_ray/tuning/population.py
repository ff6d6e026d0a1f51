"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846): which member copies which, with what values.

Pure functions: moves depend only on the members' scores, the seed and the step. Between moves, members train
independently as trials of Ray Tune.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapl_ray.config import Dimension, Scalar
from mapl_ray.tuning.draws import draw_one

# The values of Ray Tune's PopulationBasedTraining scheduler.
_QUANTILE = 0.25  # fraction of the population at each end
_RESAMPLE = 0.25  # probability that a value is resampled instead of perturbed
_FACTORS = (0.8, 1.2)


@dataclass(frozen=True, slots=True)
class Move:
    """A member of the lowest quantile continues from the checkpoint of a donor in the highest."""

    member: int
    donor: int
    params: dict[str, Scalar]


def next_moves(
    scores: Mapping[int, float], params: Mapping[int, dict[str, Scalar]], space: Mapping[str, Dimension], seed: str
) -> list[Move]:
    """Compute the moves after an evaluation. `scores`: of the members that are still running, larger is better.

    Ties are broken by number, so that members with equal scores do not copy each other.
    """
    ranked = sorted(scores, key=lambda number: (scores[number], -number))
    size = min(math.ceil(len(ranked) * _QUANTILE), len(ranked) // 2)
    rng = random.Random(seed)
    moves = []
    for member in ranked[:size]:
        donor = rng.choice(ranked[-size:])
        if scores[donor] > scores[member]:
            moves.append(Move(member, donor, explore(params[donor], space, rng)))
    return moves


def explore(params: Mapping[str, Scalar], space: Mapping[str, Dimension], rng: random.Random) -> dict[str, Scalar]:
    """Resample or perturb every value: times 0.8 or 1.2 within the bounds of a range, or a neighbor in a list."""
    return {
        name: draw_one(dimension, rng) if rng.random() < _RESAMPLE else _changed(params[name], dimension, rng)
        for name, dimension in space.items()
    }


def _changed(value: Scalar, dimension: Dimension, rng: random.Random) -> Scalar:
    up = rng.random() < 0.5
    if dimension.values is not None:
        return _neighbour(dimension.values, value, up)
    assert isinstance(value, int | float)
    low, high = dimension.given[:2]
    changed: int | float
    if dimension.kind == "randint":
        changed = min(max(value + (1 if up else -1), low), high - 1)
    elif dimension.kind == "quniform":
        index = round((value - low) / dimension.given[2]) + (1 if up else -1)
        changed = dimension.at(min(max(index, 0), dimension.steps))
    else:
        changed = min(max(value * _FACTORS[up], low), high)
    return changed


def _neighbour(values: Sequence[Scalar], value: Scalar, up: bool) -> Scalar:
    return values[min(max(values.index(value) + (1 if up else -1), 0), len(values) - 1)]
