"""Two shapes that most of the function set has: a count with a bound, and a thing that is used or avoided."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterable, Sequence

from mapl_ray.instructions.features import Features
from mapl_ray.instructions.phrasing import bound_phrases, exact_phrase, fill, fill_bounds
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order
from mapl_ray.instructions.types import Args, Case, IfEval, InstructionFunction, Sides, register

# Half of a count's templates take the bound as an object, so that a dozen nouns read well in them.
COUNT_TEMPLATES: tuple[str, ...] = (
    "Use {bound}.",
    "Your response should contain {bound}.",
    "Include {bound} in your answer.",
    "The answer must have {bound}.",
)

_COMPARE: dict[str, Callable[[int, int], bool]] = {"at least": operator.ge, "at most": operator.le}


def within_bound(value: int, args: Args) -> bool:
    """Whether a count keeps the bound of `direction` and `n`."""
    return bool(_COMPARE[args["direction"]](value, args["n"]))


def count_function(
    name: str,
    family: str,
    value: Callable[[Features], int],
    nouns: tuple[str, str],
    templates: Sequence[str] = COUNT_TEMPLATES,
    *,
    quantity: str | None = None,
    least: int = 1,
    most: int | None = None,
    min_gap: int = 2,
    ifeval: Callable[[Args], IfEval | None] | None = None,
    excludes: Iterable[str] = (),
    size: bool = False,
    sides: Sides = "two",
) -> InstructionFunction:
    """Register "at least / at most n things". Templates take `{bound}`, as in "at least 5 words".

    Arguments: `direction` ("at least" or "at most") and `n`. The direction is drawn first, whatever the flags;
    `least` and `most` are the smallest and the largest threshold that are worth saying.
    """

    def draw(case: Case, rng: random.Random) -> Args | None:
        values = [(text.measure(name, value), flag) for text, flag in case.flags]
        for direction in in_random_order(DIRECTIONS, rng):
            n = draw_threshold(values, direction, rng, least=least, most=most, min_gap=min_gap)
            if n is not None:
                return {"direction": direction, "n": n}
        return None

    def phrasings(args: Args) -> Sequence[str]:
        return fill_bounds(templates, bound_phrases(args["direction"], args["n"], *nouns))

    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=quantity or name,
            draw=draw,
            check=lambda text, args: within_bound(text.measure(name, value), args),
            phrasings=phrasings,
            ifeval=ifeval,
            excludes=frozenset(excludes),
            size=size,
            sides=sides,
        )
    )


def presence_function(
    name: str,
    family: str,
    present: Callable[[Features], bool],
    use: Sequence[str],
    avoid: Sequence[str],
    *,
    quantity: str | None = None,
    ifeval: Callable[[Args], IfEval | None] | None = None,
    excludes: Iterable[str] = (),
    sides: Sides = "two",
) -> InstructionFunction:
    """Register "use / do not use the thing"; `use[i]` and `avoid[i]` are the two sides of one wording.

    Argument: `use`, a bool. Each text's flag fixes it: True where a text that must satisfy has the thing.
    """

    def draw(case: Case, rng: random.Random) -> Args | None:
        sides = {text.measure(name, present) == flag for text, flag in case.flags}
        if len(sides) > 1:
            return None
        return {"use": sides.pop() if sides else rng.random() < 0.5}

    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=quantity or name,
            draw=draw,
            check=lambda text, args: text.measure(name, present) == bool(args["use"]),
            phrasings=lambda args: use if args["use"] else avoid,
            ifeval=ifeval,
            excludes=frozenset(excludes),
            sides=sides,
        )
    )


def exact_function(
    name: str,
    family: str,
    value: Callable[[Features], int],
    nouns: tuple[str, str],
    templates: Sequence[str],
    *,
    quantity: str | None = None,
    excludes: Iterable[str] = (),
    size: bool = False,
    least: int = 1,
) -> InstructionFunction:
    """Register "exactly n things", for what can be counted without doubt. Templates take `{count}`.

    The field is filled in as in "exactly 5 lines", and "no lines" for 0.

    Argument: `n`, from `least`. Where no text must satisfy, it lies one to three beside the value of one that must not.
    """

    def draw(case: Case, rng: random.Random) -> Args | None:
        values = [(text.measure(name, value), flag) for text, flag in case.flags]
        wanted = {number for number, flag in values if flag}
        if len(wanted) > 1:
            return None
        beside = [number + step for number, _ in values for step in (-3, -2, -1, 1, 2, 3) if number + step >= least]
        n = wanted.pop() if wanted else rng.choice(beside)
        if n < least:
            return None
        return {"n": n} if all((number == n) == flag for number, flag in values) else None

    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=quantity or name,
            draw=draw,
            check=lambda text, args: bool(text.measure(name, value) == args["n"]),
            phrasings=lambda args: fill(templates, count=exact_phrase(args["n"], *nouns)),
            excludes=frozenset(excludes),
            size=size,
        )
    )
