"""One raw row -> a `PreferencePair`, or a `Rejection` that names the field, its value and what was expected.

    pairs          prompt (text or messages), chosen, rejected (text, the assistant's turn, or the whole conversation)
    hh             chosen, rejected: whole transcripts, "\\n\\nHuman: ...\\n\\nAssistant: ..."
    ultrafeedback  prompt, chosen, rejected (conversations), score_chosen, score_rejected

Optional columns of all three: `id` or `pair_id`, `margin`, `system`, and `judgements` for soft instruction functions:
a list of {name, chosen, rejected}, the judge's p(yes) of either response.
"""

from __future__ import annotations

import hashlib
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from mapl_ray.config import DataConfig
from mapl_ray.errors import UserError
from mapl_ray.records import Judgement, Message, PreferencePair, Rejection, canonical_json, messages_to_rows

Format = Literal["pairs", "hh", "ultrafeedback"]
Turns = tuple[Message, ...]

STAGE = "read"
ROLES = ("system", "user", "assistant")
PROMPT_COLUMNS = ("prompt", "instruction", "question")
COLUMNS = frozenset(
    {"id", "pair_id", "system", *PROMPT_COLUMNS, "input", "chosen", "rejected", "margin", "score_chosen"}
    | {"score_rejected", "judgements"}
    # Of evaluation sets (evaluation/public_sets.py):
    | {"subset", "domain", "output_1", "output_2", "label", "key", "instruction_id_list", "kwargs"}
)
_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_EXPECTED = {
    "pairs": "prompt (or instruction, question), chosen, rejected; or chosen and rejected alone as message lists",
    "hh": "chosen and rejected with '\\n\\nHuman: ...\\n\\nAssistant: ...' transcripts",
    "ultrafeedback": "prompt, chosen and rejected message lists, score_chosen, score_rejected",
}


class RowError(Exception):
    """Why a row cannot be used; becomes the reason of its `Rejection`."""

    def __init__(self, field: str, problem: str, expected: str, value: Any = None) -> None:
        # repr escapes NUL and lone surrogates, so that the reason itself can always be written.
        shown = "" if value is None else f"={_SHORT.repr(value)}"
        super().__init__(f"{field}{shown}: {problem}; expected {expected}")


def detect_format(requested: str, rows: Iterable[Mapping[str, Any]], where: str) -> Format:
    """The format of a source from its first rows; a requested one is checked against their columns.

    Raises `UserError` naming the columns found and the ones expected.
    """
    found: dict[str, None] = {}
    for values in rows:
        for name in ("ultrafeedback", "pairs", "hh") if requested == "auto" else (requested,):
            if _fits(name, values, strict=requested == "auto"):
                return name
        found.update(dict.fromkeys(values))
    expected = "; or ".join(_EXPECTED.values()) if requested == "auto" else _EXPECTED[requested]
    raise UserError(
        f"{where}: no preference pairs in columns {', '.join(map(repr, found)) or 'none'}"
        f"{'' if requested == 'auto' else f' (data.format={requested})'}. Expected {expected}. "
        "Rename the columns, or set data.format."
    )


def parse_row(
    values: Mapping[str, Any], data_format: Format, config: DataConfig, source: str, row: int
) -> PreferencePair | Rejection:
    """Read one row. Never raises for what the row holds; `pair_id` of a rejection is "" where the row has none."""
    pair_id = ""
    try:
        pair_id = _own_id(values)
        margin = _margin(values)
        judgements = _judgements(values.get("judgements"))
        prompt, chosen, rejected = _conversation(values, data_format)
        prompt = _with_system(prompt, values)
        _check(prompt, chosen, rejected, config)
    except RowError as error:
        return Rejection(source, row, pair_id, STAGE, str(error))
    pair_id = pair_id or content_id(prompt, chosen, rejected)
    return PreferencePair(pair_id, prompt, chosen, rejected, source, margin, judgements)


def content_id(prompt: Turns, chosen: str, rejected: str) -> str:
    """A stable id from the content alone: the same pair has the same id in every file and on every machine."""
    content = canonical_json([messages_to_rows(prompt), chosen, rejected])
    return f"sha256-{hashlib.sha256(content.encode()).hexdigest()[:20]}"


