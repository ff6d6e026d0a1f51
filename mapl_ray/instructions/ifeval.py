"""Map instructions to IFEval arguments if IFEval's checker agrees with ours on every text.

Stored arguments can be arbitrary: those that IFEval would treat as a pattern or replace by a random value are not
mapped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mapl_ray.instructions.types import Args, IfEval

_WORD = re.compile(r"\w+", re.ASCII)


def at_bound(kind: str, args: Args, *, number: str, relation: str, **others: Any) -> IfEval | None:
    """IFEval id and arguments of a bound; `number` and `relation` name its arguments. None if that is impossible."""
    at_least = args["direction"] == "at least"
    n = args["n"] if at_least else args["n"] + 1  # IFEval has "at least n" and "less than n"
    if not isinstance(n, int) or n < 0:  # IFEval replaces a negative number by a random one
        return None
    return kind, {relation: "at least" if at_least else "less than", number: n, **others}


def forbidden_words(words: Sequence[str]) -> IfEval | None:
    """IFEval id and arguments of "none of the words may occur"; None unless all are plain ASCII words.

    IFEval searches the pattern `\\bword\\b` with `re.IGNORECASE`, which is what `Features.count_word` counts.
    """
    plain = len(words) > 0 and all(_WORD.fullmatch(word) for word in words)  # IFEval draws words if there are none
    return ("keywords:forbidden_words", {"forbidden_words": [*words]}) if plain else None
