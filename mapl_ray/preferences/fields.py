"""Read and check single values of a raw row: text, numbers, ids, margins and judgements."""

from __future__ import annotations

import math
import re
import reprlib
import unicodedata
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from mapl_ray.data.records import Judgement

# Invisible characters with the category of letters or symbols: Hangul fillers and the blank Braille pattern.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
# Other invisible characters: soft hyphen, zero-width characters, direction marks, byte order mark.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_EXACT_FLOATS = 2**53  # from here on, neighboring integers round to the same float


class RowError(Exception):
    """A row that cannot be used; the message becomes the reason of its `Rejection`."""

    def __init__(self, field: str, problem: str, expected: str, value: Any = None) -> None:
        # repr escapes NUL and lone surrogates, so that the reason can always be written to a file.
        self._field, self._shown = field, "" if value is None else f"={_SHORT.repr(value)}"
        self._rest = f": {problem}; expected {expected}"
        super().__init__(self.reason({}))

    def reason(self, names: Mapping[str, str]) -> str:
        """The message, with the field under the name that it has in the row."""
        field = self._field
        head = field[: next((i for i, char in enumerate(field) if not (char.isalnum() or char == "_")), len(field))]
        return names.get(head, head) + field[len(head) :] + self._shown + self._rest


def text(field: str, value: Any) -> str:
    """Return the value if it is text with visible characters. Raises `RowError` otherwise."""
    if value is None:
        raise RowError(field, "missing", "text")
    if not isinstance(value, str):
        raise RowError(field, f"a {type(value).__name__}", "text", value)
    if not visible(value):
        raise RowError(field, "empty", "text", value)
    if "\0" in value:
        raise RowError(field, "has a NUL character", "text without NUL", value)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(field, f"has a lone surrogate at {error.start}", "text that is valid Unicode", value) from None
    return value


def visible(value: str) -> bool:
    """Whether a text has any visible character: not just white space and invisible ones such as U+200B."""
    return "!" <= value[:1] <= "~" or any(not _shows_nothing(char) for char in value)


def same_text(value: str) -> str:
    """Normal form in which texts that look alike are equal: NFC, stripped, without invisible characters."""
    if value.isascii():
        return value.strip()
    composed = value if unicodedata.is_normalized("NFC", value) else unicodedata.normalize("NFC", value)
    return _INVISIBLE.sub("", composed).strip()


def blank(value: Any) -> bool:
    """Whether a value counts as missing: null, NaN (tables write missing text so), or empty or white-space text."""
    return value is None or (isinstance(value, str) and not value.strip()) or _is_nan(value)


def number(field: str, value: Any) -> float | None:
    """Return the value as a finite float, or None if it is missing. Raises `RowError` for anything else."""
    if blank(value):
        return None
    try:
        found = math.inf if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.inf
    if math.isinf(found):
        raise RowError(field, "not a finite number", "a number or nothing", value)
    return None if math.isnan(found) else found  # "nan" as text


def own_id(values: Mapping[str, Any]) -> str:
    """The row's id as text, or "" if it has none. 1.0 becomes "1": pandas writes integers with missing values so."""
    for name in ("pair_id", "id"):
        value = values.get(name)
        if blank(value):
            continue
        if isinstance(value, float | Decimal):
            if not _is_whole(value):
                raise RowError(name, "not a whole number below 2**53", "text or a whole number", value)
            value = int(value)
        if isinstance(value, int | uuid.UUID) and not isinstance(value, bool):
            return str(value)
        return text(name, value)
    return ""


def row_margin(values: Mapping[str, Any]) -> float | None:
    """The row's `margin`, or else `score_chosen` minus `score_rejected`; None if it has neither."""
    found = number("margin", values.get("margin"))
    if found is not None:
        return found
    high, low = (number(name, values.get(name)) for name in ("score_chosen", "score_rejected"))
    return None if high is None or low is None else high - low


def judgements(value: Any) -> tuple[Judgement, ...]:
    """Read a judge's answers: a list of {name, chosen, rejected}. Raises `RowError` for anything else."""
    expected = "a list of {name, chosen, rejected}, p(yes) from 0 to 1"
    if blank(value):
        return ()
    if not isinstance(value, list):
        raise RowError("judgements", f"a {type(value).__name__}", expected, value)
    found: dict[str, Judgement] = {}
    for index, item in enumerate(value):
        where = f"judgements[{index}]"
        if not isinstance(item, Mapping):
            raise RowError(where, f"a {type(item).__name__}", expected, item)
        name = text(f"{where}.name", item.get("name"))
        if name in found:
            raise RowError(f"{where}.name", "judged already", "one judgement per function", name)
        p = {side: number(f"{where}.{side}", item.get(side)) for side in ("chosen", "rejected")}
        chosen, rejected = p["chosen"], p["rejected"]
        if chosen is None or rejected is None or not (0.0 <= chosen <= 1.0 and 0.0 <= rejected <= 1.0):
            raise RowError(where, "not two probabilities", expected, p)
        found[name] = Judgement(name, chosen, rejected)
    return tuple(found.values())


def _is_whole(value: float | Decimal) -> bool:
    if not math.isfinite(value) or value != int(value):
        return False
    return isinstance(value, Decimal) or abs(value) < _EXACT_FLOATS


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | Decimal) and value != value


def _shows_nothing(char: str) -> bool:
    return char.isspace() or char in _FILLERS or unicodedata.category(char) in ("Cf", "Cc")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60
