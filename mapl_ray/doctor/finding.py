"""A finding of `mapl doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: level, subject, detail, and how to fix it."""

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    cure: str = ""
