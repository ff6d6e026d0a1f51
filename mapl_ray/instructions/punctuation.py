"""Instructions on punctuation: counts of marks, and marks to use or avoid."""

from __future__ import annotations

import re
from collections.abc import Callable

from mapl_ray.instructions.builders import count_function, presence_function
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.ifeval import at_bound
from mapl_ray.instructions.signs import marks_span
from mapl_ray.instructions.types import Args, IfEval, InstructionFunction
from mapl_ray.instructions.verdicts import Span
from mapl_ray.instructions.wordings import marks
from mapl_ray.instructions.wordings.templates import UseWords

_FAMILY = "punctuation"
_QUESTION_MARKS = "?\uff1f\u061f"
_DOUBLE_QUOTES = '"\u201c\u201d\u201e\u00ab\u00bb'
_OTHER_COMMAS = "\u060c\u3001\uff0c\u055d\u1363\ufe50\ufe51"  # marks of other scripts that some readers call commas


# IFEval searches a keyword as a pattern without word boundaries. Only the comma is mapped: the other marks have several
# characters each or a special meaning in a pattern.
def _ifeval_comma(args: Args) -> IfEval:
    return ("keywords:existence", {"keywords": [","]}) if args["use"] else ("punctuation:no_comma", {})


def _ifeval_commas(args: Args) -> IfEval | None:
    return at_bound("keywords:frequency", args, number="frequency", relation="relation", keyword=",")


def _contains(signs: str) -> Callable[[Features], bool]:
    return lambda text: any(sign in text.text for sign in signs)


def _span(key: str, signs: str, others: str, clear: str) -> Callable[[Features], Span]:
    """Number of a mark under all readings: from the matches of `clear` in prose to all `signs` and `others`."""
    pattern = re.compile(clear)
    return lambda text: text.measure(
        f"{key} marks", lambda text: marks_span(text.text, text.punctuated, signs + others, pattern)
    )


_COMMAS = _span("comma", ",", _OTHER_COMMAS, r",(?!\d)")
_COLONS = _span("colon", ":\uff1a", "\ufe55\u02d0\u2236\u05c3", r":(?![:\d/])|\uff1a")
_QUESTIONS = _span(
    "question", _QUESTION_MARKS, "\u2047\u2048\u2049\u00bf\u037e\u203d\u2753\u2754\u055e", f"[{_QUESTION_MARKS}]"
)
_EXCLAMATIONS = _span(
    "exclamation", "!\uff01", "\u203c\u2048\u2049\u00a1\u203d\u2755\u2757\u055c", r"[!\uff01](?![\[=\w])"
)
_SEMICOLONS = _span("semicolon", ";\uff1b", "\u061b\u037e\ufe54", r"[;\uff1b]")
# A bracket in prose has words inside and is not a list number.
_BRACKETS = _span(
    "bracket",
    "()\uff08\uff09",
    "\ufe59\ufe5a\u207d\u2768",
    r"[(\uff08][^()\n]{0,200}[^\W\d_]{2}[^()\n]{0,200}[)\uff09]",
)
_QUOTES = _span("quote", _DOUBLE_QUOTES, "\u300c\u300e\u2033\u301d\uff02\u201f", f"(?<![0-9])[{_DOUBLE_QUOTES}]")
_DASHES = _span("dash", "\u2013\u2014", "\u2012\u2015\u2212\u2e3a", "[\u2013\u2014]")


def _mark_function(
    name: str,
    signs: str,
    span: Callable[[Features], Span],
    wordings: UseWords,
    ifeval: Callable[[Args], IfEval | None] | None = None,
) -> InstructionFunction:
    return presence_function(
        name,
        _FAMILY,
        _contains(signs),
        wordings,
        surely=lambda text: span(text).at_least(1),
        ifeval=ifeval,
    )


comma_count = count_function(
    "comma_count",
    _FAMILY,
    lambda text: text.text.count(","),
    marks.COMMA_COUNT,
    span=_COMMAS,
    ifeval=_ifeval_commas,
    size=True,
)

comma_use = _mark_function("comma_use", ",", _COMMAS, marks.COMMA_USE, _ifeval_comma)
exclamation_mark_use = _mark_function("exclamation_mark_use", "!\uff01", _EXCLAMATIONS, marks.EXCLAMATION_MARK_USE)
question_mark_use = _mark_function("question_mark_use", _QUESTION_MARKS, _QUESTIONS, marks.QUESTION_MARK_USE)
colon_use = _mark_function("colon_use", ":\uff1a", _COLONS, marks.COLON_USE)
semicolon_use = _mark_function("semicolon_use", ";\uff1b", _SEMICOLONS, marks.SEMICOLON_USE)
bracket_use = _mark_function("bracket_use", "()\uff08\uff09", _BRACKETS, marks.BRACKET_USE)
quotation_mark_use = _mark_function("quotation_mark_use", _DOUBLE_QUOTES, _QUOTES, marks.QUOTATION_MARK_USE)
dash_use = _mark_function("dash_use", "\u2013\u2014", _DASHES, marks.DASH_USE)

colon_count = count_function(
    "colon_count",
    _FAMILY,
    lambda text: text.text.count(":") + text.text.count("\uff1a"),
    marks.COLON_COUNT,
    span=_COLONS,
    size=True,
)

question_mark_count = count_function(
    "question_mark_count",
    _FAMILY,
    lambda text: sum(map(text.text.count, _QUESTION_MARKS)),
    marks.QUESTION_MARK_COUNT,
    span=_QUESTIONS,
    size=True,
)

exclamation_mark_count = count_function(
    "exclamation_mark_count",
    _FAMILY,
    lambda text: text.text.count("!") + text.text.count("\uff01"),
    marks.EXCLAMATION_MARK_COUNT,
    span=_EXCLAMATIONS,
    size=True,
)
