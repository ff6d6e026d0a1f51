"""Look up the source row of rejected groups.

Row numbers are stored in the notes of the pairs' parts, not in the pairs: the same pairs in another order are the same
data, so nothing is recomputed. Part i of every later stage is made from part i of the pairs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mapl_ray.awaited import has_appeared
from mapl_ray.data.records import Rejection
from mapl_ray.data.shards import read_manifest, read_notes, read_part

SOURCE_ROWS = "source_rows"  # key in the notes of a part of pairs: one row number per pair


def with_source_rows(rejections: Sequence[Rejection], pairs: Path, index: int) -> list[Rejection]:
    """Fill in the source row of every rejection.

    `pairs` is the folder of the split's pairs. If it is missing or has no row numbers (`data_run` of another machine,
    pairs of an older release), rows stay -1. Further groups of a pair have the ids `pair_id#2`, `pair_id#3`, ...
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
