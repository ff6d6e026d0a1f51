"""Read the raw rows of one file: JSON lines, JSON, CSV (each also gzipped) and Parquet.

Duplicate keys and columns are refused in all of them, because a parser would silently take one of the two.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import reprlib
import sys
import zlib
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from mapl_ray.config.json_file import DuplicateKeyError, duplicate_key, load_json
from mapl_ray.data.arrow_types import refuse_duplicates, refuse_extensions
from mapl_ray.errors import UserError
from mapl_ray.preferences.content import refuse_other_content
from mapl_ray.preferences.limits import (
    BoundedGzip,
    BoundedRecords,
    batch_rows,
    bounded_lines,
    check_columns_number,
    read_array,
    too_large,
)


@dataclass(frozen=True, slots=True)
class RawRow:
    """One input row as read; if it could not be parsed, `values` is None and `problem` is the reason."""

    row: int  # 0-based position in the source
    values: Mapping[str, Any] | None
    problem: str = ""


def file_kind(path: PurePath) -> str | None:
    """The suffix that decides how a file is read (without `.gz`), or None if files of this kind are not supported."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
        return suffixes[-1] if suffixes and suffixes[-1] in _READERS and suffixes[-1] != ".parquet" else None
    return suffixes[-1] if suffixes and suffixes[-1] in _READERS else None


def read_file(
    path: PurePath,
    columns: Container[str],
    opener: Callable[[], BinaryIO] | None = None,
    groups: range | None = None,
) -> Iterator[RawRow]:
    """Stream the rows of a file in order (a `.json` array is read whole); `opener` opens a file that is not local.

    For a Parquet file, reads only `columns`, if it has any of them, and only the row groups `groups`. Raises
    `UserError` naming the file if it is truncated, damaged, not UTF-8, not what its name says, or has duplicate
    columns or extension types.
    """
    kind = file_kind(path)
    if kind is None:
        raise UserError(f"{path}: unsupported kind of file. Expected {FILE_KINDS}.")
    with readable(path), opener() if opener else Path(path).open("rb") as raw:
        if path.suffix.lower() != ".gz":
            refuse_other_content(path, raw, kind)
            yield from _READERS[kind](raw, path, columns) if groups is None else _parquet(raw, path, columns, groups)
            return
        refuse_other_content(path, raw, ".gz")
        with cast(BinaryIO, BoundedGzip(path, raw)) as handle:
            refuse_other_content(path, handle, kind)
            yield from _READERS[kind](handle, path, columns)


