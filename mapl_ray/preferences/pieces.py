"""Pieces: intermediate Arrow files of pairs that are memory-mapped and never read whole.

A piece holds pairs from one worker's source rows: both splits, each sorted by `place_of` of the ids. Besides the pairs'
columns it has the columns used to decide on them (row, place, contamination, digest, sketch), and for every band of
`keys.py` the keys in ascending order with the pairs that they belong to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mapl_ray.awaited import await_files
from mapl_ray.config import DataConfig
from mapl_ray.data.group_columns import records_to_table
from mapl_ray.data.records import PAIR_SCHEMA, PreferencePair
from mapl_ray.data.shards import write_atomically
from mapl_ray.errors import RunError
from mapl_ray.preferences.canonical_order import place_of
from mapl_ray.preferences.contamination import Contamination
from mapl_ray.preferences.keys import DIGEST_BYTES, SKETCH_BYTES, Keys, Likeness, band_keys, likeness_of
from mapl_ray.preferences.normal_form import eval_split

_TABLE_PAIRS = 1024  # pairs converted to columns together: Python objects take several times the memory
_PAIR_CHARS = 500  # approximate overhead of a pair, besides its texts
# float64 as read: the order of pairs with the same id may depend on digits that float32 would lose.
_JUDGEMENTS = pa.list_(pa.struct([("name", pa.string()), ("chosen", pa.float64()), ("rejected", pa.float64())]))
_PAIRS = PAIR_SCHEMA.set(PAIR_SCHEMA.get_field_index("judgements"), pa.field("judgements", _JUDGEMENTS)).append(
    pa.field("row", pa.int64())
)
Rows = NDArray[np.uint64]  # rows over all pieces: the piece's number << 32 | position in the piece


@dataclass(frozen=True, slots=True)
class Piece:
    """A finished piece; pairs 0 to `train` - 1 are the train split."""

    path: Path
    train: int
    pairs: int
    first_row: int = 0  # offset of its row numbers

    def of(self, split: str) -> slice:
        """Range of the pairs of one split."""
        return slice(0, self.train) if split == "train" else slice(self.train, self.pairs)

    def table(self) -> pa.Table:
        """All columns, memory-mapped: only accessed data is read. Raises `RunError` for an incomplete piece."""
        await_files(self.path.parent, [self.path.name])
        try:
            table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        except (OSError, pa.ArrowException) as error:
            raise RunError(
                f"{self.path}: cannot be read ({error}). Delete {self.path.parent.parent} and run the command again."
            ) from None
        if table.num_rows != self.pairs:
            raise RunError(
                f"{self.path}: found {table.num_rows} pairs; expected {self.pairs}. Delete {self.path.parent.parent} "
                "and run the command again."
            )
        return table


def column(table: pa.Table, name: str) -> NDArray[Any]:
    """A numeric column of a piece, without a copy."""
    return np.asarray(table.column(name).chunk(0).to_numpy()) if table.num_rows else np.empty(0)


def pairs_in(table: pa.Table) -> pa.Table:
    """Select the columns of `PAIR_SCHEMA` and cast them to its types."""
    return table.select(PAIR_SCHEMA.names).cast(PAIR_SCHEMA)


class PieceWriter:
    """Write pairs to pieces of about `most` characters: `folder/NAME-000.arrow` and so on."""

    def __init__(
        self, folder: Path, name: str, config: DataConfig, seed: int, contamination: Contamination, most: int
    ) -> None:
        self._folder, self._name, self._config, self._seed = folder, name, config, seed
        self._contamination, self._most = contamination, most
        self._pairs: list[PreferencePair] = []
        self._tables: list[pa.Table] = []
        self._places: list[float] = []
        self._held_out: list[bool] = []
        self._reasons: list[str | None] = []
        self._likenesses: list[Likeness] = []
        self._chars = 0
        self.pieces: list[Piece] = []

    def add(self, pair: PreferencePair) -> None:
        """Add a pair."""
        self._pairs.append(pair)
        self._places.append(place_of(pair.pair_id))
        self._held_out.append(eval_split(pair, self._config.eval_fraction, self._seed))
        self._reasons.append(self._contamination.found(pair))
        self._likenesses.append(likeness_of(pair, self._config))
        self._chars += _PAIR_CHARS + len(pair.chosen) + len(pair.rejected) + sum(len(m.content) for m in pair.prompt)
        if len(self._pairs) == _TABLE_PAIRS:
            self._to_columns()
        if self._chars >= self._most:
            self.finish()

    def finish(self) -> None:
        """Write the remaining pairs as the last piece."""
        self._to_columns()
        if not self._tables:
            return
        path = self._folder / f"{self._name}-{len(self.pieces):03d}.arrow"
        held_out = np.array(self._held_out)
        table = self._sorted(held_out, np.array(self._places))
        write_atomically(path, lambda aside: _write(table, aside))
        self.pieces.append(Piece(path, int((~held_out).sum()), len(held_out)))
        self._tables, self._places, self._held_out, self._reasons, self._likenesses = [], [], [], [], []
        self._chars = 0

    def _to_columns(self) -> None:
        if self._pairs:
            self._tables.append(records_to_table(self._pairs, _PAIRS))
            self._pairs = []

    def _sorted(self, held_out: NDArray[np.bool_], places: NDArray[np.float64]) -> pa.Table:
        order = np.lexsort((places, held_out))
        pairs = pa.concat_tables(self._tables).combine_chunks().take(order)
        likenesses = [self._likenesses[index] for index in order]
        columns: dict[str, pa.Array] = {
            "place": pa.array(places[order]),
            "contamination": pa.array([self._reasons[index] for index in order], pa.string()),
        }
        if self._config.duplicates != "keep":
            columns["digest"] = pa.array([one.digest for one in likenesses], pa.binary(DIGEST_BYTES))
        if self._config.duplicates == "near":
            columns["sketch"] = pa.array([one.sketch for one in likenesses], pa.binary(SKETCH_BYTES))
        for number, keys in enumerate(band_keys(places[order], likenesses, self._config)):
            ascending = np.argsort(keys, kind="stable")
            columns[f"key-{number}"] = pa.array(keys[ascending])
            columns[f"pair-{number}"] = pa.array(ascending.astype(np.uint32))
        for name, values in columns.items():
            pairs = pairs.append_column(name, values)
        return pairs


def _write(table: pa.Table, path: Path) -> None:
    """Write the table as one record batch, so that its columns can be mapped without a copy."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        for batch in table.combine_chunks().to_batches():
            file.write_batch(batch)


def rows_with_shared_keys(pieces: Sequence[Piece], band: int, low: int, high: int) -> Rows:
    """Rows, ascending, that share a key of the band in the range `low` to `high` - 1 with another row.

    Memory: 16 bytes per key of that range, and about as much again to sort them.
    """
    keys, rows = list[Keys](), list[Rows]()
    for number, piece in enumerate(pieces):
        table = piece.table()
        own, pairs = column(table, f"key-{band}"), column(table, f"pair-{band}")
        start = int(np.searchsorted(own, np.uint64(low)))
        stop = len(own) if high >= 2**64 else int(np.searchsorted(own, np.uint64(high)))
        keys.append(own[start:stop].copy())
        rows.append(pairs[start:stop].astype(np.uint64) | np.uint64(number << 32))
    all_keys, all_rows = np.concatenate(keys), np.concatenate(rows)
    order = np.argsort(all_keys, kind="stable")
    same = np.diff(all_keys[order]) == 0
    shared = np.append(same, False) | np.insert(same, 0, False) if len(order) else np.empty(0, bool)
    return np.sort(all_rows[order][shared])
