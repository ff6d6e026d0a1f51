"""Convert a raw row to pairs, or to a `Rejection` that names the field, its value and what was expected.

The shape of a row (`shapes.py`) determines its columns; this module converts their values to a conversation and two
responses. Optional columns of every shape: `id` or `pair_id`, `margin`, `system`, `tools` (what the conversation may
call), and `judgements` for soft instruction functions: a list of {name, chosen, rejected}, the judge's p(yes) for each
response.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mapl_ray.config import DataConfig, PairFormat
from mapl_ray.data.records import Message, PreferencePair, Rejection, canonical_json, messages_to_rows, tool_fields
from mapl_ray.errors import UserError
from mapl_ray.preferences.fields import RowError, blank, judgements, own_id, row_margin, same_text, text
from mapl_ray.preferences.messages import Turns, is_conversation, read_messages
from mapl_ray.preferences.rendered import Dialect, read_rendered, read_transcript, refuse_marks, without_end
from mapl_ray.preferences.shapes import PROMPT_COLUMNS, RANKED, SHAPES, RawPair
from mapl_ray.preferences.tool_turns import with_tools

STAGE = "read"
# A repeated prompt is removed from both responses only from this length on: responses often share their first words.
_MIN_REPEATED_WORDS = 3
_MIN_REPEATED_CHARS = 15  # for scripts without spaces
_EXPECTED = "; or ".join(
    [*(SHAPES[name].expected for name in ("pairs", "hh", "ultrafeedback")), "another shape that docs/data.md lists"]
)
COLUMNS = frozenset(
    {"id", "pair_id", "system", "tools", "margin", "judgements"}.union(*(shape.columns for shape in SHAPES.values()))
    # Columns of evaluation sets (evaluation/public_sets.py):
    | {"subset", "domain", "output_1", "output_2", "label", "key", "instruction_id_list", "kwargs", "source"}
    | {"num_correct", "num_incorrect", "num_rejected", "total_completions", "response_A", "response_B"}
    | {"responses", "preference_graph", "instruction_type"}
)


def detect_format(config: DataConfig, rows: Iterable[Mapping[str, Any]], where: str) -> PairFormat:
    """Detect the format of a source from its first rows, or check `config.format` against their columns.

    Raises `UserError` naming the found and the expected columns, and for ranked lists without `data.ranked_pairs`.
    """
    found: dict[str, None] = {}
    names: Iterable[PairFormat] = SHAPES if config.format == "auto" else (config.format,)
    for values in rows:
        for name in names:
            shape = SHAPES[name]
            if shape.fits(values) or (config.format == name and shape.fits_declared(values)):
                if name in RANKED and config.ranked_pairs is None:
                    raise UserError(
                        f"{where}: holds ranked lists of answers ({name}), but data.ranked_pairs is not set. Set it to "
                        "the pairs to make from each list: best_worst, adjacent or all."
                    )
                return name
        found.update(dict.fromkeys(values))
    expected = SHAPES[config.format].expected if config.format != "auto" else _EXPECTED
    raise UserError(
        f"{where}: no preference pairs in columns {', '.join(map(repr, found)) or 'none'}"
        f"{'' if config.format == 'auto' else f' (data.format={config.format})'}. Expected {expected}. "
        f"{_hint(found)}Rename the columns, declare them (data.columns.prompt=...), or set data.format."
    )


def parse_row(
    values: Mapping[str, Any], data_format: PairFormat, config: DataConfig, source: str, row: int
) -> list[PreferencePair | Rejection]:
    """Convert one row to its pairs, usually one. Never raises for the row's content."""
    try:
        found = SHAPES[data_format].pairs(values, config)
    except RowError as error:
        return [Rejection(source, row, _readable_id(values), STAGE, error.reason(config.columns))]
    return [parse_pair(raw, data_format, config, source, row) for raw in found]


