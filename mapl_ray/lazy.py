"""Lazy imports: a package's public names are imported from their modules on first use.

torch, transformers and DeepSpeed take seconds to import. A package that re-exports names from many modules would load
all of them for a caller that needs one small function.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> Callable[[str], Any]:
    """Return a `__getattr__` (PEP 562) for a package whose imports are below `if TYPE_CHECKING:`.

    Type checkers and editors read them there; at run time each name is imported when it is first used.

    Args:
        package: the package's own `__name__`.
        file: its `__file__`.

    The returned function raises `AttributeError` for any other name.
    """
    module_of = _imports(file)

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)  # later uses bypass this function
        return value

    return get


def _imports(file: str) -> dict[str, str]:
    """The module of every name that the file imports below `if TYPE_CHECKING:`."""
    body = ast.parse(Path(file).read_text(encoding="utf-8")).body
    checked = [
        statement
        for node in body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for statement in node.body
    ]
    return {
        alias.name: str(statement.module)
        for statement in checked
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
