"""Check that the names and shapes of a checkpoint's weights are those of the model.

`from_pretrained` initializes a missing weight at random and ignores an unexpected one, and only logs a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError

_SHOWN = 5  # names in a message
HEAD = "score."  # the scalar head of a reward model
_OUTPUT = "lm_head."  # the output layer of a policy, which a reward model does not have


def check_loaded(path: str | Path, info: Mapping[str, Any], *, fresh_head: bool = False) -> bool:
    """Check the loading info of `from_pretrained`; returns whether the reward head must be initialized.

    `fresh_head`: accept a checkpoint without the reward head, and with a policy's output layer, as at the start of
    training. Raises `UserError` with the names of all other weights that are missing, unexpected or of another shape.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    headless = fresh_head and any(name.startswith(HEAD) for name in missing)
    if headless:
        missing = [name for name in missing if not name.startswith(HEAD)]
        unexpected = [name for name in unexpected if not name.startswith(_OUTPUT)]
    shapes = [f"{name} {list(there)}, expected {list(here)}" for name, there, here in sorted(info["mismatched_keys"])]
    refuse(path, missing, unexpected, shapes, [*info.get("error_msgs", ())])
    return headless


def refuse(
    path: str | Path,
    missing: Iterable[str],
    unexpected: Iterable[str],
    shapes: Iterable[str] = (),
    errors: Iterable[str] = (),
    cure: str = "Save the whole model again with save_pretrained, or use another one.",
) -> None:
    """Raise `UserError` that lists the given weights, unless there are none."""
    parts = {
        "missing": [*missing],
        "not part of the model": [*unexpected],
        "of another shape": [*shapes],
        "not loaded": [*errors],
    }
    found = "; ".join(f"{what}: {_some(names)}" for what, names in parts.items() if names)
    if found:
        raise UserError(f"{path}: the weights do not match the model that config.json describes ({found}). {cure}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