def parse_pair(
    raw: RawPair, data_format: PairFormat, config: DataConfig, source: str, row: int
) -> PreferencePair | Rejection:
    """Convert one raw pair. Never raises for its content; a rejection's `pair_id` is "" if the row has none."""
    values, pair_id = raw.values, ""
    try:
        pair_id = own_id(values)
        found_margin, found_judgements = row_margin(values), judgements(values.get("judgements"))
        prompt, chosen, rejected = _conversation(values, data_format)
        prompt = with_tools(_with_system(prompt, values), values.get("tools"))
        _check(prompt, chosen, rejected, config)
    except RowError as error:
        own = {column: config.columns.get(name, name) for column, name in raw.names.items()}
        return Rejection(source, row, pair_id, STAGE, error.reason({**config.columns, **own}))
    pair_id = pair_id or content_id(prompt, chosen, rejected)
    return PreferencePair(pair_id, prompt, chosen, rejected, source, found_margin, found_judgements, row)


def content_id(prompt: Turns, chosen: str, rejected: str) -> str:
    """A stable id that depends only on the content: a pair has the same id in every file and on every machine."""
    tools = tool_fields(prompt)
    content = canonical_json([messages_to_rows(prompt), chosen, rejected, *([] if tools is None else [tools])])
    return f"sha256-{hashlib.sha256(content.encode()).hexdigest()[:20]}"


def _readable_id(values: Mapping[str, Any]) -> str:
    try:
        return own_id(values)
    except RowError:
        return ""


def _hint(found: Iterable[str]) -> str:
    """Advice for columns of known data without pairs, or columns that differ from known ones only in case."""
    names = {*found}
    if names >= {"prompt", "response", "helpfulness"}:
        return "These rows rate one response each: for HelpSteer2, use the files in its folder preference/. "
    if names >= {"prompt", "completion", "label"}:
        return "These rows judge one completion each (as for KTO), so they hold no pairs. "
    known = {column.casefold(): column for shape in SHAPES.values() for column in shape.columns}
    own = {known[name.casefold()]: name for name in found if name.casefold() in known and name not in known.values()}
    return f"Columns are case-sensitive: data.columns={own} declares these. ".replace("'", "") if own else ""


def _conversation(values: Mapping[str, Any], data_format: PairFormat) -> tuple[Turns, str, str]:
    """The prompt and the two responses. Turns shared by chosen and rejected before the last are part of the prompt."""
    own, dialect = (None, None) if data_format == "hh" else _own_prompt(values)
    chosen, rejected = (_side(values, side, data_format, dialect) for side in ("chosen", "rejected"))
    if own is not None:
        chosen, rejected = _without_repeated_prompt(own, values, chosen, rejected)
    if _compared(chosen[:-1]) != _compared(rejected[:-1]):
        problem = f"chosen has {len(chosen)} turns, rejected {len(rejected)}, and they differ before the last one"
        raise RowError("chosen, rejected", problem, "the same turns before the last one, the assistant's")
    shared = chosen[:-1]
    if own is None and not shared:
        raise RowError("prompt", "missing", "text or messages")
    if own is not None and shared:
        # The conversation repeats the prompt, sometimes without its system message.
        asked, held = own, shared
        if not own[0].role == shared[0].role == "system":
            asked, held = _without_system(own), _without_system(shared)
        if _compared(asked) != _compared(held)[: len(asked)]:
            raise RowError("prompt", "not how chosen and rejected begin", "their first turns", own[-1].content)
        shared = shared if shared[0].role == "system" else own[: len(own) - len(asked)] + shared
    return shared or own or (), chosen[-1].content, rejected[-1].content


def _side(values: Mapping[str, Any], side: str, data_format: PairFormat, dialect: Dialect | None) -> Turns:
    """The turns of chosen or rejected, ending with the assistant's; `dialect` is the dialect of a rendered prompt."""
    value = values.get(side)
    if data_format == "hh":
        turns = read_transcript(side, text(side, value))
    elif is_conversation(value) or data_format == "ultrafeedback":
        turns = read_messages(side, value)
    else:
        given = text(side, value)
        rendered = read_rendered(side, given, prompt=False)
        if rendered is not None:
            turns = rendered.turns
        else:
            response = without_end(given)
            if dialect is not None:
                refuse_marks(side, response, prompt=False, dialect=dialect)
                response = response.strip()
            turns = (Message("assistant", text(side, response)),)
    if turns[-1].tool_calls is not None:
        problem = "a tool call as the response, to which instructions do not apply"
        raise RowError(f"{side}[-1].tool_calls", problem, "text as the last turn", turns[-1].tool_calls)
    if turns[-1].role != "assistant":
        raise RowError(f"{side}[-1].role", "not the assistant's turn", "an assistant turn last", turns[-1].role)
    return turns


