"""Texts that name a file, a folder, an address or a model: one rule for all of them.

`~`, `~user`, `$NAME` and `${NAME}` stand for what they stand for in a shell, whoever wrote them: a YAML file, an
override, or an option. A name that can't be replaced is refused, so that no folder is called `$SCRATCH`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

AS_WRITTEN = "as_written"  # in the context of a validation: nothing is replaced

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))")


def expanded(text: str) -> str:
    """The text with its variables and its `~` replaced; a file of exactly that name is left as it is.

    Raises `ValueError` for an empty text, a variable that is not set, and the home of a user who is not there.
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
        raise ValueError(f"no user {user[1:]!r} on this machine; write ./{user} for a file of that name")
    return path


def _validated(text: str, info: ValidationInfo) -> str:
    return text if text.strip() and (info.context or {}).get(AS_WRITTEN) else expanded(text)


PathText = Annotated[str, AfterValidator(_validated)]


def _value(match: re.Match[str]) -> str:
    name = match[1] or match[2]
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"${name} is not set here: set it, or write the path out")
    return value


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # a text too long for a file's name
        return False
