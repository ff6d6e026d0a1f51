"""Rendering of conversations with a tokenizer's chat template. Only this module calls chat templates.

A template may raise (no system role, turns that do not alternate, tools), or drop text (content as parts). Both become
a `RenderError` that names the part of the conversation that the template does not support.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mapl_ray.batches.render_limits import RenderLimitError, RenderLimits
from mapl_ray.data.records import Message, message_fields, offered_tools
from mapl_ray.errors import first_line

CURE = (
    "Use a model whose chat template supports such conversations, edit the template (chat_template.jinja), or remove "
    "these rows"
)
_MOST_TIMES, _MOST_MORE = 20, 200_000  # longest rendered text in characters: factor times the content, plus constant
_PROBE = "\u2058\u2059"  # a response that shares no first characters with the text of any template
_MARKS = ("</think>",)  # text before this mark in a response is reasoning, which templates reformat


class RenderError(Exception):
    """A conversation can't be rendered. The message has the template's error, or the text that it drops."""


def render(messages: Sequence[Message], tokenizer: Any, generation: bool) -> str:
    """Render a conversation as text. `generation` adds the generation prompt.

    Without a chat template: one paragraph `role: content` per message. Raises `RenderError` if the template raises, or
    if the text of a system or user turn, a tool, or a tool call is missing in the result.
    """
    if tokenizer.chat_template is None:
        return _plain(messages, tokenizer, generation)
    tools = offered_tools(messages)
    text = _templated(messages, tokenizer, generation, tools)
    if tools is not None:
        _check_tools_kept(text, tools, _templated(messages, tokenizer, generation, None))
    for index, message in enumerate(messages):
        _check_kept(text, index, message)
    return text


def _templated(
    messages: Sequence[Message], tokenizer: Any, generation: bool, tools: list[dict[str, Any]] | None
) -> str:
    fields = [message_fields(message) for message in messages]
    try:
        with RenderLimits():
            text = str(
                tokenizer.apply_chat_template(fields, tools=tools, tokenize=False, add_generation_prompt=generation)
            )
    except RenderLimitError as error:
        raise RenderError(f"the chat template {error} for {_shape(messages)}") from None
    except Exception as error:  # a template is a program and can raise any exception
        raise RenderError(f"the chat template refuses {_shape(messages)}: {first_line(error)}") from None
    given = sum(len(str(value)) for message in fields for value in message.values()) + len(str(tools or ""))
    if len(text) > _MOST_TIMES * given + _MOST_MORE:
        raise RenderError(
            f"the chat template makes {len(text):,} characters from {given:,}; expected at most {_MOST_TIMES} times as "
            f"many and {_MOST_MORE:,} more"
        )
    return text


def render_answers(
    prompt: Sequence[Message], rendered: str, answers: Sequence[str], tokenizer: Any
) -> tuple[int, list[str]]:
    """Render each answer after the prompt, up to the end of the assistant turn.

    Returns a number of characters and the rendered answers. The number is how much of the end of `rendered` (the
    prompt's text) appears only in generation prompts, not before an answer, such as `<think>` in some templates.
    Raises `RenderError` as `render` does, and if the template drops an answer.
    """
    if tokenizer.chat_template is None:
        return 0, [answer + tokenizer.eos_token for answer in answers]
    wholes = [render([*prompt, Message("assistant", answer)], tokenizer, generation=False) for answer in answers]
    cut = 0
    if not all(whole.startswith(rendered) for whole in wholes):
        probe = render([*prompt, Message("assistant", _PROBE)], tokenizer, generation=False)
        cut = len(rendered) - _shared(rendered, probe)
    start = len(rendered) - cut
    written = []
    for answer, whole in zip(answers, wholes, strict=True):
        if whole[:start] != rendered[:start]:
            raise RenderError("the chat template renders the prompt differently when an answer follows")
        if _said(answer) not in whole[start:]:
            raise RenderError(f"the chat template leaves out the response {answer[:60]!r}")
        written.append(whole[start:])
    return cut, written


def _shared(one: str, other: str) -> int:
    """Length of the common prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _plain(messages: Sequence[Message], tokenizer: Any, generation: bool) -> str:
    if any(message.role == "tool" or message.tool_calls or message.tools for message in messages):
        raise RenderError("the tokenizer has no chat template, which tools and tool calls need")
    text = "".join(f"{message.role}: {message.content}\n\n" for message in messages)
    return (tokenizer.bos_token or "") + text + ("assistant: " if generation else "")


def _check_tools_kept(text: str, tools: list[dict[str, Any]], without: str) -> None:
    """Check that all tools are rendered. A tool's name can also occur in a turn, so the text must also differ from the
    one rendered `without` tools."""
    names = [tool["function"]["name"] for tool in tools]
    left_out = names if text == without else [name for name in names if name not in text]
    if left_out:
        raise RenderError(f"the chat template leaves out the row's tools ({', '.join(left_out)})")


def _check_kept(text: str, index: int, message: Message) -> None:
    """Check that a message's text was kept. Templates may trim it, and may reformat reasoning and tool results."""
    said = _said(message.content) if message.role == "assistant" else message.content.strip()
    if message.role == "tool":  # rendered as is, or as a JSON string
        said = max(re.findall(r"\w+", message.content), key=len, default="")
    if said not in text:
        raise RenderError(f"the chat template leaves out the text of message {index} ({message.role}: {said[:60]!r})")
    for call in message_fields(message).get("tool_calls", ()):
        name = call.get("function", call).get("name", "")
        if name not in text:
            raise RenderError(f"the chat template leaves out the tool call {name!r} of message {index}")


def _said(answer: str) -> str:
    for mark in _MARKS:
        answer = answer.rsplit(mark, 1)[-1]
    return answer.strip()


def _shape(messages: Sequence[Message]) -> str:
    """Describe the order of turns, which is the most common reason for a template's error."""
    tools = "tools, " if offered_tools(messages) is not None else ""
    return (
        tools
        + ", ".join(
            f"{message.role} with tool_calls" if message.tool_calls else message.role for message in messages[:6]
        )
        + (f" and {len(messages) - 6} more turns" if len(messages) > 6 else "")
    )
