"""Read conversations in the forms that data sets use.

A conversation is a list of messages or a single message, or either written as text (JSON or Python's repr). Messages
have `role` and `content`, or ShareGPT's `from` and `value`. `tool_turns.py` reads tool calls and results.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from mapl_ray.data.records import Message
from mapl_ray.preferences.fields import RowError, text, visible
from mapl_ray.preferences.tool_turns import tool_call_turn, tool_result

Turns = tuple[Message, ...]

ROLES = ("system", "user", "assistant", "tool")
_SHARE_GPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_KEYS = ("role", "content", "from", "value")
_EXPECTED = "a list of messages with role and content"


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of messages, one message, or either written as text; False for a response's text."""
    return isinstance(value, list | Mapping) or (isinstance(value, str) and _looks_written_out(value))


def read_messages(field: str, value: Any) -> Turns:
    """Read the turns of a conversation in any form. Raises `RowError` for anything else."""
    if value is None:
        raise RowError(field, "missing", _EXPECTED)
    if isinstance(value, str) and _looks_written_out(value):
        value = _parsed(field, value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise RowError(field, f"a {type(value).__name__}", _EXPECTED, value)
    turns = []
    for index, message in enumerate(value):
        where = f"{field}[{index}]"
        if not isinstance(message, Mapping):
            raise RowError(where, f"a {type(message).__name__}", "a message with role and content", message)
        turn = _message(where, message)
        if turn is not None:
            turns.append(turn)
    if not turns:
        raise RowError(field, "empty", _EXPECTED, value)
    return tuple(turns)


def _message(where: str, message: Mapping[str, Any]) -> Message | None:
    """Read one turn; None for an empty system message."""
    share_gpt = "from" in message and "role" not in message
    role_key, content_key = ("from", "value") if share_gpt else ("role", "content")
    given, content = message.get(role_key), message.get(content_key)
    role = (_SHARE_GPT_ROLES.get(given) if isinstance(given, str) else None) if share_gpt else given
    if role not in ROLES:
        expected = "|".join(_SHARE_GPT_ROLES if share_gpt else ROLES)
        raise RowError(f"{where}.{role_key}", "missing" if given is None else "unknown role", expected, given)
    if role == "assistant" and message.get("tool_calls"):
        return tool_call_turn(where, message)
    if role == "tool":
        return tool_result(where, message)
    if role == "system" and (content is None or (isinstance(content, str) and not visible(content))):
        return None
    return Message(str(role), text(f"{where}.{content_key}", content))


def _looks_written_out(value: str) -> bool:
    """Whether a text begins like a written-out message list, as in CSV files; the rest may still be invalid."""
    rest = value[:400].lstrip()
    if not rest.startswith(("[", "{")):
        return False
    rest = rest.removeprefix("[").lstrip()
    if not rest.startswith("{"):
        return False
    rest = rest[1:].lstrip()
    return any(rest.startswith(f"{quote}{key}{quote}") for quote in ('"', "'") for key in _KEYS) and _has_pair(value)


def _has_pair(value: str) -> bool:
    """Whether a text has both keys of a message: a response may be JSON with only `value` or `role`."""
    has = {key: f'"{key}"' in value or f"'{key}'" in value for key in _KEYS}
    return (has["role"] and has["content"]) or (has["from"] and has["value"])


def _parsed(field: str, value: str) -> Any:
    """Parse JSON or Python's repr. No code runs: `ast.literal_eval` accepts only literals."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(value.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    raise RowError(
        field,
        "looks like a message list written as text, and can't be parsed",
        "JSON or a Python list (write it with json.dumps; pandas' to_csv writes lists of a Parquet file as neither)",
        value,
    )
