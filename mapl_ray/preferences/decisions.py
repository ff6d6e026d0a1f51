"""Decide which of the pairs that share a key with another pair are kept: in canonical order, in one process.

    same id as a kept pair                     rejected: one row per id
    a benchmark's prompt                       rejected
    duplicate of a kept pair                   rejected, by `data.duplicates`
    any other                                  kept

Memory: 24 bytes per pair that shares a key, plus what `Duplicates` stores of the kept pairs. Pairs that share no key
are not examined here: only contamination can reject them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PAIR_SCHEMA, canonical_json
from mapl_ray.data.shards import write_atomically
from mapl_ray.preferences.canonical_order import ExternalSort
from mapl_ray.preferences.duplicates import Duplicates
from mapl_ray.preferences.keys import Likeness
from mapl_ray.preferences.pieces import Piece, Rows, column
from mapl_ray.progress import progress

# Rejected pairs, in canonical order. `tie`: rank among the pairs with the same `place`.
SCHEMA = pa.schema(
    [
        ("place", pa.float64()),
        ("tie", pa.uint32()),
        ("row", pa.uint64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
    ]
)
_AT_ONCE = 20_000  # pairs whose columns are in memory at once
_WHOLE_AT_ONCE = 256  # pairs whose texts are in memory at once

Ranked = tuple[int, float, int]  # row, its place, its rank among the rows with the same place


def write_decisions(path: Path, pieces: Sequence[Piece], rows: Rows, config: DataConfig) -> None:
    """Decide on `rows`, which must be ascending, and write the rejected ones to an Arrow file."""

    def write(aside: Path) -> None:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as file:
            for found in _rejected(path.parent, pieces, rows, config):
                file.write_table(pa.Table.from_pylist(found, schema=SCHEMA))

    write_atomically(path, write)


def read_decisions(path: Path, low: float, high: float) -> pa.Table:
    """Read the decisions with `low` <= place < `high`."""
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    places = table.column("place").to_numpy()
    start, stop = np.searchsorted(places, [low, high])
    return table.slice(start, stop - start)


def _rejected(folder: Path, pieces: Sequence[Piece], rows: Rows, config: DataConfig) -> Iterator[list[dict[str, Any]]]:
    duplicates, kept = Duplicates(config), None
    nearly = "nearly " if duplicates.mode == "near" else ""
    ranked = _in_order(folder, pieces, rows)
    with progress("look for duplicates", len(rows), "candidates") as work:
        while some := list(islice(ranked, _AT_ONCE)):
            found = list[dict[str, Any]]()
            for (row, place, tie), (pair_id, contamination, likeness) in zip(
                some, _columns(pieces, np.array([row for row, _, _ in some], np.uint64)), strict=True
            ):
                rejected = {"place": place, "tie": tie, "row": row}
                if pair_id == kept:
                    reason = f"id {pair_id!r} occurs more than once: expected one row per id; one of them was kept"
                    found.append(rejected | {"stage": "read", "reason": reason})
                elif contamination is not None:
                    found.append(rejected | {"stage": "contamination", "reason": contamination})
                elif (first := duplicates.first_with(pair_id, likeness)) is not None:
                    reason = f"{nearly}the same as pair {first!r} (data.duplicates={duplicates.mode})"
                    found.append(rejected | {"stage": "duplicates", "reason": reason})
                else:
                    kept = pair_id
            yield found
            work.advance(len(some))


def _in_order(folder: Path, pieces: Sequence[Piece], rows: Rows) -> Iterator[Ranked]:
    """The rows in canonical order."""
    if not len(rows):  # no two pairs share a key
        return
    places = np.empty(len(rows), np.float64)
    for start, stop, piece in _by_piece(pieces, rows):
        places[start:stop] = column(piece.table(), "place")[_inside(rows[start:stop])]
    order = np.argsort(places, kind="stable")
    places = places[order]
    starts = np.flatnonzero(np.diff(places, prepend=-1.0))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        place, tied = float(places[start]), rows[order[start:stop]]
        if len(tied) == 1:
            yield int(tied[0]), place, 0
            continue
        with ExternalSort(folder) as values:
            for first in range(0, len(tied), _WHOLE_AT_ONCE):
                for value in _whole(pieces, tied[first : first + _WHOLE_AT_ONCE]):
                    values.add(value)
            for tie, (*_, row) in enumerate(values.sorted()):
                yield int(row), place, tie


def _whole(pieces: Sequence[Piece], rows: Rows) -> Iterator[tuple[str, str, int, int]]:
    """Sort key (id, content, row in the source) of pairs with the same place, followed by the row; `rows` ascend."""
    for start, stop, piece in _by_piece(pieces, rows):
        table = piece.table().select([*PAIR_SCHEMA.names, "row"]).take(_inside(rows[start:stop]))
        for row, values in zip(rows[start:stop], table.to_pylist(), strict=True):
            own = int(values.pop("row")) + piece.first_row
            yield values["pair_id"], canonical_json(values), own, int(row)


def _columns(pieces: Sequence[Piece], rows: Rows) -> Iterator[tuple[str, str | None, Likeness]]:
    """Id, contamination and likeness of every row, in the order of `rows`."""
    ascending = np.argsort(rows, kind="stable")
    found = list[pa.Table]()
    for start, stop, piece in _by_piece(pieces, rows[ascending]):
        table = piece.table()
        names = ("pair_id", "contamination", "digest", "sketch")
        there = table.select([name for name in names if name in table.column_names])
        found.append(there.take(_inside(rows[ascending[start:stop]])))
    back = np.empty(len(rows), np.int64)
    back[ascending] = np.arange(len(rows))
    table = pa.concat_tables(found).combine_chunks().take(back)
    for values in table.to_pylist():
        yield values["pair_id"], values["contamination"], Likeness(values.get("digest", b""), values.get("sketch"))


def _by_piece(pieces: Sequence[Piece], rows: Rows) -> Iterator[tuple[int, int, Piece]]:
    """Split ascending rows by piece: (start, stop, piece)."""
    numbers = rows >> np.uint64(32)
    starts = np.flatnonzero(np.diff(numbers, prepend=np.uint64(2**32)))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        yield int(start), int(stop), pieces[int(numbers[start])]


def _inside(rows: Rows) -> NDArray[np.int64]:
    """Positions of rows within their pieces."""
    return (rows & np.uint64(2**32 - 1)).astype(np.int64)
