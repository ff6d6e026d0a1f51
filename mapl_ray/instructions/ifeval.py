"""IFEval's arguments for what its checkers decide as ours do, on every text.

Stored arguments may be any: what IFEval would take for a pattern, or replace by a number of its own, is not mapped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mapl_ray.instructions.types import Args, IfEval

_WORD = re.compile(r"\w+", re.ASCII)


def at_bound(kind: str, args: Args, *, number: str, relation: str, **others: Any) -> IfEval | None:
    """The kind with the bound of `direction` and `n`, its fields named `number` and `relation`; None for odd bounds."""
    at_least = args["direction"] == "at least"
    n = args["n"] if at_least else args["n"] + 1  # IFEval knows "at least n" and "less than n"
    if not isinstance(n, int) or n < 0:  # for a negative number it draws one
        return None
    return kind, {relation: "at least" if at_least else "less than", number: n, **others}


def forbidden_words(words: Sequence[str]) -> IfEval | None:
    """None of the words may occur; None unless all are plain ASCII words.

    IFEval searches the pattern `\\bword\\b` with `re.IGNORECASE`, which is what `Features.count_word` counts.
    """
    plain = len(words) > 0 and all(_WORD.fullmatch(word) for word in words)  # it draws words where there are none
    return ("keywords:forbidden_words", {"forbidden_words": [*words]}) if plain else None
