"""Punctuation: counts of marks, and marks that are used or avoided."""

from __future__ import annotations

from collections.abc import Callable

from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.ifeval import at_bound
from mapl_ray.instructions.types import Args, IfEval, InstructionFunction
from mapl_ray.instructions.wordings import marks
from mapl_ray.instructions.wordings.templates import UseWords

_FAMILY = "punctuation"


# IFEval searches a keyword as a pattern without word ends. A comma is one that stands for itself; the other marks have
# more than one sign each, or mean something in a pattern.
def _ifeval_comma(args: Args) -> IfEval:
    return ("keywords:existence", {"keywords": [","]}) if args["use"] else ("punctuation:no_comma", {})


def _ifeval_commas(args: Args) -> IfEval | None:
    return at_bound("keywords:frequency", args, number="frequency", relation="relation", keyword=",")


def _contains(signs: str) -> Callable[[Features], bool]:
    return lambda text: any(sign in text.text for sign in signs)


def _mark_function(
    name: str, signs: str, wordings: UseWords, ifeval: Callable[[Args], IfEval | None] | None = None
) -> InstructionFunction:
    return presence_function(
        name, _FAMILY, _contains(signs), wordings, quantity=name.removesuffix("_use"), ifeval=ifeval
    )


comma_count = count_function(
    "comma_count",
    _FAMILY,
    lambda text: text.text.count(","),
    marks.COMMA_COUNT,
    quantity="comma",
    ifeval=_ifeval_commas,
    size=True,
)

comma_use = _mark_function("comma_use", ",", marks.COMMA_USE, _ifeval_comma)
exclamation_mark_use = _mark_function("exclamation_mark_use", "!\uff01", marks.EXCLAMATION_MARK_USE)
question_mark_use = _mark_function("question_mark_use", "?\uff1f", marks.QUESTION_MARK_USE)
colon_use = _mark_function("colon_use", ":\uff1a", marks.COLON_USE)
semicolon_use = _mark_function("semicolon_use", ";\uff1b", marks.SEMICOLON_USE)
bracket_use = _mark_function("bracket_use", "()\uff08\uff09", marks.BRACKET_USE)
quotation_mark_use = _mark_function("quotation_mark_use", '"\u201c\u201d\u201e\u00ab\u00bb', marks.QUOTATION_MARK_USE)
dash_use = _mark_function("dash_use", "\u2013\u2014", marks.DASH_USE)

colon_count = count_function(
    "colon_count",
    _FAMILY,
    lambda text: text.text.count(":") + text.text.count("\uff1a"),
    marks.COLON_COUNT,
    quantity="colon",
    size=True,
)

question_mark_count = count_function(
    "question_mark_count",
    _FAMILY,
    lambda text: text.text.count("?") + text.text.count("\uff1f"),
    marks.QUESTION_MARK_COUNT,
    quantity="question_mark",
    size=True,
)

exclamation_mark_count = count_function(
    "exclamation_mark_count",
    _FAMILY,
    lambda text: text.text.count("!") + text.text.count("\uff01"),
    marks.EXCLAMATION_MARK_COUNT,
    quantity="exclamation_mark",
    size=True,
)
