"""Exactly-once Parquet data sets: each part is written to a temporary file, fsynced and renamed; the manifest is last.

Readers trust only the manifest, so a killed run leaves nothing that looks like a finished data set. A rerun keeps the
finished parts and continues.

    part-00000.parquet     rows, ordered by the caller
    part-00000.json        the part's entry: rows, sha256, fingerprint
    rejected-00000.jsonl   rows that could not be used, each with its reason (only if there are any)
    notes-00000.json       the stage's counters (only if it has any)
    manifest.json          the committed list of entries
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mapl_ray.awaited import await_files
from mapl_ray.data.arrow_types import refuse_extensions
from mapl_ray.data.records import SCHEMA_VERSION, Rejection, RelationGroup, canonical_json
from mapl_ray.errors import UserError
from mapl_ray.unfinished import becomes, unfinished

MANIFEST = "manifest.json"
BATCH_ROWS = 1000  # rows of a part that are read at once
# Names of this module's files; it leaves other files in the folder alone.
_OURS = re.compile(r"(part|notes)-\d{5,}\.json|part-\d{5,}\.(parquet|journal)|rejected-\d{5,}\.jsonl|manifest\.json")


@dataclass(frozen=True, slots=True)
class Part:
    """One finished part of a data set."""

    index: int
    rows: int
    rejected: int
    sha256: str  # digest of the Parquet file
    first_id: str | None
    last_id: str | None
    fingerprint: str  # digest of everything that the part's content depends on

    @property
    def file(self) -> str:
        return part_name(self.index)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of a finished data set; `input_rows == rows + rejected` always holds."""

    stage: str
    fingerprint: str
    input_rows: int
    rows: int
    rejected: int
    parts: tuple[Part, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def content_hash(self) -> str:
        """Digest of the whole content, independent of when and where it was made."""
        return fingerprint_of([part.sha256 for part in self.parts])


def part_name(index: int) -> str:
    """File name of a part."""
    return f"part-{index:05d}.parquet"


def fingerprint_of(value: Any) -> str:
    """sha256 (hex) of a JSON-able value."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def stage_fingerprint(name: str, recipe: str, sources: Iterable[Manifest]) -> str:
    """Fingerprint of a stage's output; `recipe` is the fingerprint of all that determines it besides `sources`."""
    return fingerprint_of([name, recipe, *(source.content_hash for source in sources)])


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, fsync it, then rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = unfinished(path)
    try:
        write(aside)
        with aside.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Fsync a folder's entries: without that, a power failure can undo a rename and lose the file."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Fsync a file."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_tree(folder: Path) -> None:
    """Fsync all files and folders below a folder, and the folder itself."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    sync_folder(folder)


def link_or_copy(source: Path, target: Path) -> bool:
    """Hard-link a file, or copy it where the file system has no hard links; returns whether it is a hard link.

    The file must only ever be replaced, never changed in place.
    """
    try:
        os.link(source, target)
    except (FileNotFoundError, FileExistsError):
        raise
    except OSError:
        shutil.copyfile(source, target)
        return False
    return True


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def json_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The JSON object of every line, or None for a line that is not one (cut off by a kill, or damaged).

    Yields nothing if the file does not exist. Only one line is in memory at a time.
    """
    try:
        handle = path.open("rb")
    except FileNotFoundError:
        return
    with handle:
        for line in handle:
            try:
                value = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError):
                value = None
            yield value if isinstance(value, dict) else None


