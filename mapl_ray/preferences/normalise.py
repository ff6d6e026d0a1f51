"""One normal form of text for whatever compares prompts and responses."""

from __future__ import annotations

import unicodedata


def normalise(text: str) -> str:
    """NFKC, case folded, runs of white space as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