def _fits(name: str, values: Mapping[str, Any], strict: bool) -> bool:
    if "chosen" not in values or "rejected" not in values:
        return False
    has_messages = any(isinstance(values[side], list) for side in ("chosen", "rejected"))
    if name == "ultrafeedback":
        return has_messages and (not strict or {"score_chosen", "score_rejected"} <= values.keys())
    if name == "pairs":
        return has_messages or any(column in values for column in PROMPT_COLUMNS)
    return any(isinstance(values[side], str) and "\n\nHuman:" in values[side] for side in ("chosen", "rejected"))


def _conversation(values: Mapping[str, Any], data_format: Format) -> tuple[Turns, str, str]:
    """The prompt and the two responses. What chosen and rejected share before the last turn is (part of) the prompt."""
    chosen, rejected = (_side(values, side, data_format) for side in ("chosen", "rejected"))
    if _compared(chosen[:-1]) != _compared(rejected[:-1]):
        problem = f"chosen has {len(chosen)} turns, rejected {len(rejected)}, and they differ before the last one"
        raise RowError("chosen, rejected", problem, "the same turns up to the last one, the assistant's")
    shared = chosen[:-1]
    own = None if data_format == "hh" else _own_prompt(values)
    if own is None and not shared:
        raise RowError("prompt", "missing", "text or messages")
    if own is not None and shared:
        # The conversation repeats the prompt, at times without its system message.
        asked, held = own, shared
        if not own[0].role == shared[0].role == "system":
            asked, held = _without_system(own), _without_system(shared)
        if _compared(asked) != _compared(held)[: len(asked)]:
            raise RowError("prompt", "not how chosen and rejected begin", "their first turns", own[-1].content)
        shared = shared if shared[0].role == "system" else own[: len(own) - len(asked)] + shared
    return shared or own or (), chosen[-1].content, rejected[-1].content


def _side(values: Mapping[str, Any], side: str, data_format: Format) -> Turns:
    value = values.get(side)
    if data_format == "hh":
        turns = _transcript(side, _text(side, value))
    elif isinstance(value, list) or data_format == "ultrafeedback":
        turns = _messages(side, value)
    else:
        return (Message("assistant", _text(side, value)),)
    if turns[-1].role != "assistant":
        raise RowError(f"{side}[-1].role", "not the assistant's turn", "an assistant turn last", turns[-1].role)
    return turns


def _transcript(field: str, text: str) -> Turns:
    before, *parts = _SPEAKER.split("\n\n" + text.lstrip("\n"))
    if before.strip() or not parts:
        raise RowError(field, "not a transcript", "'\\n\\nHuman: ...\\n\\nAssistant: ...'", text)
    speakers = zip(parts[::2], parts[1::2], strict=True)
    return tuple(
        Message("user" if speaker == "Human" else "assistant", _text(f"{field}[{index}]", said).strip())
        for index, (speaker, said) in enumerate(speakers)
    )


def _messages(field: str, value: Any) -> Turns:
    expected = "a list of messages with role and content"
    if value is None:
        raise RowError(field, "missing", expected)
    if not isinstance(value, list):
        raise RowError(field, f"a {type(value).__name__}", expected, value)
    turns = []
    for index, message in enumerate(value):
        where = f"{field}[{index}]"
        if not isinstance(message, Mapping):
            raise RowError(where, f"a {type(message).__name__}", "a message with role and content", message)
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise RowError(f"{where}.role", "missing" if role is None else "unknown role", "|".join(ROLES), role)
        if role != "system" or not _blank(content):  # an empty system message says nothing
            turns.append(Message(role, _text(f"{where}.content", content)))
    if not turns:
        raise RowError(field, "empty", expected, value)
    return tuple(turns)