def _own_prompt(values: Mapping[str, Any]) -> tuple[Turns | None, Dialect | None]:
    """The prompt from the row's prompt column, and its dialect if rendered; (None, None) if there is no such column."""
    column = next((name for name in PROMPT_COLUMNS if name in values), None)
    if column is None:
        return None, None
    value = values[column]
    if is_conversation(value):
        return read_messages(column, value), None
    given = text(column, value)
    rendered = read_rendered(column, given, prompt=True)
    if rendered is not None:
        return rendered.turns, rendered.dialect
    if column == "instruction" and not blank(values.get("input")):
        given = f"{given}\n\n{text('input', values['input'])}"
    return (Message("user", given),), None


def _without_repeated_prompt(
    own: Turns, values: Mapping[str, Any], chosen: Turns, rejected: Turns
) -> tuple[Turns, Turns]:
    """Remove the prompt's text from the responses if both are texts that begin with it.

    The prompt must end a line or a sentence there: two stories may just begin with the words of the prompt.
    """
    sides = (("chosen", chosen), ("rejected", rejected))
    if not all(isinstance(values.get(side), str) and len(turns) == 1 for side, turns in sides):
        return chosen, rejected
    asked = own[-1].content.strip()
    if not all(turns[-1].content.lstrip().startswith(asked) for _, turns in sides):
        return chosen, rejected
    if len(asked.split()) < _MIN_REPEATED_WORDS and len(asked) < _MIN_REPEATED_CHARS:
        return chosen, rejected
    rests = []
    for turns in (chosen, rejected):
        given = turns[-1].content.lstrip()
        rest = given[len(asked) :]
        ends = rest.lstrip(" \t").startswith(("\n", "\r")) or asked.endswith((".", "?", "!", ":", "\u3002", "\uff1f"))
        if not ends or blank(rest):
            return chosen, rejected
        rests.append((replace(turns[-1], content=rest.lstrip()),))
    return rests[0], rests[1]


def _with_system(prompt: Turns, values: Mapping[str, Any]) -> Turns:
    if blank(values.get("system")):
        return prompt
    system = Message("system", text("system", values["system"]))
    if not prompt or prompt[0].role != "system":
        return (system, *prompt)
    if _compared(prompt[:1]) != _compared((system,)):
        raise RowError("system", "differs from the prompt's own system message", "one system message", system.content)
    return prompt


def _check(prompt: Turns, chosen: str, rejected: str, config: DataConfig) -> None:
    if not any(turn.role == "user" for turn in prompt):
        raise RowError("prompt", "no user turn", "at least one", prompt[-1].content)
    if prompt[-1].role not in ("user", "tool"):
        expected = "a user turn last, or a tool's result"
        raise RowError("prompt", f"ends with a turn of {prompt[-1].role}", expected, prompt[-1].content)
    size = sum(len(message.content) for message in prompt)
    if size > config.max_prompt_chars:
        limit = f"at most {config.max_prompt_chars} (data.max_prompt_chars)"
        raise RowError("prompt", f"{size} characters", limit, prompt[-1].content)
    for field, response in (("chosen", chosen), ("rejected", rejected)):
        if len(response) > config.max_response_chars:
            limit = f"at most {config.max_response_chars} (data.max_response_chars)"
            raise RowError(field, f"{len(response)} characters", limit, response)
    if same_text(chosen) == same_text(rejected):
        raise RowError("rejected", "the same as chosen", "two different responses", rejected)


def _compared(turns: Turns) -> list[tuple[str, str, str | None]]:
    return [(message.role, same_text(message.content), message.tool_calls) for message in turns]


def _without_system(turns: Turns) -> Turns:
    return turns[1:] if turns and turns[0].role == "system" else turns
