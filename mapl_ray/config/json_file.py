"""JSON files that a user names, in which every object has every key once.

The standard library takes the last one of two equal keys and reports nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError


def read_json_object(path: str | Path, named: str) -> dict[str, Any]:
    """The object in a file; `named` is how the user gave it. Raises `UserError` for a file that is no JSON object."""
    try:
        values = load_json(Path(path).read_text(encoding="utf-8"))
    except DuplicateKeyError as error:
        raise UserError(f"{named}: {error}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{named}: not a readable JSON file: {error}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{named}: expected an object at the top, got {type(values).__name__}.")
    return values


class DuplicateKeyError(ValueError):
    """An object that has a key twice."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} occurs twice in an object; expected every key once. Remove one of the two")


class _Twice(dict[str, Any]):
    """An object that had a key twice, where the whole text is not to be given up for it."""

    key: str = ""


def load_json(text: str, keep: bool = False) -> Any:
    """The value of a JSON text. Raises `DuplicateKeyError`; with `keep`, `duplicate_key` finds such objects later."""

    return (_MARKING if keep else _RAISING).decode(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DuplicateKeyError(_twice(pairs))
    return found


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    marked = _Twice(found)
    marked.key = _twice(pairs)
    return marked


def _twice(pairs: list[tuple[str, Any]]) -> str:
    counts = Counter(key for key, _ in pairs)
    return next(key for key, number in counts.items() if number > 1)


# Made once: `json.loads` with a hook makes a decoder at every call.
_RAISING, _MARKING = (json.JSONDecoder(object_pairs_hook=hook) for hook in (_once, _marked))


def duplicate_key(value: Any) -> DuplicateKeyError | None:
    """What `load_json(..., keep=True)` found in a value, however nested; None where every key was there once."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, _Twice):
            return DuplicateKeyError(one.key)
        if isinstance(one, dict | list):
            left.extend(one.values() if isinstance(one, dict) else one)
    return None
