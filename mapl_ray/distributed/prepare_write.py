"""Last pass of preparation: pieces -> parts in canonical order, without the rejected pairs.

An item is a range of parts of one split. A pair's id determines its part, so adding or removing a pair changes only
that part, as long as the number of parts stays the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import merge
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mapl_ray.awaited import await_files
from mapl_ray.data.records import PAIR_SCHEMA, Rejection, canonical_json
from mapl_ray.data.shards import Part, write_atomically, write_part
from mapl_ray.distributed.passes import Entry
from mapl_ray.distributed.row_numbers import SOURCE_ROWS
from mapl_ray.preferences.canonical_order import ExternalSort
from mapl_ray.preferences.decisions import read_decisions
from mapl_ray.preferences.pieces import Piece, Rows, column, pairs_in
from mapl_ray.progress import tracked

# Place and rank of the rejected pair, which order the rejections of the pass, and the rejection.
Placed = tuple[float, int, Rejection]


@dataclass(frozen=True, slots=True)
class WriteContext:
    """Shared arguments of all items."""

    pieces: Sequence[Piece]
    decisions: Path
    folder: Path  # of the pass's own files
    targets: Mapping[str, Path]  # by split
    parts: Mapping[str, int]  # number of parts by split
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PartRange:
    """Parts `first` to `stop` - 1 of a split."""

    split: str
    first: int
    stop: int


@dataclass(slots=True)
class _Found:
    """The pairs of an item, collected from the pieces."""

    tables: list[pa.Table] = field(default_factory=list)
    places: list[NDArray[np.float64]] = field(default_factory=list)
    rejected: int = 0


def plan_ranges(counts: Mapping[str, int], parts: Mapping[str, int], pair_bytes: float, size: int) -> list[PartRange]:
    """Divide the parts of both splits into items of about `size` bytes each."""
    ranges = []
    for split, number in parts.items():
        each = max(1, int(size * number / max(1.0, counts[split] * pair_bytes)))
        ranges += [PartRange(split, first, min(first + each, number)) for first in range(0, number, each)]
    return ranges


def write_range(item: PartRange, number: int, *, context: WriteContext) -> Entry:
    """Write an item's parts and its rejections. The driver later adds the rejections to the last train part."""
    count = context.parts[item.split]
    # Sorted by row, so that the decisions of a piece can be found by binary search.
    decided = read_decisions(context.decisions, *_bounds(item, count)).sort_by("row")
    found = _Found()
    with ExternalSort(context.folder) as rejections:
        for place_in in enumerate(tracked(context.pieces, f"write {item.split} pairs", "pieces")):
            _collect(found, rejections, item, place_in, decided, count)
        _write_rejections(rejected_pairs_path(context.folder, number), rejections)
    parts = _write_parts(item, context, found, count)
    return {"parts": [asdict(part) for part in parts], "rejected": found.rejected}


def rejected_pairs_path(folder: Path, number: int) -> Path:
    """Path of an item's rejected pairs."""
    return folder / f"{number:05d}.rejected.jsonl"


def rejected_pairs(folder: Path, items: Sequence[PartRange]) -> Iterator[Rejection]:
    """The rejections of all items in canonical order, merged from both splits; each split is already in that order."""

    def of(split: str) -> Iterator[Placed]:
        for number, item in enumerate(items):
            if item.split == split:
                yield from _read_rejections(rejected_pairs_path(folder, number))

    for _, _, rejection in merge(*(of(split) for split in ("train", "eval")), key=lambda one: one[:2]):
        yield rejection


