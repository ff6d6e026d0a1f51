"""Builders for most of the function set: counts with a bound, exact counts, and things to use or avoid."""

from __future__ import annotations

import operator
import random
import re
from collections.abc import Callable
from typing import TypeAlias

from mapl_ray.instructions.claims import Bound, all_of, bounded, used
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.thresholds import DIRECTIONS, draw_threshold, in_random_order, limits
from mapl_ray.instructions.types import Args, Case, IfEval, InstructionFunction, Sides, register
from mapl_ray.instructions.verdicts import Span, Verdict, wanted
from mapl_ray.instructions.wordings.templates import CountWords, ExactWords, UseWords

SpanOf: TypeAlias = Callable[[Features], Span]

_COMPARE: dict[str, Callable[[int, int], bool]] = {"at least": operator.ge, "at most": operator.le}


def count_name(name: str) -> str:
    """The name of the count that a function restricts: "bullet" for `bullet_count` and `bullet_exact`."""
    return re.sub(r"_(?:count|exact|use)\Z", "", name)


def within_bound(value: int, args: Args) -> bool:
    """Whether a count satisfies the bound given by `direction` and `n`."""
    return bool(_COMPARE[args["direction"]](value, args["n"]))


def span_verdict(span: Span, args: Args) -> Verdict:
    """Verdict on the bound given by `direction` and `n`: None if it holds for only some counts of the span."""
    return span.at_least(args["n"]) if args["direction"] == "at least" else span.at_most(args["n"])


def _spans(name: str, value: Callable[[Features], int], span: Callable[[Features], Span] | None) -> SpanOf:
    """The span of a text over all readings, including the documented one; computed once per text."""
    key = f"{name} span"

    def of(text: Features) -> Span:
        documented = text.measure(name, value)
        if span is None:
            return Span(documented, documented)
        one, other = span(text)  # the ends may come in any order
        return Span(min(documented, one, other), max(documented, one, other))

    return lambda text: text.measure(key, of)


def count_function(
    name: str,
    family: str,
    value: Callable[[Features], int],
    wordings: CountWords,
    *,
    span: SpanOf | None = None,
    quantity: str | None = None,
    least: int = 1,
    most: int | None = None,
    min_gap: int = 2,
    ifeval: Callable[[Args], IfEval | None] | None = None,
    size: bool = False,
    sides: Sides = "two",
    spaced: bool = False,
) -> InstructionFunction:
    """Register "at least / at most n things".

    Arguments: `direction` ("at least" or "at most") and `n`. The direction is drawn first, independently of the flags;
    `least` and `most` are the smallest and largest sensible thresholds. `span` gives the smallest and largest count
    under readings other than `value`; without it, all readings agree on `value`.
    """
    span_of = _spans(name, value, span)

    def draw(case: Case, rng: random.Random) -> Args | None:
        directions = in_random_order(DIRECTIONS, rng)
        documented = [(text.measure(name, value), flag) for text, flag in case.flags]
        # Try the documented reading first: if it leaves no threshold, the wider spans leave none either.
        if all(limits(documented, one, least=least, most=most, min_gap=min_gap) is None for one in directions):
            return None
        values = [(span_of(text), flag) for text, flag in case.flags]
        for direction in directions:
            n = draw_threshold(values, direction, rng, least=least, most=most, min_gap=min_gap)
            if n is not None:
                return {"direction": direction, "n": n}
        return None

    counted = quantity or count_name(name)
    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=counted,
            claims=lambda args: all_of(bounded(counted, args)),
            draw=draw,
            check=lambda text, args: within_bound(text.measure(name, value), args),
            phrasings=wordings.of,
            ifeval=ifeval,
            size=size,
            sides=sides,
            readings=lambda text, args: span_verdict(span_of(text), args),
            spaced=spaced,
            proven=True,
        )
    )


def presence_function(
    name: str,
    family: str,
    present: Callable[[Features], bool],
    wordings: UseWords,
    *,
    surely: Callable[[Features], Verdict] | None = None,
    quantity: str | None = None,
    absence: bool = False,
    without: tuple[Bound, ...] = (),
    ifeval: Callable[[Args], IfEval | None] | None = None,
    sides: Sides = "two",
    spaced: bool = False,
) -> InstructionFunction:
    """Register "use / do not use the thing".

    Argument: `use`, a bool, determined by each text's flag: True if a text that must satisfy has the thing. `surely`
    returns whether every reader finds the thing, or None if that is arguable; without it, all readings agree.
    `without` are bounds that also hold if the thing is forbidden.
    """

    key = f"{name} seen"

    def of(text: Features) -> Verdict:
        there = text.measure(name, present)
        return there if surely is None or surely(text) is there else None

    def seen(text: Features) -> Verdict:
        return text.measure(key, of)

    def draw(case: Case, rng: random.Random) -> Args | None:
        # Try the documented reading first: if it rules the draw out, the others need not be computed.
        if len({text.measure(name, present) is flag for text, flag in case.flags}) > 1:
            return None
        sides = {wanted(seen(text), flag) for text, flag in case.flags}
        if len(sides) > 1 or None in sides:
            return None
        return {"use": sides.pop() if sides else rng.random() < 0.5}

    counted = quantity or count_name(name)
    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=counted,
            claims=lambda args: all_of(used(counted, bool(args["use"]) != absence), *(() if args["use"] else without)),
            draw=draw,
            check=lambda text, args: text.measure(name, present) == bool(args["use"]),
            phrasings=wordings.of,
            ifeval=ifeval,
            sides=sides,
            readings=lambda text, args: wanted(seen(text), bool(args["use"])),
            spaced=spaced,
            proven=True,
        )
    )


def exact_function(
    name: str,
    family: str,
    value: Callable[[Features], int],
    wordings: ExactWords,
    *,
    span: SpanOf | None = None,
    quantity: str | None = None,
    size: bool = False,
    least: int = 1,
) -> InstructionFunction:
    """Register "exactly n things", for things that can be counted without doubt.

    Argument: `n`, at least `least`. If no text must satisfy, it differs by one to three from the value of a text that
    must not. `span` is as in `count_function`.
    """
    span_of = _spans(name, value, span)

    def draw(case: Case, rng: random.Random) -> Args | None:
        spans = [(span_of(text), flag) for text, flag in case.flags]
        inside = {span for span, flag in spans if flag}
        if len(inside) > 1:
            return None
        if inside:
            n, most = inside.pop()
            return {"n": n} if n == most and n >= least else None
        beside = [n for span, _ in spans for d in (1, 2, 3) for n in (span.fewest - d, span.most + d) if n >= least]
        return {"n": rng.choice(beside)}

    counted = quantity or count_name(name)
    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=counted,
            claims=lambda args: all_of(Bound(counted, args["n"], args["n"])),
            draw=draw,
            check=lambda text, args: bool(text.measure(name, value) == args["n"]),
            phrasings=wordings.of,
            size=size,
            readings=lambda text, args: span_of(text).within(args["n"], args["n"]),
        )
    )
