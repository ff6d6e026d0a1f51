"""Mix several sources by weight: leave out some pairs and repeat others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mapl_ray.config import MixSource
from mapl_ray.data.records import PreferencePair, Rejection
from mapl_ray.preferences.canonical_order import place_of


def apply_weight(
    rows: Iterator[PreferencePair | Rejection], source: MixSource, seed: int
) -> Iterator[PreferencePair | Rejection]:
    """Yield every pair floor(weight) times, and a fraction weight - floor(weight) of pairs once more.

    A hash of the seed, the source's path and the pair's id decides, so order and workers do not matter. Repeats have
    the ids `id~2`, `id~3`, ..., so that other groups are drawn for them. Pairs that are left out become rejections of
    the stage `mix`. So accepted + rejected = rows of the source + extra repeats.
    """
    whole, rest = divmod(source.weight, 1.0)
    for row in rows:
        if isinstance(row, Rejection):
            yield row
            continue
        times = int(whole) + (place_of(f"{seed}\n{source.path}\n{row.pair_id}") < rest)
        if times == 0:
            reason = f"left out by its source's weight={source.weight:g} (data.mix, {source.path})"
            yield Rejection(row.source, row.row, row.pair_id, "mix", reason)
        for number in range(1, times + 1):
            yield row if number == 1 else replace(row, pair_id=f"{row.pair_id}~{number}")


def repeat_of(pair_id: str, mix: Sequence[MixSource]) -> int:
    """n for an id `...~n` that `apply_weight` may have made from `mix`, else 1: ids in the data may contain `~` too."""
    ending = re.search(r"~([1-9]\d{0,8})\Z", pair_id, re.ASCII)
    number = int(ending[1]) if ending else 1
    return number if number <= max((math.ceil(source.weight) for source in mix), default=1) else 1
