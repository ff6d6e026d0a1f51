"""Import user modules with instruction functions, on every process that uses a config that names them.

A module is named by its import path (`my_package.functions`) or the path of its `.py` file. Nothing is copied: on a
cluster the module must be installed on every node, or the file must be on storage that all nodes share. Modules are
executed, so name only code that you trust.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from mapl_ray.config import SynthesisConfig
from mapl_ray.errors import UserError
from mapl_ray.instructions.types import all_or_none

_CURE = (
    "Name a module that Python can import, or the path of a .py file; on a cluster it must be installed on every node, "
    "or be on storage that all nodes share."
)
_IMPORTED: dict[str, tuple[Path, str]] = {}  # name in the config -> source file, its sha256 when it was imported


def load_modules(modules: Sequence[str]) -> None:
    """Import the modules, which registers their functions. Modules that were imported before are skipped.

    Raises `UserError` naming module, line and error, and removes functions that the failed module had registered.
    """
    for name in modules:
        if name not in _IMPORTED:
            origin = _origin(name)
            digest = _sha256(origin)
            if not _is_there(origin):
                _import(name, origin)
            _IMPORTED[name] = (origin, digest)


def module_digests(modules: Sequence[str]) -> list[str]:
    """sha256 of every module's source file, without the files that it imports. Imports modules if needed.

    Raises `UserError` as `load_modules` does, and for a file that has changed since this process imported it.
    """
    load_modules(modules)
    for name in modules:
        origin, digest = _IMPORTED[name]
        if _sha256(origin) != digest:
            raise UserError(
                f"synthesis.modules: {origin} has changed since this process imported it. Start the command again."
            )
    return [_IMPORTED[name][1] for name in modules]


def with_absolute_paths(config: SynthesisConfig) -> SynthesisConfig:
    """Copy of the config with absolute module paths, for workers, which do not start in the driver's folder."""
    modules = (str(Path(name).expanduser().resolve()) if is_path(name) else name for name in config.modules)
    return config.model_copy(update={"modules": tuple(modules)})


def is_path(module: str) -> bool:
    """Whether a module is named by the path of its file."""
    return module.endswith(".py") or "/" in module or "\\" in module


def _origin(name: str) -> Path:
    """The module's source file."""
    if is_path(name):
        path = Path(name).expanduser().resolve()
        if "://" in name or path.suffix != ".py" or not path.is_file():
            raise UserError(f"synthesis.modules: {name!r} is not a .py file on this machine ({path}). {_CURE}")
        return path
    try:
        spec = importlib.util.find_spec(name)
        why = ""
    except Exception as error:  # this imports the parent packages, which may raise anything
        spec, why = None, f" ({type(error).__name__}: {error})"
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise UserError(f"synthesis.modules: no module {name!r} with a source file on this machine{why}. {_CURE}")
    return Path(spec.origin).resolve()


def _is_there(origin: Path) -> bool:
    """Whether the file has already been imported, under any name."""
    files = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    return any(file is not None and Path(file).name == origin.name and Path(file).resolve() == origin for file in files)


def _import(name: str, origin: Path) -> None:
    try:
        with all_or_none():
            if is_path(name):
                _execute(origin)
            else:
                importlib.import_module(name)
    except (Exception, SystemExit) as error:
        file, line = _place(error, origin)
        raise UserError(
            f"synthesis.modules: importing {name!r} failed at {file}, line {line}: {type(error).__name__}: {error}"
        ) from None


def _execute(origin: Path) -> ModuleType:
    name = f"mapl_user_{origin.stem}_{hashlib.sha256(str(origin).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, origin)
    if spec is None or spec.loader is None:
        raise ImportError(f"{origin} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as `import` does, because dataclasses look up their module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _place(error: BaseException, origin: Path) -> tuple[str, int | None]:
    """(file, line) of an error, in the module itself if possible."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).resolve() == origin]
    return str(origin), own[-1].lineno if own else None


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
