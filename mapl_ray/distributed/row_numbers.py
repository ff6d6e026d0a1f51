"""Rows of the source that rejected groups are from.

Row numbers stand in the notes of the pairs' parts, not among the pairs: the same pairs in another order are the same
data, and nothing is computed again for them. Part i of every later stage is made of part i of the pairs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mapl_ray.awaited import has_appeared
from mapl_ray.data.records import Rejection
from mapl_ray.data.shards import read_manifest, read_notes, read_part

SOURCE_ROWS = "source_rows"  # in the notes of a part of pairs: a number for each of its pairs


def with_source_rows(rejections: Sequence[Rejection], pairs: Path, index: int) -> list[Rejection]:
    """The rejections, each with the row of the source that its pair was read from.

    `pairs` is the folder of the split's pairs. Without it (`data_run` of another machine, pairs that an older release
    wrote) rows stay -1. Ids of a pair's further groups are `pair_id#2`, `pair_id#3`, ...
    """
    unknown = [rejection for rejection in rejections if rejection.row < 0]
    if not unknown or not has_appeared(pairs / "manifest.json"):
        return list(rejections)
    part = next((part for part in read_manifest(pairs, verify=False).parts if part.index == index), None)
    notes = None if part is None else read_notes(pairs, part)
    if part is None or not isinstance(notes, dict) or SOURCE_ROWS not in notes:
        return list(rejections)
    rows = {row["pair_id"]: number for row, number in zip(read_part(pairs, part), notes[SOURCE_ROWS], strict=True)}

    def found(rejection: Rejection) -> Rejection:
        own = rejection.pair_id
        row = rows.get(own, rows.get(re.sub(r"#\d+\Z", "", own), -1))
        return replace(rejection, row=row) if rejection.row < 0 else rejection

    return [found(rejection) for rejection in rejections]
