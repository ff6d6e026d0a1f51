"""Instructions on what ordinary text does not do: it violates "do it" and satisfies "do not do it"."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence

from mapl_ray.instructions.claims import Claims, absent, all_of, present
from mapl_ray.instructions.features import Features
from mapl_ray.instructions.types import Args, Case, IfEval, InstructionFunction, register
from mapl_ray.instructions.verdicts import Verdict, wanted
from mapl_ray.instructions.wordings import persons
from mapl_ray.instructions.wordings.templates import UseWords

_TITLE = re.compile(r"^[ \t#*_]*<<[ \t]*[^\W_][^<>\n]*>>[ \t*_]*$", re.MULTILINE)
_STREAM = re.compile(r"\b(?:cin|cout|cerr|std)\b|;[ \t]*$|<<[ \t]*\d", re.MULTILINE)
# A name of at least two letters, which is not an index, citation, link or part of a formula.
_PLACEHOLDER = re.compile(r"(?<![\w\\\])])\[[ \t]*[^\W\d_][^\W_][^\[\]\n=\\^+*/{}]{0,60}\](?![(\[:])")
_QUOTES = frozenset("\"\u201c\u201d\u201e\u00ab\u00bb'\u2018\u2019")


def unusual_function(
    name: str,
    family: str,
    holds: Callable[[Features], bool],
    surely: Callable[[Features], Verdict],
    wordings: UseWords,
    *,
    ifeval: IfEval | None = None,
    rules_out: Sequence[str] = (),
    counts: Sequence[str] = (),
) -> InstructionFunction:
    """Register a function for something that ordinary text does not do.

    Argument: `use`, a bool, true by default. If it is done, the counts `rules_out` are 0 and the counts `counts` are 1.
    """

    def draw(case: Case, rng: random.Random) -> Args | None:
        sides = {wanted(surely(text), flag) for text, flag in case.flags}
        if len(sides) > 1 or None in sides:
            return None
        return {"use": sides.pop() if sides else rng.random() < 0.5}

    def claims(args: Args) -> Claims:
        return (
            all_of(present(name), *map(present, counts), *map(absent, rules_out))
            if args.get("use", True)
            else all_of(absent(name))
        )

    return register(
        InstructionFunction(
            name=name,
            family=family,
            quantity=name,
            draw=draw,
            check=lambda text, args: holds(text) == bool(args.get("use", True)),
            readings=lambda text, args: wanted(surely(text), bool(args.get("use", True))),
            phrasings=wordings.of,
            ifeval=None if ifeval is None else lambda args: ifeval if args.get("use", True) else None,
            claims=claims,
        )
    )


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _parsed(text: str) -> object:
    """Parse the text as JSON; raises `ValueError` or `RecursionError` if it is not JSON."""
    return json.loads(text, parse_constant=_no_constant)


def _is_json(text: Features) -> bool:
    try:
        _parsed(text.text)
    except (ValueError, RecursionError):  # includes numbers with too many digits
        return False
    return True


def _surely_json(text: Features) -> Verdict:
    """True for an object or list; None for a quoted sentence or number (JSON to a parser only) and for code blocks."""
    try:
        return True if isinstance(_parsed(text.text), dict | list) else None
    except (ValueError, RecursionError):
        pass
    return None if text.text.strip().startswith(("{", "[", "```", "~~~")) else False


def _surely_titled(text: Features) -> Verdict:
    """Verdict on a title in <<>>; None if it may be code: streams, shifts, templates, generics."""
    if not _has_title(text):
        return False
    prose = "\n".join(text.prose_lines)
    return True if _TITLE.search(prose) and not _STREAM.search(prose) else None


def _surely_placed(text: Features) -> Verdict:
    """True if at least three brackets hold a name, False if there are no brackets at all, else None.

    People do not call citations, indices, links, check boxes and LaTeX placeholders; one or two placeholders are
    neither the three that are requested nor none.
    """
    if len(_PLACEHOLDER.findall(text.punctuated)) >= 3:
        return True
    return None if _placeholders(text) else False


def _in_quotes(text: Features) -> bool:
    whole = text.text.strip()
    return len(whole) > 1 and whole[0] == whole[-1] == '"'


def _surely_in_quotes(text: Features) -> Verdict:
    """Verdict on a text in double quotes; None if a quotation ends before the text does, or for other marks."""
    whole = text.text.strip()
    if _in_quotes(text):
        return None if '"' in whole[1:-1] else True
    return None if whole[:1] in _QUOTES and whole.rstrip(".!?")[-1:] in _QUOTES else False


def _is_small(text: Features) -> bool:
    return text.text == text.lower and any(sign.islower() for sign in text.text)


def _has_title(text: Features) -> bool:
    # Like IFEval, which searches `<<[^\n]+>>` and requires a non-empty rest without the marks.
    titles = (line[line.find("<<") : line.rfind(">>") + 2] for line in text.text.split("\n") if "<<" in line)
    return any(len(title) > 4 and title.lstrip("<").rstrip(">").strip() for title in titles)


def _placeholders(text: Features) -> int:
    # Placeholders as in "Dear [name]" (IFEval's `number_placeholders`). Same matches as IFEval's `\[.*?\]`, without
    # searching the end of each bracket again.
    found = 0
    for line in text.text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) > 0:
            found += 1
            start = line.find("[", end)
    return found


all_small_letters = unusual_function(
    "all_small_letters",
    "case",
    _is_small,
    _is_small,
    persons.SMALL_LETTERS,
    rules_out=("capitals",),
)

json_only = unusual_function(
    "json_only",
    "format",
    _is_json,
    _surely_json,
    persons.JSON_ONLY,
    rules_out=("prose", "markdown", "in_quotation_marks", "paragraph"),
)

marked_title = unusual_function(
    "marked_title",
    "format",
    _has_title,
    _surely_titled,
    persons.MARKED_TITLE,
    ifeval=("detectable_format:title", {}),
)

placeholders = unusual_function(
    "placeholders",
    "format",
    lambda text: _placeholders(text) >= 3,
    _surely_placed,
    persons.PLACEHOLDERS,
    ifeval=("detectable_content:number_placeholders", {"num_placeholders": 3}),
)

in_quotation_marks = unusual_function(
    "in_quotation_marks",
    "punctuation",
    _in_quotes,
    _surely_in_quotes,
    persons.IN_QUOTATION_MARKS,
    ifeval=("startend:quotation", {}),
    rules_out=("ending",),
)
