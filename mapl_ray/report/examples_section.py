"""Example groups with their instructions highlighted. The texts are untrusted, so everything is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mapl_ray.data.records import RelationGroup
from mapl_ray.evaluation.column_table import prompt_kinds
from mapl_ray.report.markup import Markup, el, join, table

_MAX_CHARS = 1200
_RESPONSES = ("chosen", "rejected")


def examples_section(examples: Sequence[Mapping[str, Any]], limit: int = 6) -> Markup | None:
    """Up to `limit` groups: prompts with marked instructions, responses, satisfied flags and rewards."""
    shown = [_example(example, index) for index, example in enumerate(examples[:limit])]
    return join(shown) if shown else None


def _example(example: Mapping[str, Any], index: int) -> Markup:
    group = RelationGroup.from_row(example["group"])
    names = prompt_names(group)
    parts: list[Markup] = []
    for number, prompt in enumerate(group.prompts):
        texts = [instruction.text for instruction in group.instructions[number]]
        turns = [el("p", el("b", f"{message.role}: "), highlighted(_cut(message.content), texts)) for message in prompt]
        parts.append(el("div", el("h4", f"Prompt {names[number]}"), *turns, class_="prompt"))
    for name, response in zip(_RESPONSES, group.responses, strict=True):
        parts.append(el("div", el("h4", f"Response: {name}"), el("p", _cut(response)), class_=f"response {name}"))
    parts.append(_cells(group, names, example.get("rewards") or {}))
    title = f"Example {index + 1}: {group.prompts[0][-1].content.strip()[:80]}"
    return el("details", el("summary", title), *parts, open="" if index == 0 else None)


def highlighted(text: str, instructions: Sequence[str]) -> Markup:
    """The escaped text, with every occurrence of an instruction in `<mark>`."""
    for instruction in sorted(instructions, key=len, reverse=True):
        before, found, after = text.partition(instruction)
        if instruction and found:
            return join([highlighted(before, instructions), el("mark", found), highlighted(after, instructions)])
    return join([text])


def _cells(group: RelationGroup, names: Mapping[int, str], rewards: Mapping[str, Sequence[float]]) -> Markup:
    rows = []
    for index, sequence in enumerate(group.sequences):
        flags = " ".join("✓" if flag else "✗" for flag in sequence.satisfied) or "-"
        cells = [f"{of_model[index]:+.3f}" for of_model in rewards.values()]
        rows.append([f"{names[sequence.prompt]}, {_RESPONSES[sequence.response]}", flags, *cells])
    return table(["prompt, response", "satisfied", *(f"reward {model}" for model in rewards)], rows)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + " […]"


def prompt_names(group: RelationGroup) -> dict[int, str]:
    """`x`, `x+`, `x-` where the inter relations identify them, else `x1`, `x2`, ... by position."""
    kinds = prompt_kinds(group)
    return {number: kinds.get(number, f"x{number}") for number in range(len(group.prompts))}
