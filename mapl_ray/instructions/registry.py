"""All instruction functions by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from mapl_ray.errors import UserError

if TYPE_CHECKING:
    from mapl_ray.instructions.types import InstructionFunction

_FUNCTIONS: dict[str, InstructionFunction] = {}

REGISTRY: Mapping[str, InstructionFunction] = MappingProxyType(_FUNCTIONS)


def register(function: InstructionFunction) -> InstructionFunction:
    """Add a function to the registry; raises `UserError` where the name is taken."""
    if function.name in _FUNCTIONS:
        raise UserError(f"instruction function {function.name!r} is registered already. Choose another name.")
    _FUNCTIONS[function.name] = function
    return function


def lookup(name: str) -> InstructionFunction:
    """The function of that name; raises `UserError` with the known names."""
    try:
        return _FUNCTIONS[name]
    except KeyError:
        raise UserError(
            f"no instruction function {name!r}. Known: {', '.join(sorted(_FUNCTIONS))}. "
            "A function of your own must be imported before it is used."
        ) from None
