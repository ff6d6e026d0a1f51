"""Expansion of `~` and variables in texts that name a file, folder, URI or model.

`~`, `~user`, `$NAME` and `${NAME}` are expanded as in a shell, in YAML files, overrides and options. An unknown name is
an error, so that no folder is created with the name `$SCRATCH`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

AS_WRITTEN = "as_written"  # in the validation context: nothing is expanded

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


def expanded(text: str) -> str:
    """Expand variables and `~` in a text, unless a file with exactly that name exists.

    Raises `ValueError` for an empty text, a variable that is not set, and an unknown user.
    """
    if not text.strip():
        raise ValueError("expected a path or a name, got an empty text")
    if ("~" not in text and "$" not in text) or _exists(text):
        return text
    text = _VARIABLE.sub(_value, text)
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    if path.startswith("~") and not _exists(path):
        user = path.partition("/")[0]
        raise ValueError(f"no user {user[1:]!r} on this machine; write ./{user} for a file with that name")
    return path


def _validated(text: str, info: ValidationInfo) -> str:
    return text if text.strip() and (info.context or {}).get(AS_WRITTEN) else expanded(text)


PathText = Annotated[str, AfterValidator(_validated)]


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"${name} is not set: set it, or write the full path")
    return value


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # the text is too long for a file name
        return False