def _collect(
    found: _Found,
    rejections: ExternalSort,
    item: PartRange,
    place_in: tuple[int, Piece],
    decided: pa.Table,
    count: int,
) -> None:
    """Add a piece's pairs and rejections that belong to the item."""
    index, piece = place_in
    table, section = piece.table(), piece.of(item.split)
    places = column(table, "place")[section]
    # Slightly wider on both sides, because the multiplication below, which rounds, decides.
    start, stop = (int(at) for at in np.searchsorted(places, _bounds(item, count)))
    if start == stop:
        return
    places, part = places[start:stop], np.floor(places[start:stop] * count)
    own = table.slice(section.start + start, stop - start)
    first = np.uint64((index << 32) + section.start + start)
    rows = np.arange(stop - start, dtype=np.uint64) + first
    inside = (item.first <= part) & (part < item.stop)
    out = inside & (_among(rows, decided) | own.column("contamination").is_valid().to_numpy())
    kept = inside & ~out
    pairs = own.select([*PAIR_SCHEMA.names, "row"]).filter(pa.array(kept))
    found.tables.append(pairs.set_column(len(PAIR_SCHEMA), "row", pc.add(pairs.column("row"), piece.first_row)))
    found.places.append(places[kept])
    if out.any():
        found.rejected += int(out.sum())
        some = own.select(["pair_id", "source", "row", "contamination"]).filter(pa.array(out))
        for value in _rejections(some, places[out], rows[out], decided, piece.first_row):
            rejections.add(value)


def _bounds(item: PartRange, count: int) -> tuple[float, float]:
    return (item.first - 0.001) / count, (item.stop + 0.001) / count


def _among(rows: Rows, decided: pa.Table) -> NDArray[np.bool_]:
    """Mask of the rows that are in `decided`, that is rejected. Both are sorted ascending."""
    dropped = decided.column("row").to_numpy()
    found = np.searchsorted(dropped, rows)
    inside = found < len(dropped)
    inside[inside] = dropped[found[inside]] == rows[inside]
    return inside


def _rejections(
    some: pa.Table, places: NDArray[np.float64], rows: Rows, decided: pa.Table, first_row: int
) -> Iterator[tuple[float, int, str]]:
    """Place, rank and JSON of each rejection."""
    known = _among(rows, decided)
    of = decided.take(np.searchsorted(decided.column("row").to_numpy(), rows[known])).to_pylist()
    decisions = iter(of)
    for values, place, is_known in zip(some.to_pylist(), places, known, strict=True):
        own = next(decisions) if is_known else {"tie": 0, "stage": "contamination", "reason": values["contamination"]}
        row = values["row"] + first_row
        rejection = Rejection(values["source"], row, values["pair_id"], own["stage"], own["reason"])
        yield float(place), own["tie"], canonical_json(rejection.to_row())


def _write_parts(item: PartRange, context: WriteContext, found: _Found, count: int) -> list[Part]:
    places = np.concatenate(found.places) if found.places else np.empty(0)
    empty = PAIR_SCHEMA.append(pa.field("row", pa.int64())).empty_table()
    table = pa.concat_tables(found.tables).combine_chunks() if found.tables else empty
    found.tables.clear()
    order = _canonical(table, places)
    edges = np.searchsorted(np.floor(places[order] * count), np.arange(item.first, item.stop + 1))
    parts = []
    for index in tracked(range(item.first, item.stop), f"write {item.split} pairs", "parts", item.stop - item.first):
        own = table.take(order[edges[index - item.first] : edges[index - item.first + 1]])
        notes = {SOURCE_ROWS: own.column("row").to_pylist()}
        target = context.targets[item.split]
        parts.append(write_part(target, index, pairs_in(own), (), PAIR_SCHEMA, context.fingerprint, notes))
    return parts


def _canonical(table: pa.Table, places: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sort order of the kept pairs: by place, and by the unique id in the rare case of equal places."""
    order = np.argsort(places, kind="stable")
    if (np.diff(places[order]) == 0).any():
        ids = table.column("pair_id").to_pylist()
        order = np.array(sorted(range(len(ids)), key=lambda index: (places[index], ids[index])))
    return order


def _write_rejections(path: Path, rejections: ExternalSort) -> None:
    def write(aside: Path) -> None:
        with aside.open("w", encoding="utf-8", newline="\n") as lines:
            lines.writelines(f"{json.dumps(value)}\n" for value in rejections.sorted())

    write_atomically(path, write)


def _read_rejections(path: Path) -> Iterator[Placed]:
    await_files(path.parent, [path.name])
    with path.open(encoding="utf-8", newline="\n") as lines:
        for place, tie, text in map(json.loads, lines):
            yield place, tie, Rejection(**json.loads(text))
