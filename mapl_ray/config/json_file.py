"""JSON files that a user names in a config or on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mapl_ray.config.unique_json import DuplicateKeyError, load_json
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
