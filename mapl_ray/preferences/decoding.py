"""Columns that the `datasets` library decodes when a row is read: refused.

A value of `Image`, `Audio`, `Video` and the like may be a path or an address, which the library opens: whoever wrote
the data would choose what this machine reads or fetches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mapl_ray.errors import UserError

_PLAIN = ("Json",)  # parsed from the text itself


def refuse_decoding(features: Mapping[str, Any], where: str) -> None:
    """Raise `UserError` if any feature, however nested, is of a kind that decodes its values."""
    for column, feature in features.items():
        waiting = [feature]
        while waiting:
            kind = waiting.pop()
            if isinstance(kind, Mapping):
                waiting += kind.values()
            elif isinstance(kind, list | tuple):
                waiting += kind
            elif (inner := getattr(kind, "feature", None)) is not None:  # List, LargeList
                waiting.append(inner)
            elif _decodes(kind):
                raise UserError(
                    f"{where}: column {column!r} is of the feature type {type(kind).__name__}, whose values the "
                    "datasets library decodes from paths and addresses in the data. Expected text: write the column "
                    "as text, or leave it out (remove_columns)."
                )


def _decodes(kind: Any) -> bool:
    return hasattr(kind, "decode_example") and getattr(kind, "decode", True) and type(kind).__name__ not in _PLAIN