@contextmanager
def readable(path: PurePath) -> Iterator[None]:
    """Turn errors of reading a file into a `UserError` that names the file."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or damaged gzip file ({error}). Copy or download it again.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason}). Convert it: iconv -t UTF-8.") from None
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV ({error}). Fix the file.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, truncated or damaged ({error}). Make or copy it again.") from None


def _json_lines(handle: BinaryIO, path: PurePath, _: Container[str]) -> Iterator[RawRow]:
    row = 0
    for number, line in enumerate(bounded_lines(handle, path), 1):
        data = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if not data.strip():
            continue
        try:
            text = data.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}: line {number}, byte {error.start}: not UTF-8 ({error.reason}). Convert it: iconv -t UTF-8."
            ) from None
        try:
            yield _checked(row, load_json(text), f"line {number}")
        except DuplicateKeyError as error:
            yield RawRow(row, None, f"line {number}: {error}")
        except (ValueError, RecursionError) as error:  # includes numbers with too many digits and too deep nesting
            yield RawRow(row, None, f"line {number}={reprlib.repr(text)}: not JSON ({error}); expected a JSON object")
        row += 1


def _json(handle: BinaryIO, path: PurePath, columns: Container[str]) -> Iterator[RawRow]:
    data = read_array(handle, path)
    if data.removeprefix(codecs.BOM_UTF8).lstrip()[:1] != b"[":
        yield from _json_lines(io.BytesIO(data), path, columns)  # JSON lines files are often named .json
        return
    text = data.decode("utf-8-sig")
    del data
    try:
        values = load_json(text, keep=True)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON array ({error}). Expected [{{...}}, ...]; it may be truncated.") from None
    for row, value in enumerate(values):
        twice = duplicate_key(value)
        where = f"element {row}"
        yield _checked(row, value, where) if twice is None else RawRow(row, None, f"{where}: {twice}")


def _checked(row: int, value: Any, where: str) -> RawRow:
    if isinstance(value, dict):
        problem = too_large(value)
        return RawRow(row, None, f"{where}: {problem}") if problem else RawRow(row, value)
    return RawRow(row, None, f"{where}={reprlib.repr(value)}: a {type(value).__name__}; expected a JSON object")


def _csv(handle: BinaryIO, path: PurePath, _: Container[str]) -> Iterator[RawRow]:
    # The csv module's default limit of 131072 characters per field is too low for long responses.
    csv.field_size_limit(sys.maxsize)
    records = BoundedRecords(io.TextIOWrapper(handle, encoding="utf-8-sig", newline=""), path)
    lines = csv.reader(records, strict=True)
    header = next(lines, None)
    if header is None:
        return
    check_columns_number(len(header), str(path))
    if twice := next((name for name in header if header.count(name) > 1), None):
        raise UserError(f"{path}: a column name occurs twice in the header: {twice!r}. Rename or remove one of them.")
    row = 0
    while True:
        start = lines.line_num + 1
        records.begin()
        try:
            fields = next(lines, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise UserError(
                    f"{path}: the row that starts at line {start} has a quote that is never closed. "
                    "Close it, or copy the file again if it is truncated."
                ) from None
            yield RawRow(row, None, f"line {start}: not CSV ({error}); expected quoted or plain fields")
            row += 1
            continue
        if fields is None:
            return
        if not fields:
            continue  # a blank line
        if len(fields) == len(header):
            yield RawRow(row, dict(zip(header, fields, strict=True)))
        else:
            yield RawRow(row, None, f"line {start}: {len(fields)} fields; expected {len(header)} as in the header")
        row += 1


def row_groups(path: PurePath, opener: Callable[[], BinaryIO], size: int) -> list[range]:
    """Ranges of consecutive row groups of a Parquet file, about `size` bytes each; empty if the file can't be read."""
    try:
        with opener() as handle:
            metadata = pq.ParquetFile(handle).metadata
    except Exception:  # reading the rows later raises the proper error
        return []
    found, start, bytes_ = list[range](), 0, 0
    for group in range(metadata.num_row_groups):
        columns = (metadata.row_group(group).column(index) for index in range(metadata.num_columns))
        bytes_ += sum(column.total_compressed_size for column in columns)
        if bytes_ >= size or group == metadata.num_row_groups - 1:
            found.append(range(start, group + 1))
            start, bytes_ = group + 1, 0
    return found


def _parquet(
    handle: BinaryIO, path: PurePath, columns: Container[str], groups: range | None = None
) -> Iterator[RawRow]:
    # A handle instead of a path: pyarrow reads `key=value` folders in a path as partitions.
    try:
        file = pq.ParquetFile(handle)
    except Exception as error:  # code of registered extension types runs here and may raise anything
        raise ValueError(f"{type(error).__name__}: {error}") from None
    at_once = batch_rows(file.metadata, handle.seek(0, io.SEEK_END), path)
    refuse_extensions(file.schema_arrow, str(path))
    refuse_duplicates(file.schema_arrow, str(path))
    read = [name for name in file.schema_arrow.names if name in columns] or None
    taken = range(file.num_row_groups) if groups is None else groups
    row = sum(file.metadata.row_group(group).num_rows for group in range(taken.start))
    for batch in file.iter_batches(batch_size=at_once, row_groups=list(taken), columns=read):
        for values in batch.to_pylist():
            problem = too_large(values)
            yield RawRow(row, None, f"row {row}: {problem}") if problem else RawRow(row, values)
            row += 1


_READERS: dict[str, Callable[[BinaryIO, PurePath, Container[str]], Iterator[RawRow]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
FILE_KINDS = ".jsonl, .json, .csv (each also with .gz) or .parquet"
