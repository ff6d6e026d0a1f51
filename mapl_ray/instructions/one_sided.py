"""What ordinary text only ever violates. Few, for a prompt that asks for one of them tells much by itself."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from mapl_ray.instructions.features import Features
from mapl_ray.instructions.types import Args, Case, IfEval, InstructionFunction, register
from mapl_ray.instructions.wordings import persons


def _one_sided(
    name: str,
    family: str,
    holds: Callable[[Features], bool],
    wordings: Sequence[str],
    *,
    ifeval: IfEval | None = None,
    excludes: Sequence[str] = (),
) -> InstructionFunction:
    def draw(case: Case, rng: random.Random) -> Args | None:
        return {} if all(holds(text) == flag for text, flag in case.flags) else None

    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=name,
            draw=draw,
            check=lambda text, args: holds(text),
            phrasings=lambda args: wordings,
            ifeval=None if ifeval is None else lambda args: ifeval,
            excludes=frozenset(excludes),
            sides="one",
        )
    )


def _is_json(text: Features) -> bool:
    try:
        json.loads(text.text)
    except (ValueError, RecursionError):  # also numbers of too many digits
        return False
    return True


def _has_title(text: Features) -> bool:
    # As IFEval searches `<<[^\n]+>>`: the marks are taken off on either side, and something has to be left.
    titles = (line[line.find("<<") : line.rfind(">>") + 2] for line in text.text.split("\n") if "<<" in line)
    return any(len(title) > 4 and title.lstrip("<").rstrip(">").strip() for title in titles)


def _placeholders(text: Features) -> int:
    # Places that a writer leaves open, as in "Dear [name]": IFEval's kind `number_placeholders`, and its name for them.
    # What IFEval finds with `\[.*?\]`, without looking for the end of each bracket anew.
    found = 0
    for line in text.text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) > 0:
            found += 1
            start = line.find("[", end)
    return found


all_small_letters = _one_sided(
    "all_small_letters",
    "case",
    lambda text: text.text == text.lower and any(sign.islower() for sign in text.text),
    persons.SMALL_LETTERS.use,
    excludes=("capital_words", "opening"),
)

json_only = _one_sided(
    "json_only",
    "format",
    _is_json,
    persons.JSON_ONLY.use,
    excludes=(
        "opening",
        "ending",
        "last_paragraph_start",
        "nth_word",
        "in_quotation_marks",
        "bullets",
        "numbered_items",
        "list_use",
        "bold_use",
        "heading_use",
        "table_use",
        "code_block_use",
        "markdown_use",
    ),
)

marked_title = _one_sided(
    "marked_title",
    "format",
    _has_title,
    persons.MARKED_TITLE.use,
    ifeval=("detectable_format:title", {}),
)

placeholders = _one_sided(
    "placeholders",
    "format",
    lambda text: _placeholders(text) >= 3,
    persons.PLACEHOLDERS.use,
    ifeval=("detectable_content:number_placeholders", {"num_placeholders": 3}),
)

in_quotation_marks = _one_sided(
    "in_quotation_marks",
    "punctuation",
    lambda text: len(text.text.strip()) > 1 and text.text.strip()[0] == text.text.strip()[-1] == '"',
    persons.IN_QUOTATION_MARKS.use,
    ifeval=("startend:quotation", {}),
    excludes=("ending", "quotation_mark"),
)
