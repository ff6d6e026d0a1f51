"""Deterministic sampling of a trial's values from its number and the search's seed."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from mapl_ray.config import Dimension, Scalar

_MOST = 10_000  # up to this number of combinations, none is repeated before all were sampled


def draw(space: Mapping[str, Dimension], seed: int, number: int) -> dict[str, Scalar]:
    """Sample the values of trial `number`, by dotted name. Goes through grid points in order, the last name fastest.

    Every name has its own random stream, so that a new name does not change the values of others. If the sampled
    dimensions have few combinations, none is repeated at a grid point before all were sampled.
    """
    values: dict[str, Scalar] = {}
    left = number
    for name, dimension in reversed(list(space.items())):
        if dimension.kind == "grid":
            left, place = divmod(left, len(dimension.given))
            values[name] = dimension.given[place]
    drawn = {name: dimension for name, dimension in space.items() if dimension.kind != "grid"}
    combinations = math.prod(dimension.size or _MOST + 1 for dimension in drawn.values())
    if combinations <= _MOST:
        order = list(range(combinations))
        random.Random(f"{seed}/order").shuffle(order)
        place = order[left % combinations]
        for name, dimension in drawn.items():
            place, index = divmod(place, dimension.size or 1)
            values[name] = dimension.value_at(index)
    else:
        for name, dimension in drawn.items():
            values[name] = draw_one(dimension, random.Random(f"{seed}/{number}/{name}"))
    return {name: values[name] for name in space}


def draw_one(dimension: Dimension, rng: random.Random) -> Scalar:
    """Sample one value of a dimension; of a grid, any of its values."""
    if dimension.values is not None:
        return rng.choice(dimension.values)
    low, high = dimension.given[:2]
    value: int | float
    if dimension.kind == "randint":
        value = rng.randrange(low, high)
    elif dimension.kind == "quniform":
        value = dimension.at(rng.randint(0, dimension.steps))
    elif dimension.kind == "loguniform":
        value = min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
    else:
        value = rng.uniform(low, high)
    return value
