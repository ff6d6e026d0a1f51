"""Decide which instructions can be combined in one prompt: none excludes another, and none follows from the others.

There is one rule, based on the instructions' claims (`claims.py`) and what follows from them (`laws.py`). It is strict:
limits that only an odd text meets together count as exclusive, and so do instructions that take too long to decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from mapl_ray.instructions.claims import Alternative, Bound, Claims
from mapl_ray.instructions.features import fold
from mapl_ray.instructions.laws import EXCLUDES, NEEDED_BY_WORDS, is_plain_word, least, needs
from mapl_ray.instructions.types import Instruction, InstructionFunction, lookup

_AVERAGES = {"words_per_sentence": "sentence", "words_per_paragraph": "paragraph"}  # average -> parts averaged over
_OF_ONE_WORD = ("longest_word", "most_frequent_word")  # counts that another word does not increase
_NAMING = ("words", "word", "phrase")  # arguments that name words
_MOST_CHOICES = 400  # limit on tried choices of alternatives; beyond it, instructions are not combined


class _Said(NamedTuple):
    """The claims of one instruction and the counts that they bound."""

    function: str
    quantity: str
    claims: Claims
    reverse: Claims | None  # claims met by a text that violates it, if they are stronger than the inverted bounds
    words: tuple[str, ...]  # words that it names
    names: tuple[str, ...]  # count names of all its bounds
    counts: frozenset[str]  # counts that it bounds
    topics: frozenset[str]  # those counts, and the places of `at:` counts without their values
    of_words: bool  # whether a single word can affect one of the topics


class Company:
    """The instructions of one prompt, drawn one after another."""

    def __init__(self) -> None:
        self._members: list[_Said] = []
        self._alone: Instruction | None = None  # the first one; its claims are only computed when a second one comes

    def take(self, instruction: Instruction) -> bool:
        """Add the instruction if it can be combined with those taken before; returns whether it was added."""
        if self._alone is None and not self._members:
            self._alone = instruction
            return True
        if self._alone is not None:
            self._members.append(_said(self._alone))
            self._alone = None
        said = _said(instruction)
        fits = all(_compatible(said, other) for other in self._members) and _together([*self._members, said])
        if fits:
            self._members.append(said)
        return fits


def compatible(a: Instruction, b: Instruction) -> bool:
    """Whether two instructions can be combined: some text meets both, and for each one, some text meets only it.

    Instructions on the same count are never combined, nor are two that name the same word or a word within another.
    """
    return _compatible(_said(a), _said(b))


def fit_together(instructions: Sequence[Instruction]) -> bool:
    """Whether a text can meet all of three or more pairwise compatible instructions, and none follows from the rest."""
    return _together([_said(one) for one in instructions])


def _said(instruction: Instruction) -> _Said:
    function = lookup(instruction.name)
    claims = function.claims_of(instruction.args)
    names = tuple([bound.of for alternative in claims for bound in alternative])
    reverse = _reverse(function, instruction.args, names)
    counts, topics, of_words = _scope(names)
    if reverse is not None:
        more = tuple([bound.of for alternative in reverse for bound in alternative])
        _, more_topics, more_of_words = _scope(more)
        names, topics, of_words = names + more, topics | more_topics, of_words or more_of_words
    words = _named_words(instruction)
    return _Said(function.name, function.quantity, claims, reverse, words, names, counts, topics, of_words)


def _reverse(function: InstructionFunction, args: Mapping[str, Any], names: Sequence[str]) -> Claims | None:
    """The claims of "use it" for an instruction not to use it: needed to see that "one line" implies "no sections"."""
    if args.get("use", True):
        return None
    claims = function.claims_of({**args, "use": True})
    reverse = tuple(tuple(bound for bound in alternative if bound.of != "capitals") for alternative in claims)
    return None if all(bound.of in names for alternative in reverse for bound in alternative) else reverse


@lru_cache(maxsize=2048)
def _scope(names: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str], bool]:
    """`counts`, `topics` and `of_words` of an instruction that bounds these counts; most bound only one."""
    counts = frozenset([name for name in names if name != "capitals"])
    topics = {*counts, *[name.partition("=")[0] for name in counts if name.startswith("at:")]}
    topics.update(excluded for name in counts for excluded in EXCLUDES.get(name, ()))
    for average, parts in _AVERAGES.items():
        if average in topics:
            topics |= {"word", parts}
    if len(counts) < len(names):
        topics.add("capitals")
    of_words = any(topic in NEEDED_BY_WORDS or topic.startswith(("letter:", "initial:")) for topic in topics)
    return counts, frozenset(topics), of_words


def _compatible(a: _Said, b: _Said) -> bool:
    if a.function == b.function or a.quantity == b.quantity or not a.counts.isdisjoint(b.counts):
        return False
    if a.words and b.words and any(word in other or other in word for word in a.words for other in b.words):
        return False
    if not _touch(a, b):
        return True
    return _satisfiable((a.claims, b.claims)) and not _implies((a.claims,), b) and not _implies((b.claims,), a)


def _touch(a: _Said, b: _Said) -> bool:
    """Whether the claims of one can affect those of the other."""
    return not a.topics.isdisjoint(b.topics) or _reaches(a, b) or _reaches(b, a)


def _reaches(a: _Said, b: _Said) -> bool:
    """Whether a count bounded by `a` needs one of the topics of `b`."""
    return any(not b.topics.isdisjoint(needs(name)) for name in a.names if b.of_words or not is_plain_word(name))


def _together(said: Sequence[_Said]) -> bool:
    if len(said) < 3:
        return True
    return all(_group_fits(group) for group in _groups(said) if len(group) > 2)


def _groups(said: Sequence[_Said]) -> Iterator[list[_Said]]:
    """Partition the instructions into groups that affect each other, directly or through others."""
    left = [*said]
    while left:
        group = [left.pop()]
        for member in group:
            group += [other for other in left if _touch(member, other)]
            left = [other for other in left if not any(other is one for one in group)]
        yield group


def _group_fits(said: Sequence[_Said]) -> bool:
    claims = [one.claims for one in said]
    if not _satisfiable(claims):
        return False
    return not any(_implies([*claims[:i], *claims[i + 1 :]], one) for i, one in enumerate(said))


def _named_words(instruction: Instruction) -> tuple[str, ...]:
    args = instruction.args
    if args.keys().isdisjoint(_NAMING):
        return ()
    named = [*args.get("words", ()), *(args[key] for key in ("word", "phrase") if isinstance(args.get(key), str))]
    return tuple(fold(word) for text in named for word in text.split())


def _satisfiable(claims: Sequence[Claims]) -> bool:
    """Whether one alternative of each claim can hold, all at once; False if there are too many choices to try."""
    fixed = [bound for one in claims if len(one) == 1 for bound in one[0]]
    return _some_choice(fixed, [one for one in claims if len(one) != 1], iter(range(_MOST_CHOICES)))


def _some_choice(fixed: Sequence[Bound], claims: Sequence[Claims], tries: Iterator[int]) -> bool:
    """Whether one alternative of each claim can hold together with the fixed bounds."""
    if next(tries, None) is None or not _holds(fixed):
        return False
    left = [tuple(alternative for alternative in one if _holds([*fixed, *alternative])) for one in claims]
    if not all(left):
        return False
    left.sort(key=len)
    return not left or any(_some_choice([*fixed, *chosen], left[1:], tries) for chosen in left[0])


def _implies(claims: Sequence[Claims], said: _Said) -> bool:
    """Whether every text that meets all `claims` also meets `said`: whether violating all its alternatives fails."""
    opposite = [tuple(piece for bound in alternative for piece in _outside(bound)) for alternative in said.claims]
    if not _satisfiable((*claims, *opposite)):
        return True
    return said.reverse is not None and not _satisfiable((*claims, said.reverse))


def _outside(bound: Bound) -> list[Alternative]:
    pieces: list[Alternative] = []
    if bound.low > 0:
        pieces.append((Bound(bound.of, 0, bound.low - 1),))
    if bound.high is not None:
        pieces.append((Bound(bound.of, bound.high + 1),))
    return pieces


def _holds(bounds: Sequence[Bound]) -> bool:
    lower = [bound for bound in bounds if bound.low > 0]
    if not lower:  # an empty text satisfies all upper limits
        return True
    for of, _, high in bounds:
        if high is not None and _least_of(lower, of) > high:
            return False
    if any(_least_of(lower, excluded) for bound in lower for excluded in EXCLUDES.get(bound.of, ())):
        return False
    names = {bound.of for bound in bounds}
    return (
        (len(lower) < 2 or _one_thing_a_place(lower))
        and (names.isdisjoint(_AVERAGES) or _averages_hold(bounds, lower))
        and ("bullet" not in names or "numbered" not in names or _lists_hold(bounds, lower))
    )


def _least_of(lower: Iterable[Bound], of: str) -> int:
    """Lower limit of a count. Needs of different words add up, because each occurrence is a separate word."""
    found, of_words = 0, dict[str, int]()
    for bound in lower:
        needed = least(bound.of, bound.low, of)
        found = max(found, needed)
        if needed and is_plain_word(bound.of):
            of_words[bound.of] = max(needed, of_words.get(bound.of, 0))
    return found if len(of_words) < 2 or of in _OF_ONE_WORD else max(found, sum(of_words.values()))


def _most_of(bounds: Iterable[Bound], of: str) -> int | None:
    return min((bound.high for bound in bounds if bound.of == of and bound.high is not None), default=None)


def _one_thing_a_place(lower: Sequence[Bound]) -> bool:
    held: dict[str, str] = {}
    for bound in lower:
        if not bound.of.startswith(("at:", "request:")):
            continue
        for name in needs(bound.of):
            if name.startswith("at:"):
                place, _, value = name.partition("=")
                if value and held.setdefault(place, value) != value:
                    return False
    return True


def _averages_hold(bounds: Sequence[Bound], lower: Sequence[Bound]) -> bool:
    """Whether words can equal parts times average words per part, up to the half word per part lost in rounding."""
    for average, parts in _AVERAGES.items():
        most_words, most_average, most_parts = (_most_of(bounds, of) for of in ("word", average, parts))
        least_words, least_average, least_parts = (_least_of(lower, of) for of in ("word", average, parts))
        if most_words is not None and least_average and least_parts * (least_average - 0.5) > most_words:
            return False
        if most_average is not None and most_parts is not None and most_parts * (most_average + 0.5) < least_words:
            return False
    return True


def _lists_hold(bounds: Sequence[Bound], lower: Sequence[Bound]) -> bool:
    """Whether the limits allow that list items are only bullets and numbered items."""
    bullets, numbered = _most_of(bounds, "bullet"), _most_of(bounds, "numbered")
    return bullets is None or numbered is None or _least_of(lower, "list") <= bullets + numbered
