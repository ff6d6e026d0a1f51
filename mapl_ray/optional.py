"""Packages that only some options need."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from mapl_ray.errors import UserError


def require(option: str, packages: Iterable[str], otherwise: str) -> None:
    """Raises `UserError` naming the option, the packages that are missing here, and two cures."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise UserError(
            f"{option}: not installed here: {', '.join(missing)}. Run `pip install {' '.join(missing)}`, on every "
            f"node, or {otherwise}."
        )
