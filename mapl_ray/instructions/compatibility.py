"""Which instructions never meet in one prompt."""

from __future__ import annotations

from mapl_ray.instructions.features import fold
from mapl_ray.instructions.types import Instruction, lookup


def compatible(a: Instruction, b: Instruction) -> bool:
    """Whether the two can stand in one prompt: neither redundant nor contradictory in themselves.

    Not together: the same quantity twice, quantities that exclude each other, and words of which one holds the other.
    Limits that pull against each other (many words, few sentences) may meet: whoever combines instructions keeps a
    response that satisfies all of them.
    """
    f, g = lookup(a.name), lookup(b.name)
    if f.name == g.name or f.quantity == g.quantity or g.quantity in f.excludes or f.quantity in g.excludes:
        return False
    words_a, words_b = _words(a), _words(b)
    return not any(one in two or two in one for one in words_a for two in words_b)


def _words(instruction: Instruction) -> list[str]:
    """The words that an instruction names; those of a phrase one by one."""
    args = instruction.args
    words = [*args.get("words", ()), *str(args.get("phrase", "")).split()]
    if isinstance(word := args.get("word"), str):
        words.append(word)
    return [fold(one) for one in words]
