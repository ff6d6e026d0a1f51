"""Join instructions with the original prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mapl_ray.data.records import Message
from mapl_ray.errors import UserError
from mapl_ray.instructions import Instruction

# (lead for one instruction, lead for several); an empty lead is left out.
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
    """Append the instructions to the last user turn of the prompt, whose text stays an exact prefix.

    All other turns are kept. `layout` is a random integer >= 0. It and the number of instructions alone determine the
    layout: prose or a list, and the words before it. Raises `UserError` if the prompt has no user turn.
    """
    turn = last_user_turn(prompt)
    if turn is None:
        raise UserError("The prompt has no user turn. Expected at least one, to which instructions are appended.")
    texts = [instruction.text for instruction in instructions]
    block = f"\n\n{_block(texts, layout)}" if texts else ""
    joined = replace(prompt[turn], content=prompt[turn].content + block)
    return (*prompt[:turn], joined, *prompt[turn + 1 :])


def rejoin_prompt(
    original: tuple[Message, ...], joined: tuple[Message, ...], old: Sequence[str], new: Sequence[str]
) -> tuple[Message, ...]:
    """Replace the instructions in `joined`, which `join_prompt` made from `original`, and keep the layout.

    `old` are the present texts in order, `new` their replacements. Raises `UserError` if `joined` has other texts.
    """
    turn = last_user_turn(original)
    if turn is None or not joined[turn].content.startswith(original[turn].content):
        raise UserError(
            "The prompt does not begin with its original prompt, so its instructions can't be separated from it."
        )
    content = joined[turn].content
    place = len(original[turn].content)
    pieces = [content[:place]]
    for text, other in zip(old, new, strict=True):
        found = content.find(text, place)
        if found < 0:
            raise UserError(f"The prompt does not contain its instruction {text!r} in the expected position.")
        pieces += [content[place:found], other]
        place = found + len(text)
    changed = replace(joined[turn], content="".join([*pieces, content[place:]]))
    return (*joined[:turn], changed, *joined[turn + 1 :])


def last_user_turn(prompt: tuple[Message, ...]) -> int | None:
    """Index of the last user message, or None."""
    return max((index for index, message in enumerate(prompt) if message.role == "user"), default=None)


def _block(texts: list[str], layout: int) -> str:
    lead_number, kind = divmod(layout, 3)
    leads = _LIST_LEADS if kind else _SENTENCE_LEADS
    lead = leads[lead_number % len(leads)][len(texts) > 1]
    if kind == 0:
        return " ".join([lead, *texts] if lead else texts)
    items = [f"- {text}" if kind == 1 else f"{number}. {text}" for number, text in enumerate(texts, start=1)]
    return "\n".join([lead, *items])
