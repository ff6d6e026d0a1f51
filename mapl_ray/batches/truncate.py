"""Truncation of long prompts, the same for all prompts of a group: first the oldest turns, then the first words of x.

The system message, the instructions added to x, the template's tokens and the responses are never cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from mapl_ray.data.records import Message, RelationGroup

Prompts = tuple[tuple[Message, ...], ...]
Fits = Callable[[Prompts], bool]


class Cut(NamedTuple):
    """A group with truncated prompts, and how much was removed."""

    group: RelationGroup
    turns: int
    characters: int  # removed from the beginning of the last user turn of x


def truncate_left(group: RelationGroup, fits: Fits) -> Cut | None:
    """Remove as little as possible from the left of the group's prompts so that they fit.

    Every prompt loses the same turns and the same characters of x. The last user turn of every prompt must begin with
    the text of x. The cut is moved to the beginning of the next word. Returns None if a prompt's last user turn does
    not begin with x, or if the prompts don't fit even with all of x removed.
    """
    last = max((i for i, m in enumerate(group.prompts[0]) if m.role == "user"), default=None)
    if last is None or any(not _extends(prompt, group.prompts[0], last) for prompt in group.prompts):
        return None
    starts = [i for i, m in enumerate(group.prompts[0][: last + 1]) if m.role == "user"]
    for start in starts[1:]:  # a conversation must begin with a user turn, so whole exchanges are removed
        prompts = _without_turns(group.prompts, start)
        if fits(prompts):
            return Cut(replace(group, prompts=prompts), _turns(group.prompts) - _turns(prompts), 0)
    shorter = _without_turns(group.prompts, last)
    at = max(i for i, m in enumerate(shorter[0]) if m.role == "user")
    text = shorter[0][at].content
    if not fits(_without_characters(shorter, at, len(text))):
        return None
    low, high = 0, len(text)  # too long with `low` characters cut, fits with `high`
    while high - low > 1:
        middle = (low + high) // 2
        if fits(_without_characters(shorter, at, middle)):
            high = middle
        else:
            low = middle
    for cut in (_next_word(text, high), high):
        prompts = _without_characters(shorter, at, cut)
        if fits(prompts):  # checked again: fewer characters can give more tokens
            return Cut(replace(group, prompts=prompts), _turns(group.prompts) - _turns(prompts), cut)
    return None


def _extends(prompt: tuple[Message, ...], original: tuple[Message, ...], last: int) -> bool:
    """Whether a prompt has the original's turns and a last user turn that begins with the original's text."""
    return (
        len(prompt) == len(original)
        and prompt[:last] == original[:last]
        and prompt[last + 1 :] == original[last + 1 :]
        and prompt[last].role == "user"
        and prompt[last].content.startswith(original[last].content)
    )


def _without_turns(prompts: Prompts, start: int) -> Prompts:
    """Remove the turns before `start`, except the system message."""
    return tuple((*(m for m in prompt[:start] if m.role == "system"), *prompt[start:]) for prompt in prompts)


def _without_characters(prompts: Prompts, at: int, number: int) -> Prompts:
    return tuple(
        (*prompt[:at], replace(prompt[at], content=prompt[at].content[number:]), *prompt[at + 1 :])
        for prompt in prompts
    )


def _next_word(text: str, start: int) -> int:
    """Index of the first word that begins at or after `start`; `start` if there is none."""
    if start == 0 or text[start - 1].isspace():
        return start
    for index in range(start, len(text) - 1):
        if text[index].isspace() and not text[index + 1].isspace():
            return index + 1
    return start


def _turns(prompts: Prompts) -> int:
    return len(prompts[0])
