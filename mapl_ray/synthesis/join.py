"""Join instructions with the original prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mapl_ray.data.records import Message
from mapl_ray.errors import UserError
from mapl_ray.instructions import Instruction

# (before one instruction, before several); an empty one is no line of its own.
_SENTENCE_LEADS = (
    ("", ""),
    ("Please note:", "Please note:"),
    ("One requirement:", "Some requirements:"),
    ("Follow this instruction in your answer.", "Follow these instructions in your answer."),
    ("In your response, keep to the following.", "In your response, keep to the following."),
)
_LIST_LEADS = (
    ("Requirement:", "Requirements:"),
    ("Please follow this instruction:", "Please follow these instructions:"),
    ("Your answer must meet this condition:", "Your answer must meet these conditions:"),
    ("Keep to this rule:", "Keep to these rules:"),
    ("Additional instruction:", "Additional instructions:"),
)


def join_prompt(prompt: tuple[Message, ...], instructions: Sequence[Instruction], layout: int) -> tuple[Message, ...]:
    """The prompt with the instructions after the text of its last user turn, which stays an exact prefix.

    System, earlier and later turns are kept. `layout` is any whole number >= 0, drawn at random: prose or list, and the
    words before; all these follow from it and the number of instructions alone. Raises `UserError` where the prompt has
    no user turn.
    """
    turn = last_user_turn(prompt)
    if turn is None:
        raise UserError("a prompt without a user turn: there is nothing to join instructions with.")
    texts = [instruction.text for instruction in instructions]
    block = f"\n\n{_block(texts, layout)}" if texts else ""
    joined = replace(prompt[turn], content=prompt[turn].content + block)
    return (*prompt[:turn], joined, *prompt[turn + 1 :])


def rejoin_prompt(
    original: tuple[Message, ...], joined: tuple[Message, ...], old: Sequence[str], new: Sequence[str]
) -> tuple[Message, ...]:
    """`joined`, which `join_prompt` made of `original`, with other instructions in the places of its own, layout kept.

    `old` are the texts it has, in their order. Raises `UserError` where it has others.
    """
    turn = last_user_turn(original)
    if turn is None or not joined[turn].content.startswith(original[turn].content):
        raise UserError(
            "a prompt that does not begin with its original one: its instructions can't be separated from it."
        )
    content = joined[turn].content
    place = len(original[turn].content)
    pieces = [content[:place]]
    for text, other in zip(old, new, strict=True):
        found = content.find(text, place)
        if found < 0:
            raise UserError(f"a prompt without its instruction {text!r} in its place.")
        pieces += [content[place:found], other]
        place = found + len(text)
    changed = replace(joined[turn], content="".join([*pieces, content[place:]]))
    return (*joined[:turn], changed, *joined[turn + 1 :])


def last_user_turn(prompt: tuple[Message, ...]) -> int | None:
    """Index of the last message by the user."""
    return max((index for index, message in enumerate(prompt) if message.role == "user"), default=None)


def _block(texts: list[str], layout: int) -> str:
    lead_number, kind = divmod(layout, 3)
    leads = _LIST_LEADS if kind else _SENTENCE_LEADS
    lead = leads[lead_number % len(leads)][len(texts) > 1]
    if kind == 0:
        return " ".join([lead, *texts] if lead else texts)
    items = [f"- {text}" if kind == 1 else f"{number}. {text}" for number, text in enumerate(texts, start=1)]
    return "\n".join([lead, *items])
