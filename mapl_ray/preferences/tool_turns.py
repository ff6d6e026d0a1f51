"""Read tools, tool calls and tool results of a conversation, in the form that chat templates of transformers take.

A column `tools` lists the tools: [{"type": "function", "function": {"name": ..., "parameters": {}}}]

{"role": "assistant", "content": "" or text, "tool_calls": [{"id": ..., "function": {"name": ..., "arguments": {}}}]}
{"role": "tool", "content": text, "tool_call_id": ..., "name": ...}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mapl_ray.data.records import Message, canonical_json
from mapl_ray.preferences.fields import RowError, visible

_TOOLS = "a list of {type, function: {name, description, parameters}}"
_CALLS = "a list of {id, type, function: {name, arguments}}"


def tool_call_turn(where: str, message: Mapping[str, Any]) -> Message:
    """Read an assistant turn that calls tools, with or without text. Raises `RowError` for malformed calls."""
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise RowError(f"{where}.content", f"a {type(content).__name__}", "text or null next to tool_calls", content)
    given = _parsed(message["tool_calls"])
    if not isinstance(given, list):
        raise RowError(f"{where}.tool_calls", f"a {type(given).__name__}", _CALLS, given)
    calls = [_call(f"{where}.tool_calls[{index}]", call) for index, call in enumerate(given)]
    return Message("assistant", content or "", tool_calls=canonical_json(calls))


def tool_result(where: str, message: Mapping[str, Any]) -> Message:
    """Read a tool's result: text, or any JSON value, which becomes text. Raises `RowError` if it is missing."""
    content = message.get("content")
    if content is None:
        raise RowError(f"{where}.content", "missing", "the tool's result")
    text = content if isinstance(content, str) else canonical_json(content)
    named = {name: message.get(name) for name in ("tool_call_id", "name")}
    for name, value in named.items():
        if value is not None and not isinstance(value, str):
            raise RowError(f"{where}.{name}", f"a {type(value).__name__}", "text", value)
    return Message("tool", text, **named)


def with_tools(prompt: tuple[Message, ...], given: Any) -> tuple[Message, ...]:
    """Attach the row's tools to the last user turn of the prompt.

    `given` is a list of tools; the list or each tool may be JSON text. Raises `RowError` for anything else.
    """
    tools = _parsed(given)
    if tools is None or tools == [] or (isinstance(tools, str) and not visible(tools)):
        return prompt
    if not isinstance(tools, list):
        raise RowError("tools", f"a {type(tools).__name__}", _TOOLS, given)
    taken = canonical_json([_tool(f"tools[{index}]", _parsed(tool)) for index, tool in enumerate(tools)])
    last = max((index for index, message in enumerate(prompt) if message.role == "user"), default=None)
    if last is None:
        return prompt  # the caller rejects a prompt without a user turn
    return (*prompt[:last], replace(prompt[last], tools=taken), *prompt[last + 1 :])


def _tool(where: str, tool: Any) -> Any:
    bare = isinstance(tool, Mapping) and "function" not in tool and isinstance(tool.get("name"), str)
    whole = {"type": "function", "function": tool} if bare else tool
    function = whole.get("function") if isinstance(whole, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowError(where, "not a tool", "{type, function: {name, description, parameters}}", tool)
    return _without_nothing(whole)


def _without_nothing(value: Any) -> Any:
    """Remove keys with null values: tables add them to every row if any row has them."""
    if isinstance(value, Mapping):
        return {key: _without_nothing(one) for key, one in value.items() if one is not None}
    return [_without_nothing(one) for one in value] if isinstance(value, list) else value


def _call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise RowError(where, "not a call", "{id, type, function: {name, arguments}}", call)
    arguments = _parsed(function.get("arguments") or {})  # OpenAI's are JSON text, which a template would escape
    if not isinstance(arguments, Mapping):
        raise RowError(f"{where}.arguments", "not an object", "an object, or its JSON text", function.get("arguments"))
    # Tables fill keys that only other rows have with null.
    plain = {name: value for name, value in arguments.items() if value is not None}
    made: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": plain}}
    return made if call.get("id") is None else {"id": str(call["id"]), **made}


def _parsed(value: Any) -> Any:
    """Parse JSON text; return any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
