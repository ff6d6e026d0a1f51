"""Convert groups to plain rows: the intra and inter data sets of docs/method.md, and rows for TRL and OpenRLHF."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, TypeAlias, get_args

import pyarrow as pa

from mapl_ray.data.records import Level, Message, Relation, RelationGroup, message_fields, offered_tools
from mapl_ray.errors import UserError
from mapl_ray.synthesis.left_out import instructed_prompt

ExportFormat: TypeAlias = Literal["intra", "inter", "trl", "openrlhf"]
Prompts: TypeAlias = Literal["explicit", "implicit"]

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_COLUMNS: dict[str, list[str]] = {
    "intra": ["prompt_preferred", "prompt_dispreferred", "response"],
    "inter": ["prompt", "prompt_original", "chosen", "rejected"],
    "trl": ["prompt", "chosen", "rejected"],
    "openrlhf": ["prompt", "chosen", "rejected"],
}
TRAINERS: tuple[ExportFormat, ...] = ("trl", "openrlhf")  # formats with one prompt and two responses per row


def export_schema(format: ExportFormat, prompts: Prompts = "explicit") -> pa.Schema:
    """Arrow schema of a format: columns of messages, then plain strings."""
    strings = ["kind", "pair_id"] if format != "intra" else ["pair_id"]
    messages = [name for name in _COLUMNS[format] if prompts == "explicit" or name != "prompt"]
    return pa.schema([(name, _MESSAGES) for name in messages] + [(name, pa.string()) for name in strings])


def export_rows(group: RelationGroup, format: ExportFormat, prompts: Prompts = "explicit") -> Iterator[dict[str, Any]]:
    """The rows of one group. Prompts and responses are lists of `{role, content}` with any tool calls and results;
    conversations with tools also have a column `tools`.

    * intra: `prompt_preferred`, `prompt_dispreferred`, `response`
    * inter: `prompt`, `prompt_original`, `chosen`, `rejected`, `kind`: under `prompt` the gap between chosen and
      rejected is wider (`inter_widening`) or narrower (`inter_narrowing`) than under `prompt_original`
    * trl: `prompt`, `chosen`, `rejected` in the conversational format of TRL's DPOTrainer and RewardTrainer: x and x+
      with the original pair, x- with chosen and rejected swapped
    * openrlhf: the same rows, for OpenRLHF's reward and DPO data sets with `--apply_chat_template` and
      `--prompt_key prompt` (without that key if prompts are implicit)

    `prompts="implicit"`, for the last two: no `prompt` column; `chosen` and `rejected` are whole conversations.
    Raises `UserError` for an unknown format, or implicit prompts in a format that does not support them.
    """
    check_format(format, prompts)
    offered = offered_tools(group.prompts[0])
    tools = {} if offered is None else {"tools": offered}
    for relation in group.relations:
        row = _row(group, relation, format)
        if row is not None:
            yield {**(row if prompts == "explicit" else _implicit(row)), "pair_id": group.pair_id, **tools}


def check_format(format: ExportFormat, prompts: Prompts) -> None:
    """Raise `UserError` for an unknown format, or implicit prompts in a format that does not support them."""
    if format not in _COLUMNS:
        raise UserError(f"unknown export format {format!r}. Known: {', '.join(get_args(ExportFormat))}.")
    if prompts not in get_args(Prompts):
        raise UserError(f"unknown kind of prompts {prompts!r}. Known: {', '.join(get_args(Prompts))}.")
    if prompts == "implicit" and format not in TRAINERS:
        raise UserError(f"format {format!r} has no implicit prompts; they are for {' and '.join(TRAINERS)}.")


def _implicit(row: dict[str, Any]) -> dict[str, Any]:
    prompt = row["prompt"]
    return {"chosen": prompt + row["chosen"], "rejected": prompt + row["rejected"], "kind": row["kind"]}


def _row(group: RelationGroup, relation: Relation, format: ExportFormat) -> dict[str, Any] | None:
    inter = relation.level.family == "inter"
    if format in TRAINERS and relation.level is Level.PREF:
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
    index = instructed_prompt(group, relation)
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
    """Messages with tool calls and results, as chat templates take them."""
    return [message_fields(message) for message in prompt]


def _answer(response: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": response}]
