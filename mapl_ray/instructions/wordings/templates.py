"""Sets of templates: the wordings of an instruction in both directions, with the same number in each.

A wording is selected only by its index. Because both directions have the same number of templates, an index reveals
nothing about the direction, the numbers or whether a response complies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mapl_ray.instructions.phrasing import Wordings, fill

Templates = tuple[str, ...]
MIN_WORDINGS = 6


@dataclass(frozen=True, slots=True)
class CountWords:
    """Wordings of "at least n things", "at most n things" and, for at most 0 or exactly 0, "no things".

    Fields: `{n}` (1 is spelled out), `{things}` (the noun, singular or plural as `n` needs), `{many}` (the plural).
    """

    at_least: Templates
    at_most: Templates
    none: Templates
    nouns: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        _check(self.at_least, self.at_most, self.none)

    def of(self, args: Mapping[str, Any], **values: object) -> Wordings:
        """All wordings of the bound given by `direction` and `n`; `values` fill in the other fields."""
        if args["direction"] == "at least":
            # Nobody writes "no fewer than one comma".
            templates = self.at_least
            if args["n"] == 1:
                templates = tuple(template.replace("no fewer than", "at least") for template in templates)
        else:
            templates = self.at_most if args["n"] else self.none
        return fill(templates, **_number(args["n"], self.nouns), **values)


@dataclass(frozen=True, slots=True)
class ExactWords:
    """Wordings of "exactly n things" and "no things"; fields as in `CountWords`. `one` replaces `exactly` for n = 1."""

    exactly: Templates
    none: Templates
    nouns: tuple[str, str] = ("", "")
    one: Templates = ()

    def __post_init__(self) -> None:
        _check(self.exactly, self.none, self.one or self.exactly)

    def of(self, args: Mapping[str, Any], **values: object) -> Wordings:
        """All wordings of the number `n`."""
        exactly = self.one if self.one and args["n"] == 1 else self.exactly
        return fill(exactly if args["n"] else self.none, **_number(args["n"], self.nouns), **values)


@dataclass(frozen=True, slots=True)
class UseWords:
    """Wordings of "use the thing" and of "do not use it"."""

    use: Templates
    avoid: Templates

    def __post_init__(self) -> None:
        _check(self.use, self.avoid)

    def of(self, args: Mapping[str, Any], **values: object) -> Wordings:
        """All wordings of the side given by `use`, which is true by default."""
        return fill(self.use if args.get("use", True) else self.avoid, **values)


def count_words(singular: str, plural: str) -> CountWords:
    """Wordings for a countable thing: commas, bullet points, headings."""
    return CountWords(
        at_least=(
            "Use at least {n} {things}.",
            "Your response should contain at least {n} {things}.",
            "Include {n} or more {many} in your answer.",
            "Make sure your answer has no fewer than {n} {things}.",
            "The response must include a minimum of {n} {things}.",
            "I want to see at least {n} {things} in your reply.",
            "There should be at least {n} {things} in the response.",
        ),
        at_most=(
            "Use at most {n} {things}.",
            "Your response should contain at most {n} {things}.",
            "Do not use more than {n} {things} in your answer.",
            "Make sure your answer has no more than {n} {things}.",
            "The response must not contain more than {n} {things}.",
            "I don't want to see more than {n} {things} in your reply.",
            "There should be no more than {n} {things} in the response.",
        ),
        none=(
            "Use no {many}.",
            "Your response should contain no {many}.",
            "Do not use any {many} in your answer.",
            "Make sure your answer has no {many}.",
            "The response must not contain any {many}.",
            "I don't want to see any {many} in your reply.",
            "There should be no {many} in the response.",
        ),
        nouns=(singular, plural),
    )


def exact_words(singular: str, plural: str) -> ExactWords:
    """Wordings of an exact number of things."""
    return ExactWords(
        exactly=(
            "Use exactly {n} {things}.",
            "Your response should contain exactly {n} {things}.",
            "Include {n} {things} in your answer, no more and no fewer.",
            "Make sure your answer has exactly {n} {things}.",
            "The response must include exactly {n} {things}.",
            "I want exactly {n} {things} in your reply.",
            "There should be exactly {n} {things} in the response.",
        ),
        none=count_words(singular, plural).none,
        nouns=(singular, plural),
    )


def use_words(singular: str, plural: str) -> UseWords:
    """Wordings for a thing to use or avoid. `singular` has an article: "a comma"."""
    article, _, one = singular.partition(" ")
    return UseWords(
        use=tuple(
            template.format(one=one, a=f"{article} {one}", many=plural)
            for template in (
                "Use at least one {one}.",
                "Your response should contain at least one {one}.",
                "Include {a} somewhere in your answer.",
                "Make sure there is at least one {one} in your answer.",
                "The response must include {a}.",
                "I want to see one or more {many} in your reply.",
                "There should be at least one {one} in the response.",
            )
        ),
        avoid=tuple(template.format(many=plural) for template in count_words("", "").none),
    )


def _number(n: int, nouns: tuple[str, str]) -> dict[str, object]:
    singular, plural = nouns
    return {"n": "one" if n == 1 else n, "things": singular if n == 1 else plural, "many": plural}


def _check(*sides: Templates) -> None:
    if len({len(side) for side in sides}) != 1 or len(sides[0]) < MIN_WORDINGS:
        raise ValueError(f"expected equally many wordings in each direction, at least {MIN_WORDINGS}; got {sides}")
