"""Read JSON files given by a user, and reject duplicate keys.

The standard library silently takes the last of two equal keys.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError


def read_json_object(path: str | Path, named: str) -> dict[str, Any]:
    """Read a JSON object. `named` is the option it came from, for messages. Raises `UserError` for anything else."""
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
    """An object has a duplicate key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the key {key!r} occurs twice in an object; expected every key once. Remove one of the two")


class _Twice(dict[str, Any]):
    """Marks an object with a duplicate key, so that the rest of the text can still be read."""

    key: str = ""


def load_json(text: str, keep: bool = False) -> Any:
    """Parse a JSON text. Raises `DuplicateKeyError`; with `keep`, `duplicate_key` finds such objects later."""

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


# Built once: `json.loads` with a hook builds a decoder in every call.
_RAISING, _MARKING = (json.JSONDecoder(object_pairs_hook=hook) for hook in (_once, _marked))


def duplicate_key(value: Any) -> DuplicateKeyError | None:
    """The error for the first duplicate key in a value of `load_json(..., keep=True)`; None if there is none."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, _Twice):
            return DuplicateKeyError(one.key)
        if isinstance(one, dict | list):
            left.extend(one.values() if isinstance(one, dict) else one)
    return None
