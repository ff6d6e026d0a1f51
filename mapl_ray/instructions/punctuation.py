"""Punctuation: counts of marks, and marks that are used or avoided."""

from __future__ import annotations

from collections.abc import Callable

from mapl_ray.instructions.builders import COUNT_TEMPLATES, count_function, presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.ifeval import at_bound
from mapl_ray.instructions.types import Args, IfEval, InstructionFunction

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
    name: str, signs: str, singular: str, plural: str, ifeval: Callable[[Args], IfEval | None] | None = None
) -> InstructionFunction:
    return presence_function(
        name,
        _FAMILY,
        _contains(signs),
        (
            f"Use at least one {singular}.",
            f"Your response should contain {plural}.",
            f"Include one or more {plural} in your answer.",
            f"There must be at least one {singular} in the answer.",
        ),
        (
            f"Use no {plural}.",
            f"Your response should not contain any {plural}.",
            f"Leave {plural} out of your answer entirely.",
            f"There must not be a single {singular} in the answer.",
        ),
        quantity=name.removesuffix("_use"),
        ifeval=ifeval,
    )


comma_count = count_function(
    "comma_count",
    _FAMILY,
    lambda text: text.text.count(","),
    ("comma", "commas"),
    COUNT_TEMPLATES,
    quantity="comma",
    ifeval=_ifeval_commas,
    size=True,
)

comma_use = _mark_function("comma_use", ",", "comma", "commas", _ifeval_comma)
exclamation_mark_use = _mark_function(
    "exclamation_mark_use",
    "!\uff01",
    "exclamation mark",
    "exclamation marks",
)
question_mark_use = _mark_function("question_mark_use", "?\uff1f", "question mark", "question marks")
colon_use = _mark_function("colon_use", ":\uff1a", "colon", "colons")
semicolon_use = _mark_function("semicolon_use", ";\uff1b", "semicolon", "semicolons")
bracket_use = _mark_function("bracket_use", "()\uff08\uff09", "round bracket", "round brackets")
quotation_mark_use = _mark_function(
    "quotation_mark_use", '"\u201c\u201d\u201e\u00ab\u00bb', "double quotation mark", "double quotation marks"
)
dash_use = _mark_function("dash_use", "\u2013\u2014", "dash (\u2013 or \u2014)", "dashes (\u2013 or \u2014)")

colon_count = count_function(
    "colon_count",
    _FAMILY,
    lambda text: text.text.count(":") + text.text.count("\uff1a"),
    ("colon", "colons"),
    COUNT_TEMPLATES,
    quantity="colon",
    size=True,
)

question_mark_count = count_function(
    "question_mark_count",
    _FAMILY,
    lambda text: text.text.count("?") + text.text.count("\uff1f"),
    ("question mark", "question marks"),
    COUNT_TEMPLATES,
    quantity="question_mark",
    size=True,
)

exclamation_mark_count = count_function(
    "exclamation_mark_count",
    _FAMILY,
    lambda text: text.text.count("!") + text.text.count("\uff01"),
    ("exclamation mark", "exclamation marks"),
    COUNT_TEMPLATES,
    quantity="exclamation_mark",
    size=True,
)