def _own_prompt(values: Mapping[str, Any]) -> Turns | None:
    """The prompt of the row's own column; None if the row has no such column."""
    column = next((name for name in PROMPT_COLUMNS if name in values), None)
    if column is None:
        return None
    value = values[column]
    if isinstance(value, list):
        return _messages(column, value)
    text = _text(column, value)
    if column == "instruction" and not _blank(values.get("input")):
        text = f"{text}\n\n{_text('input', values['input'])}"
    return (Message("user", text),)


def _with_system(prompt: Turns, values: Mapping[str, Any]) -> Turns:
    if _blank(values.get("system")):
        return prompt
    system = Message("system", _text("system", values["system"]))
    if not prompt or prompt[0].role != "system":
        return (system, *prompt)
    if _compared(prompt[:1]) != _compared((system,)):
        raise RowError("system", "differs from the prompt's own system message", "one system message", system.content)
    return prompt


def _check(prompt: Turns, chosen: str, rejected: str, config: DataConfig) -> None:
    if prompt[-1].role != "user":
        raise RowError("prompt", f"ends with a turn of {prompt[-1].role}", "a user turn last", prompt[-1].content)
    size = sum(len(message.content) for message in prompt)
    if size > config.max_prompt_chars:
        limit = f"at most {config.max_prompt_chars} (data.max_prompt_chars)"
        raise RowError("prompt", f"{size} characters", limit, prompt[-1].content)
    for field, text in (("chosen", chosen), ("rejected", rejected)):
        if len(text) > config.max_response_chars:
            limit = f"at most {config.max_response_chars} (data.max_response_chars)"
            raise RowError(field, f"{len(text)} characters", limit, text)
    if chosen.strip() == rejected.strip():
        raise RowError("rejected", "the same as chosen", "two different responses", rejected)


def _own_id(values: Mapping[str, Any]) -> str:
    for name in ("pair_id", "id"):
        value = values.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not _blank(value):
            return _text(name, value)
    return ""


def _margin(values: Mapping[str, Any]) -> float | None:
    margin = _number("margin", values.get("margin"))
    if margin is not None:
        return margin
    high, low = (_number(name, values.get(name)) for name in ("score_chosen", "score_rejected"))
    return None if high is None or low is None else high - low


def _judgements(value: Any) -> tuple[Judgement, ...]:
    expected = "a list of {name, chosen, rejected}, p(yes) from 0 to 1"
    if _blank(value):
        return ()
    if not isinstance(value, list):
        raise RowError("judgements", f"a {type(value).__name__}", expected, value)
    found: dict[str, Judgement] = {}
    for index, item in enumerate(value):
        where = f"judgements[{index}]"
        if not isinstance(item, Mapping):
            raise RowError(where, f"a {type(item).__name__}", expected, item)
        name = _text(f"{where}.name", item.get("name"))
        if name in found:
            raise RowError(f"{where}.name", "judged already", "one judgement a function", name)
        p = {side: _number(f"{where}.{side}", item.get(side)) for side in ("chosen", "rejected")}
        chosen, rejected = p["chosen"], p["rejected"]
        if chosen is None or rejected is None or not (0.0 <= chosen <= 1.0 and 0.0 <= rejected <= 1.0):
            raise RowError(where, "not two probabilities", expected, p)
        found[name] = Judgement(name, chosen, rejected)
    return tuple(found.values())


def _number(field: str, value: Any) -> float | None:
    if _blank(value):
        return None
    try:
        number = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise RowError(field, "not a finite number", "a number or nothing", value)
    return None if math.isnan(number) else number  # tables write a missing number as NaN


def _text(field: str, value: Any) -> str:
    if value is None:
        raise RowError(field, "missing", "text")
    if not isinstance(value, str):
        raise RowError(field, f"a {type(value).__name__}", "text", value)
    if not value.strip():
        raise RowError(field, "empty", "text", value)
    if "\0" in value:
        raise RowError(field, "has a NUL character", "text without", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(field, f"has a lone surrogate at {error.start}", "text that is valid Unicode", value) from None
    return value


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _compared(turns: Turns) -> list[tuple[str, str]]:
    return [(message.role, message.content.strip()) for message in turns]


def _without_system(turns: Turns) -> Turns:
    return turns[1:] if turns and turns[0].role == "system" else turns


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
