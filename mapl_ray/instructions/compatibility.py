"""Which instructions never meet in one prompt."""

from __future__ import annotations

from mapl_ray.instructions.features import Features, fold
from mapl_ray.instructions.types import Instruction, lookup

_EMPTY = Features("")
_SHARES = "ratios"  # of a whole text: they say nothing of a few words in it
# What is counted in a part is never more than in the whole: at most 90 words, and 120 at most in the first paragraph.
_PARTS: dict[str, frozenset[str]] = {
    "word_count": frozenset(
        {"first_paragraph", "last_paragraph", "words_per_paragraph", "first_sentence", "last_sentence"}
        | {"longest_sentence", "words_per_sentence", "unique_word_count", "long_word_count", "initial_count"}
        | {"capital_word_count", "capitalized_word_count", "number_count", "sentence_count"}
    ),
    "longest_sentence": frozenset(("first_sentence", "last_sentence", "words_per_sentence")),
    "sentence_count": frozenset(("question_count",)),
    "line_count": frozenset(("paragraph_count", "bullet_count", "numbered_count", "heading_count")),
    "character_count": frozenset(("longest_line",)),
}


def compatible(a: Instruction, b: Instruction) -> bool:
    """Whether the two can stand in one prompt: neither redundant nor contradictory in themselves.

    Not together: the same quantity twice, quantities that exclude each other, a limit that follows from another, words
    of which one holds the other, and words or a phrase that one asks for and the other rules out ("No, thanks" and no
    commas).
    Limits that pull against each other (many words, few sentences) may meet: whoever combines instructions keeps a
    response that satisfies all of them.
    """
    f, g = lookup(a.name), lookup(b.name)
    if f.name == g.name or f.quantity == g.quantity or g.quantity in f.excludes or f.quantity in g.excludes:
        return False
    named_a, named_b = _named(a), _named(b)
    if _implies(a, b) or _implies(b, a):
        return False
    if any(one in two or two in one for one in _words(named_a) for two in _words(named_b)):
        return False
    return not (_rules_out(b, a, named_a) or _rules_out(a, b, named_b))


def _implies(whole: Instruction, part: Instruction) -> bool:
    """Whether one of the two follows from the other, for a count of the whole and one of a part of it."""
    if part.name not in _PARTS.get(whole.name, ()):
        return False
    # Of two upper limits the larger one of the part says nothing new, of two lower ones the smaller one of the whole.
    return bool(whole.args["direction"] == part.args["direction"] and part.args["n"] >= whole.args["n"])


def _named(instruction: Instruction) -> list[str]:
    """The words and phrases that an instruction names."""
    args = instruction.args
    return [*args.get("words", ()), *(args[key] for key in ("word", "phrase") if isinstance(args.get(key), str))]


def _words(named: list[str]) -> list[str]:
    """Those of a phrase one by one."""
    return [fold(word) for text in named for word in text.split()]


def _rules_out(limit: Instruction, wish: Instruction, named: list[str]) -> bool:
    """Whether `limit`, which an empty text keeps, is broken by what `wish` asks for."""
    if not named or limit.family == _SHARES or not _keeps(limit, _EMPTY):
        return False
    return any(not limit.check(Features(text)) for text in named if _needs(wish, text, named))


def _needs(wish: Instruction, text: str, named: list[str]) -> bool:
    """Whether the wish fails without this one of the texts it names."""
    return not _keeps(wish, Features(" ".join(other for other in named if other != text)))


def _keeps(instruction: Instruction, text: Features) -> bool:
    # A function with a `validate` of its own can't be asked about any text.
    return lookup(instruction.name).validate is None and instruction.check(text)
