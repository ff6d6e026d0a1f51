"""Reject control characters and passwords in the texts of a config.

A config is copied into jobs, logs, model cards and checkpoints, so a secret in it would leak into all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mapl_ray.errors import UserError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)


def check_texts(values: Mapping[Any, Any], where: str) -> None:
    """Raise `UserError`, with the key, for a control character or a password anywhere in plain values.

    The message never shows the text itself.
    """
    for key, text in _texts(values, ()):
        if _CONTROL.search(text):
            raise UserError(f"{where}: {key} contains a control character (a line break, a NUL, ...). Remove it.")
        if _has_password(text):
            raise UserError(
                f"{where}: {key}: a password in an address ends up in jobs, logs and artifacts. Remove it, and set "
                "the credentials in the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )


def _has_password(text: str) -> bool:
    found = _AUTHORITY.match(text)
    if found is None:
        return False
    authority, rest = found.groups()
    user, at, _ = authority.rpartition("@")
    if at:
        return ":" in user
    # An unescaped "/" in a secret ends the host early; the text between ":" and "/" is then no port.
    _, colon, port = authority.rpartition(":")
    return bool(colon) and not port.isdecimal() and not authority.endswith("]") and "@" in rest


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every text below a value, including the keys of mappings."""
    if isinstance(value, str):
        yield ".".join(keys), value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield ".".join((*keys, "a key")), key
            yield from _texts(inner, (*keys, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _texts(inner, (*keys, str(index)))