def write_part(
    directory: Path,
    index: int,
    rows: Sequence[dict[str, Any]] | pa.Table,
    rejections: Iterable[Rejection],
    schema: pa.Schema,
    fingerprint: str,
    notes: Mapping[str, Any] | None = None,
) -> Part:
    """Write one part, its rejections and notes. Its entry is written last and marks the part as finished."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)
    path = directory / part_name(index)
    write_atomically(path, lambda aside: pq.write_table(table, aside, compression="zstd"))
    rejected = write_rejections(directory / f"rejected-{index:05d}.jsonl", rejections)
    if notes is not None:
        write_json(_notes_path(directory, index), notes)
    ids = table.column("pair_id").to_pylist()
    part = Part(
        index=index,
        rows=table.num_rows,
        rejected=rejected,
        sha256=file_sha256(path),
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
        fingerprint=fingerprint,
    )
    write_json(_entry_path(directory, index), asdict(part))
    return part


def write_rejections(path: Path, rejections: Iterable[Rejection]) -> int:
    """Write rejections as JSON lines, one at a time (there may be many); returns their number.

    Removes the file if there are none.
    """
    left = iter(rejections)
    first = next(left, None)
    if first is None:
        path.unlink(missing_ok=True)  # left by an earlier run
        return 0
    count = 0

    def write(aside: Path) -> None:
        nonlocal count
        with aside.open("w", encoding="utf-8", newline="\n") as lines:
            for rejection in chain([first], left):
                lines.write(canonical_json(rejection.to_row()) + "\n")
                count += 1

    write_atomically(path, write)
    return count


def finished_part(directory: Path, index: int, fingerprint: str) -> Part | None:
    """The entry of a part that an earlier run made from the same inputs, with its digest verified; else None."""
    try:
        part = Part(**json.loads(_entry_path(directory, index).read_text(encoding="utf-8")))
        same = part.fingerprint == fingerprint and file_sha256(directory / part.file) == part.sha256
    except (OSError, ValueError, TypeError):
        return None
    return part if same else None


def commit(directory: Path, stage: str, fingerprint: str, parts: Sequence[Part]) -> Manifest:
    """Remove stray files, then write the manifest: from here on readers see the data set."""
    ordered = tuple(sorted(parts, key=lambda part: part.index))
    rows, rejected = sum(p.rows for p in ordered), sum(p.rejected for p in ordered)
    manifest = Manifest(stage, fingerprint, rows + rejected, rows, rejected, ordered)
    remove_strays(directory, manifest)
    write_json(directory / MANIFEST, asdict(manifest))
    return manifest


def remove_strays(directory: Path, manifest: Manifest) -> None:
    """Remove parts of earlier, larger runs, unfinished files of killed runs, and journals of finished parts.

    No other process may work in `directory`.
    """
    parts = manifest.parts
    keep = {MANIFEST, *(name for p in parts for name in (p.file, _entry_path(directory, p.index).name))}
    keep |= {_notes_path(directory, p.index).name for p in parts}
    keep |= {f"rejected-{p.index:05d}.jsonl" for p in parts if p.rejected}
    for stray in directory.iterdir():
        if _OURS.fullmatch(becomes(stray.name) or stray.name) and stray.name not in keep:
            stray.unlink(missing_ok=True)


def read_manifest(directory: Path, verify: bool = True) -> Manifest:
    """Read the manifest of a finished data set; with `verify`, check the parts against their digests.

    Raises `UserError` if the data set is missing, unfinished or damaged.
    """
    path = directory / MANIFEST
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        parts = tuple(Part(**part) for part in values.pop("parts"))
        manifest = Manifest(parts=parts, **values)
    except FileNotFoundError:
        state = "has no manifest.json (unfinished)" if directory.is_dir() else "does not exist"
        raise UserError(f"{directory} {state}. Run the stage that makes it; finished parts are kept.") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a manifest ({error}). Delete it and run the stage again.") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema_version {manifest.schema_version}, but this release reads {SCHEMA_VERSION}. "
            "Rerun the stage that writes it."
        )
    for part in parts if verify else ():
        verify_part(directory, part)
    return manifest


def verify_part(directory: Path, part: Part) -> None:
    """Raise `UserError` if a part's file is missing or its sha256 differs from the manifest."""
    file = directory / part.file
    if not file.is_file() or file_sha256(file) != part.sha256:
        raise UserError(
            f"{file}: missing or damaged (sha256 differs from manifest.json). "
            "Run the stage again: it rewrites this part and keeps the others."
        )


def await_data_set(directory: Path) -> None:
    """Wait until this node sees the files of a data set that another node has finished."""
    if not await_files(directory, [MANIFEST]):
        await_files(directory, [part.file for part in read_manifest(directory, verify=False).parts])


def finished(directory: Path, fingerprint: str) -> Manifest | None:
    """The manifest if the data set with this fingerprint is finished and undamaged (nothing to rerun), else None."""
    try:
        manifest = read_manifest(directory)
    except UserError:
        return None
    return manifest if manifest.fingerprint == fingerprint else None


def iter_rows(directory: Path, manifest: Manifest | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a finished data set in order, with one batch of one part in memory at a time."""
    for part in (manifest or read_manifest(directory)).parts:
        for batch in read_batches(directory, part):
            yield from batch.to_pylist()


def read_batches(directory: Path, part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """One part as batches of at most `BATCH_ROWS` rows, with `columns` or all; only one batch is in memory at a time.

    Raises as `read_part` does.
    """
    # A file handle instead of a path: see `read_table`.
    with (directory / part.file).open("rb") as handle, pq.ParquetFile(handle) as file:
        refuse_extensions(file.schema_arrow, str(directory / part.file))
        yield from file.iter_batches(BATCH_ROWS, columns=None if columns is None else list(columns))


def read_part(directory: Path, part: Part) -> list[dict[str, Any]]:
    """All rows of one part. Raises `UserError` if a column has an extension type: it may hold pickles."""
    rows: list[dict[str, Any]] = read_table(directory, part).to_pylist()
    return rows


def read_table(directory: Path, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """One part as a table, with `columns` or all. Raises as `read_part` does."""
    # A file handle instead of a path: pyarrow reads `key=value` folders in a path as partitions.
    with (directory / part.file).open("rb") as handle:
        table = pq.read_table(handle, columns=None if columns is None else list(columns))
    refuse_extensions(table.schema, str(directory / part.file))
    return table


def read_notes(directory: Path, part: Part) -> Any:
    """The notes that the stage wrote for one part; None if there are none or they cannot be read."""
    try:
        return json.loads(_notes_path(directory, part.index).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_groups(directory: Path) -> list[RelationGroup]:
    """All groups of a finished data set."""
    return [RelationGroup.from_row(row) for row in iter_rows(directory)]


def _entry_path(directory: Path, index: int) -> Path:
    return directory / f"part-{index:05d}.json"


def _notes_path(directory: Path, index: int) -> Path:
    return directory / f"notes-{index:05d}.json"


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
