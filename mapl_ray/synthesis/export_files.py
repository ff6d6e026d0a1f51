"""Write plain rows of groups to `.jsonl` and `.parquet` files atomically."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import write_atomically
from mapl_ray.errors import UserError
from mapl_ray.synthesis.left_out import left_out
from mapl_ray.synthesis.plain_rows import TRAINERS, ExportFormat, Prompts, check_format, export_rows, export_schema

_ROWS_AT_ONCE = 1000
_NOTE = b"mapl_export"  # key in the Parquet file's metadata


@dataclass(slots=True)
class Exported:
    """Counts of an export."""

    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  # sum of `left_out` over groups, for formats of trainers

    def add(self, other: Exported) -> None:
        """Add the counts of another file."""
        self.rows += other.rows
        self.left_out.update(other.left_out)


def write_export(
    groups: Iterable[RelationGroup],
    format: ExportFormat,
    path: str | Path,
    prompts: Prompts = "explicit",
    fingerprint: str | None = None,
) -> Exported:
    """Write all rows to a `.jsonl` or `.parquet` file, with at most a thousand rows in memory.

    Args:
        fingerprint: of everything that determines the content; a Parquet file stores it for `exported_before`.

    Raises `UserError` as `export_rows` does, for another suffix, and for groups with tools in a Parquet file.
    """
    path = Path(path)
    check_format(format, prompts)
    if path.suffix not in (".jsonl", ".parquet"):
        raise UserError(f"{path}: the file name must end with .jsonl or .parquet.")
    if path.suffix == ".parquet":
        groups = map(_without_tools, groups)
    exported, schema = Exported(), export_schema(format, prompts)
    rows = _counted(groups, format, prompts, exported)

    def write(aside: Path) -> None:
        if path.suffix == ".jsonl":
            _write_jsonl(rows, schema, aside)
        else:
            _write_parquet(rows, schema, aside, exported, fingerprint)

    write_atomically(path, write)
    return exported


def exported_before(path: Path, fingerprint: str) -> Exported | None:
    """Counts of a Parquet file that `write_export` wrote with this fingerprint; None for any other file."""
    try:
        found = (pq.read_metadata(path).metadata or {}).get(_NOTE)
        note = json.loads(found) if found is not None else {}
        if note.get("fingerprint") != fingerprint:
            return None
        return Exported(int(note["rows"]), Counter({key: int(n) for key, n in note["left_out"].items()}))
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError):
        return None


def _counted(
    groups: Iterable[RelationGroup], format: ExportFormat, prompts: Prompts, exported: Exported
) -> Iterator[dict[str, Any]]:
    for group in groups:
        for row in export_rows(group, format, prompts):
            yield row
            exported.rows += 1
        if format in TRAINERS:
            exported.left_out.update(left_out(group))


def _without_tools(group: RelationGroup) -> RelationGroup:
    if group.tool_fields is not None:
        raise UserError(
            f"pair {group.pair_id}: its prompt has tools or tool calls, but a Parquet export stores only role and "
            "content. Write a .jsonl file."
        )
    return group


def _write_jsonl(rows: Iterator[dict[str, Any]], schema: pa.Schema, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            ordered = {name: row[name] for name in (*schema.names, "tools") if name in row}
            handle.write(json.dumps(ordered, ensure_ascii=False) + "\n")


def _write_parquet(
    rows: Iterator[dict[str, Any]], schema: pa.Schema, path: Path, exported: Exported, fingerprint: str | None
) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        if batch:  # some readers do not accept an empty row group
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
        if fingerprint is not None:
            note = {"fingerprint": fingerprint, "rows": exported.rows, "left_out": exported.left_out}
            writer.add_key_value_metadata({_NOTE: json.dumps(note, sort_keys=True)})
