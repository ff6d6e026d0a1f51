"""Which instructions can stand in one prompt: none excludes another, and none follows from the others.

One rule over what the instructions claim (`claims.py`) and what follows from it (`laws.py`). It is strict: limits that
only an odd text would keep together are taken for exclusive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from math import prod

from mapl_ray.instructions.claims import Alternative, Bound, Claims
from mapl_ray.instructions.features import fold
from mapl_ray.instructions.laws import least, needs
from mapl_ray.instructions.types import Instruction, lookup

_AVERAGES = {"words_per_sentence": "sentence", "words_per_paragraph": "paragraph"}  # of how many parts
_MOST_CHOICES = 256  # ways to choose an alternative of every instruction; with more, the pairs decide alone


def compatible(a: Instruction, b: Instruction) -> bool:
    """Whether the two can stand in one prompt: some text meets both, and some meets either without the other.

    Two instructions about one count never meet, nor do two that name the same word or one that holds the other.
    """
    f, g = lookup(a.name), lookup(b.name)
    if f.name == g.name or f.quantity == g.quantity:
        return False
    one, two = f.claims_of(a.args), g.claims_of(b.args)
    if _share_a_count(one, two) or _share_a_word(a, b):
        return False
    return _satisfiable((one, two)) and not _implies((one,), two) and not _implies((two,), one)


def fit_together(instructions: Sequence[Instruction]) -> bool:
    """Whether a text can meet all of three or more that are compatible by twos, and none follows from the others."""
    if len(instructions) < 3:
        return True
    claims = [lookup(one.name).claims_of(one.args) for one in instructions]
    if not _satisfiable(claims):
        return False
    return not any(_implies(claims[:i] + claims[i + 1 :], claims[i]) for i in range(len(claims)))


def _share_a_count(one: Claims, two: Claims) -> bool:
    counts = {bound.of for alternative in one for bound in alternative if bound.of != "capitals"}
    return any(bound.of in counts for alternative in two for bound in alternative)


def _share_a_word(a: Instruction, b: Instruction) -> bool:
    one, two = _named_words(a), _named_words(b)
    return any(word in other or other in word for word in one for other in two)


def _named_words(instruction: Instruction) -> list[str]:
    args = instruction.args
    named = [*args.get("words", ()), *(args[key] for key in ("word", "phrase") if isinstance(args.get(key), str))]
    return [fold(word) for text in named for word in text.split()]


def _satisfiable(claims: Sequence[Claims]) -> bool:
    """Whether one alternative of each can hold, all of them at once."""
    choices = prod(map(len, claims))
    if choices == 1:
        return _holds([bound for one in claims for bound in one[0]])
    if choices > _MOST_CHOICES:
        return True
    return any(_holds([bound for part in chosen for bound in part]) for chosen in product(*claims))


def _implies(claims: Sequence[Claims], claim: Claims) -> bool:
    """Whether a text that meets all `claims` can't but meet `claim` as well."""
    opposite = _opposite(claim)
    return opposite is not None and not _satisfiable((*claims, opposite))


def _opposite(claim: Claims) -> Claims | None:
    """What holds where the claim does not; None for claims too involved to turn round."""
    if len(claim) == 1:
        return tuple(piece for bound in claim[0] for piece in _outside(bound))
    if any(len(alternative) > 1 for alternative in claim):
        return None
    pieces = [_outside(alternative[0]) for alternative in claim]
    return tuple(tuple(bound for part in chosen for bound in part) for chosen in product(*pieces))


def _outside(bound: Bound) -> list[Alternative]:
    pieces: list[Alternative] = []
    if bound.low > 0:
        pieces.append((Bound(bound.of, 0, bound.low - 1),))
    if bound.high is not None:
        pieces.append((Bound(bound.of, bound.high + 1),))
    return pieces


def _holds(bounds: Sequence[Bound]) -> bool:
    lower = [bound for bound in bounds if bound.low > 0]
    for of, _, high in bounds:
        if high is not None and lower and _least_of(lower, of) > high:
            return False
    names = {bound.of for bound in bounds}
    return (
        (len(lower) < 2 or _one_thing_a_place(lower))
        and (names.isdisjoint(_AVERAGES) or _averages_hold(bounds, lower))
        and ("bullet" not in names or "numbered" not in names or _lists_hold(bounds, lower))
    )


def _least_of(lower: Iterable[Bound], of: str) -> int:
    found = 0
    for bound in lower:
        found = max(found, least(bound.of, bound.low, of))
    return found


def _most_of(bounds: Iterable[Bound], of: str) -> int | None:
    return min((bound.high for bound in bounds if bound.of == of and bound.high is not None), default=None)


def _one_thing_a_place(lower: Sequence[Bound]) -> bool:
    held: dict[str, str] = {}
    for bound in lower:
        if not bound.of.startswith("at:"):
            continue
        for name in needs(bound.of):
            if name.startswith("at:"):
                place, _, value = name.partition("=")
                if held.setdefault(place, value) != value:
                    return False
    return True


def _averages_hold(bounds: Sequence[Bound], lower: Sequence[Bound]) -> bool:
    """Words are about the number of parts times the average of a part: half a word a part is what rounding leaves."""
    for average, parts in _AVERAGES.items():
        most_words, most_average, most_parts = (_most_of(bounds, of) for of in ("word", average, parts))
        least_words, least_average, least_parts = (_least_of(lower, of) for of in ("word", average, parts))
        if most_words is not None and least_average and least_parts * (least_average - 0.5) > most_words:
            return False
        if most_average is not None and most_parts is not None and most_parts * (most_average + 0.5) < least_words:
            return False
    return True


def _lists_hold(bounds: Sequence[Bound], lower: Sequence[Bound]) -> bool:
    """List items are bullets and numbered items, and nothing else."""
    bullets, numbered = _most_of(bounds, "bullet"), _most_of(bounds, "numbered")
    return bullets is None or numbered is None or _least_of(lower, "list") <= bullets + numbered
