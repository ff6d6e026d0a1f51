"""Limits on reading a data file, so that a small file cannot expand endlessly and one row cannot fill the memory.

    16 MiB     size of a row as written (a line of JSON, a record of CSV), and of one text of a Parquet row
    4,096      columns, or keys of a row
    200 times  growth of a gzip file or a Parquet row group when unpacked, checked above 16 MiB
    1 row      per byte of a Parquet file, checked above 100,000 rows
    1 GiB      size of a .json array, which is read whole

All are far above real preference data. Exceeding one raises a `UserError` or rejects the row, and names the limit.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, BinaryIO, TextIO

from mapl_ray.errors import UserError

MAX_ROW = 2**24  # bytes of JSON, characters of CSV
MAX_COLUMNS = 4096
MAX_ARRAY_BYTES = 2**30
_GROWTH, _GROWS_FROM = 200, 2**24  # times, bytes
_ROWS_FROM = 100_000
_FEWEST_ROWS, _MOST_ROWS, _DECODED = 16, 1024, 2**30  # per batch: rows, rows, bytes
_CHUNK = 2**22


class BoundedGzip(gzip.GzipFile):
    """A gzip file opened for reading. Raises `UserError` as soon as the unpacked size exceeds the limit."""

    def __init__(self, path: PurePath, packed: BinaryIO) -> None:
        super().__init__(fileobj=packed, mode="rb")
        self._path, self._packed = path, packed

    def read(self, size: int | None = -1) -> bytes:
        return self._checked(super().read(size))

    def read1(self, size: int = -1) -> bytes:
        return self._checked(super().read1(size))

    def readline(self, size: int | None = -1) -> bytes:
        return self._checked(super().readline(size))

    def _checked(self, piece: bytes) -> bytes:
        size, of = self.tell(), self._packed.tell()
        if size > max(_GROWS_FROM, _GROWTH * of):
            raise UserError(
                f"{self._path}: {of:,} bytes of gzip grew to {size:,}; expected at most {_GROWTH} times as many, "
                "enough for text. If the file is right, unpack it yourself."
            )
        return piece


def bounded_lines(handle: BinaryIO, path: PurePath) -> Iterator[bytes]:
    """Lines of a file. Raises `UserError` for a line longer than `MAX_ROW`."""
    number = 0
    while line := handle.readline(MAX_ROW + 1):
        number += 1
        if len(line) > MAX_ROW:
            raise UserError(f"{path}: line {number} is {_TOO_LONG}. Put a line break between the rows.")
        yield line


class BoundedRecords:
    """Lines of a CSV file for `csv.reader`, which joins lines while a quote is open; limits the size of a record."""

    def __init__(self, text: TextIO, path: PurePath) -> None:
        self._text, self._path = text, path
        self._line = self._first = self._size = 0

    def begin(self) -> None:
        """Start a new record; call this before each one."""
        self._first, self._size = self._line + 1, 0

    def __iter__(self) -> BoundedRecords:
        return self

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self._line += 1
        self._size += len(line)
        if self._size > MAX_ROW:
            raise UserError(
                f"{self._path}: the row that starts at line {self._first} is {_TOO_LONG}. Close any open quote, or "
                "shorten the row."
            )
        return line


def read_array(handle: BinaryIO, path: PurePath) -> bytes:
    """Read the whole file. Raises `UserError` if it is larger than `MAX_ARRAY_BYTES`."""
    pieces, size = [], 0
    while piece := handle.read(_CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ARRAY_BYTES:
            raise UserError(
                f"{path}: more than {MAX_ARRAY_BYTES:,} bytes, and a JSON array is read whole. Write it as JSON lines "
                "(.jsonl), which are streamed."
            )
    return b"".join(pieces)


def check_columns_number(number: int, where: str) -> None:
    """Raise `UserError` if there are more than `MAX_COLUMNS` columns."""
    if number > MAX_COLUMNS:
        raise UserError(f"{where}: {number:,} columns; expected at most {MAX_COLUMNS:,}. Remove the unused ones.")


def too_large(values: Mapping[str, Any]) -> str:
    """Reason why a row exceeds the limits; empty if it does not."""
    if len(values) > MAX_COLUMNS:
        return f"{len(values):,} keys; expected at most {MAX_COLUMNS:,}"
    name = next((name for name, value in values.items() if isinstance(value, str) and len(value) > MAX_ROW), None)
    return "" if name is None else f"{name} is {_TOO_LONG}"


def batch_rows(metadata: Any, size: int, path: PurePath) -> int:
    """Number of Parquet rows to decode at once: one stored value may expand to every row of a row group.

    Raises `UserError` for a file that expands to far more than its `size` in bytes.
    """
    check_columns_number(metadata.num_columns, str(path))
    if metadata.num_rows > max(_ROWS_FROM, size):
        raise UserError(
            f"{path}: {metadata.num_rows:,} rows in {size:,} bytes; expected fewer rows than bytes. "
            "Remove repeated rows."
        )
    largest = 1
    for group in range(metadata.num_row_groups):
        for column in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(column)
            if chunk.total_uncompressed_size > max(_GROWS_FROM, _GROWTH * chunk.total_compressed_size):
                raise UserError(
                    f"{path}: column {chunk.path_in_schema!r}: {chunk.total_compressed_size:,} bytes grow to "
                    f"{chunk.total_uncompressed_size:,}; expected at most {_GROWTH} times as many, enough for text."
                )
            largest = max(largest, chunk.total_uncompressed_size)
    return max(_FEWEST_ROWS, min(_MOST_ROWS, _DECODED // largest))


_TOO_LONG = f"longer than {MAX_ROW:,} bytes; expected a prompt and its responses"
