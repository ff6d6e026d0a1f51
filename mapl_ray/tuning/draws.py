"""Values of a trial, drawn from its number and the search's seed alone: whoever draws them, and however often."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

from mapl_ray.config import Dimension, Scalar

_MOST = 10_000  # combinations that are drawn without repeats


def draw(space: Mapping[str, Dimension], seed: int, number: int) -> dict[str, Scalar]:
    """Values by dotted name. Points of the grid are taken in turn, the last name's fastest; the rest is drawn.

    Every name has a stream of its own, so that a further name leaves the others' values as they were. Where what is
    drawn has few values in all, no two trials of a grid point are equal until each combination was drawn once.
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
    """One value of a dimension; of a grid, any."""
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
