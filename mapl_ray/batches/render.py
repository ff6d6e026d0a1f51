"""Conversations as text, by the chat template of a tokenizer. Nothing else here calls a template.

A template may raise (no system role, turns that do not alternate, tools), and it may drop text (content as parts). Both
end as `RenderError`, which says what of which conversation the template does not take.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mapl_ray.batches.render_limits import RenderLimitError, RenderLimits
from mapl_ray.data.records import Message, message_fields, offered_tools
from mapl_ray.errors import first_line

CURE = (
    "Use a model whose chat template takes such conversations, edit the template (chat_template.jinja), or leave these "
    "rows out"
)
_MOST_TIMES, _MOST_MORE = 20, 200_000  # characters of a rendered conversation: times its own, and besides
_PROBE = "\u2058\u2059"  # an answer that begins as no template's own text does
_MARKS = ("</think>",)  # what stands before it in an answer is reasoning, which templates lay out their own way


class RenderError(Exception):
    """Why a conversation can't be rendered: the template's own words, or the text that it leaves out."""


def render(messages: Sequence[Message], tokenizer: Any, generation: bool) -> str:
    """The text of a conversation, with `generation` up to where the assistant's answer begins.

    Without a template: `role: content` by paragraphs. Raises `RenderError` for whatever the template raises, and for
    text of a system or user turn, a tool or a tool call that is not in what it made.
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
    except Exception as error:  # a template is a program: what it raises is its own
        raise RenderError(f"the chat template refuses {_shape(messages)}: {first_line(error)}") from None
    given = sum(len(str(value)) for message in fields for value in message.values()) + len(str(tools or ""))
    if len(text) > _MOST_TIMES * given + _MOST_MORE:
        raise RenderError(
            f"the chat template makes {len(text):,} characters of {given:,}; expected at most {_MOST_TIMES} times as "
            f"many and {_MOST_MORE:,} more"
        )
    return text


def render_answers(
    prompt: Sequence[Message], rendered: str, answers: Sequence[str], tokenizer: Any
) -> tuple[int, list[str]]:
    """How each answer is written after the prompt, to the end of the assistant's turn as the template ends it, and how
    many characters at the end of `rendered`, the prompt's text, do not stand before an answer.

    They are text that only generation starts with, as `<think>` of some templates. Raises `RenderError` as `render`
    does, and for a template that drops an answer.
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
            raise RenderError("the chat template writes a conversation with its answer otherwise than its beginning")
        if _said(answer) not in whole[start:]:
            raise RenderError(f"the chat template leaves out the response {answer[:60]!r}")
        written.append(whole[start:])
    return cut, written


def _shared(one: str, other: str) -> int:
    """Length of what both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _plain(messages: Sequence[Message], tokenizer: Any, generation: bool) -> str:
    if any(message.role == "tool" or message.tool_calls or message.tools for message in messages):
        raise RenderError("the tokenizer has no chat template, and tools can't be written without one")
    text = "".join(f"{message.role}: {message.content}\n\n" for message in messages)
    return (tokenizer.bos_token or "") + text + ("assistant: " if generation else "")


def _check_tools_kept(text: str, tools: list[dict[str, Any]], without: str) -> None:
    """A tool's name may stand in a turn as well, so the text must also differ from the one `without` tools."""
    names = [tool["function"]["name"] for tool in tools]
    left_out = names if text == without else [name for name in names if name not in text]
    if left_out:
        raise RenderError(f"the chat template leaves out the row's tools ({', '.join(left_out)})")


def _check_kept(text: str, index: int, message: Message) -> None:
    """Templates trim content, and lay out reasoning and tool results their own way; the rest is there word by word."""
    said = _said(message.content) if message.role == "assistant" else message.content.strip()
    if message.role == "tool":  # written as it is, or as JSON text
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
    """The turns, as what a template refuses is most often their order."""
    tools = "tools, " if offered_tools(messages) is not None else ""
    return (
        tools
        + ", ".join(
            f"{message.role} with tool_calls" if message.tool_calls else message.role for message in messages[:6]
        )
        + (f" and {len(messages) - 6} more turns" if len(messages) > 6 else "")
    )
