"""Packages that only some options and commands need."""

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


def require_cluster_stack(command: str) -> None:
    """Raises `UserError` where Ray or DeepSpeed is missing, which every stage of `mapl` runs on."""
    if missing := [package for package in ("ray", "deepspeed") if find_spec(package) is None]:
        raise UserError(
            f"{command}: not installed here: {', '.join(missing)}. Run `pip install 'mapl_ray[cpu]'`, or "
            "`pip install 'mapl_ray[gpu]'` on a machine with NVIDIA GPUs. (MaplTrainer trains without them.)"
        )
