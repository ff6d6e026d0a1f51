"""Groups as plain tables: the intra and inter data sets of docs/method.md, and rows that TRL and OpenRLHF take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from mapl_ray.data.records import Level, Message, Relation, RelationGroup, message_fields, offered_tools
from mapl_ray.data.shards import write_atomically
from mapl_ray.errors import UserError

ExportFormat: TypeAlias = Literal["intra", "inter", "trl", "openrlhf"]
Prompts: TypeAlias = Literal["explicit", "implicit"]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_COLUMNS: dict[str, list[str]] = {
    "intra": ["prompt_preferred", "prompt_dispreferred", "response"],
    "inter": ["prompt", "prompt_original", "chosen", "rejected"],
    "trl": ["prompt", "chosen", "rejected"],
    "openrlhf": ["prompt", "chosen", "rejected"],
}
_TRAINERS = ("trl", "openrlhf")
_ROWS_AT_ONCE = 1000


def export_schema(format: ExportFormat, prompts: Prompts = "explicit") -> pa.Schema:
    """Arrow schema of a format: columns of messages, then plain strings."""
    strings = ["kind", "pair_id"] if format != "intra" else ["pair_id"]
    messages = [name for name in _COLUMNS[format] if prompts == "explicit" or name != "prompt"]
    return pa.schema([(name, _MESSAGES) for name in messages] + [(name, pa.string()) for name in strings])


def export_rows(group: RelationGroup, format: ExportFormat, prompts: Prompts = "explicit") -> Iterator[dict[str, Any]]:
    """The rows of one group; prompts and responses are lists of `{role, content}`, tool calls and results beside them,
    and a column `tools` where the conversation has some.

    * intra: `prompt_preferred`, `prompt_dispreferred`, `response`
    * inter: `prompt`, `prompt_original`, `chosen`, `rejected`, `kind`: under `prompt` the gap between chosen and
      rejected is wider (`inter_widening`) or narrower (`inter_narrowing`) than under `prompt_original`
    * trl: `prompt`, `chosen`, `rejected`, conversational, as TRL's DPOTrainer and RewardTrainer take: x and x+ with the
      pair as it is, x- with the pair exchanged
    * openrlhf: the same rows, as OpenRLHF's reward and DPO data sets take them with `--apply_chat_template` and
      `--prompt_key prompt` (without that key where prompts are implicit)

    `prompts="implicit"`, for the last two: no `prompt` column, `chosen` and `rejected` are whole conversations.
    Raises `UserError` for an unknown format, or implicit prompts of a format that has none.
    """
    _check(format, prompts)
    offered = offered_tools(group.prompts[0])
    tools = {} if offered is None else {"tools": offered}
    for relation in group.relations:
        row = _row(group, relation, format)
        if row is not None:
            yield {**(row if prompts == "explicit" else _implicit(row)), "pair_id": group.pair_id, **tools}


def _check(format: ExportFormat, prompts: Prompts) -> None:
    if format not in _COLUMNS:
        raise UserError(f"unknown export format {format!r}. Known: {', '.join(get_args(ExportFormat))}.")
    if prompts not in get_args(Prompts):
        raise UserError(f"unknown kind of prompts {prompts!r}. Known: {', '.join(get_args(Prompts))}.")
    if prompts == "implicit" and format not in _TRAINERS:
        raise UserError(f"format {format!r} has no implicit prompts; they are for {' and '.join(_TRAINERS)}.")


def _implicit(row: dict[str, Any]) -> dict[str, Any]:
    prompt = row["prompt"]
    return {"chosen": prompt + row["chosen"], "rejected": prompt + row["rejected"], "kind": row["kind"]}


def _row(group: RelationGroup, relation: Relation, format: ExportFormat) -> dict[str, Any] | None:
    inter = relation.level.family == "inter"
    if format in _TRAINERS and relation.level is Level.PREF:
        return {**_pair(group, 0), "kind": relation.level.value}
    if format == "intra" and relation.level is Level.INTRA:
        winner, loser = group.sequences[relation.preferred[0]], group.sequences[relation.dispreferred[0]]
        return {
            "prompt_preferred": _messages(group.prompts[winner.prompt]),
            "prompt_dispreferred": _messages(group.prompts[loser.prompt]),
            "response": _answer(group.responses[winner.response]),
        }
    if not inter or format == "intra":
        return None
    index = max(group.sequences[i].prompt for i in relation.preferred)  # the instructed one; the original is 0
    if format == "inter":
        original = {"prompt_original": _messages(group.prompts[0])}
        return {**_pair(group, index), **original, "kind": relation.level.value}
    exchanged = relation.level is Level.INTER_NARROWING
    return {**_pair(group, index, exchanged), "kind": relation.level.value}


def _pair(group: RelationGroup, prompt: int, exchanged: bool = False) -> dict[str, Any]:
    better, worse = reversed(group.responses) if exchanged else group.responses
    return {
        "prompt": _messages(group.prompts[prompt]),
        "chosen": _answer(better),
        "rejected": _answer(worse),
    }


def _messages(prompt: tuple[Message, ...]) -> list[dict[str, Any]]:
    """With tool calls and results, as chat templates take them."""
    return [message_fields(message) for message in prompt]


def _answer(response: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": response}]


def write_export(
    groups: Iterable[RelationGroup], format: ExportFormat, path: str | Path, prompts: Prompts = "explicit"
) -> int:
    """Write all rows to a `.jsonl` or `.parquet` file, which appears whole or not at all; the number of rows.

    Raises `UserError` as `export_rows` does, or for another ending.
    """
    path = Path(path)
    _check(format, prompts)
    writers = {".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise UserError(f"{path}: the file's name must end with .jsonl or .parquet.")
    if path.suffix == ".parquet":
        groups = map(_without_tools, groups)
    rows = (row for group in groups for row in export_rows(group, format, prompts))
    schema = export_schema(format, prompts)
    written: list[int] = []
    write_atomically(path, lambda aside: written.append(writers[path.suffix](rows, schema, aside)))
    return written[0]


def _without_tools(group: RelationGroup) -> RelationGroup:
    if group.tool_fields is not None:
        raise UserError(
            f"pair {group.pair_id}: its prompt has tools or tool calls, and the columns of a Parquet export hold role "
            "and content alone. Write a .jsonl file."
        )
    return group


def _write_jsonl(rows: Iterator[dict[str, Any]], schema: pa.Schema, path: Path) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            ordered = {name: row[name] for name in (*schema.names, "tools") if name in row}
            handle.write(json.dumps(ordered, ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(rows: Iterator[dict[str, Any]], schema: pa.Schema, path: Path) -> int:
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                count, batch = count + len(batch), []
        if batch:  # an empty row group would be more than some readers take
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return count + len(batch)
