"""Names and shapes of the weights of a checkpoint against those of the model: nothing is missing, extra or misnamed.

`from_pretrained` draws a missing weight at random and leaves an unexpected one out; both only appear in a log line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mapl_ray.errors import UserError

_SHOWN = 5  # names in a message
HEAD = "score."  # the scalar head of a reward model
_OUTPUT = "lm_head."  # the output layer of a policy, which a reward model has no use for


def check_loaded(path: str | Path, info: Mapping[str, Any], *, fresh_head: bool = False) -> bool:
    """Whether the reward head is to be drawn, from the loading info that `from_pretrained` returned.

    `fresh_head`: a checkpoint without the head, and with the output layer of a policy, is fine: training begins so.
    Raises `UserError`, naming them, for any other weight that is missing, unexpected or of another shape.
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
    cure: str = "Save the whole model again with save_pretrained, or name another one.",
) -> None:
    """Raise `UserError` if there is anything to name."""
    parts = {
        "missing": [*missing],
        "not part of the model": [*unexpected],
        "of another shape": [*shapes],
        "not loaded": [*errors],
    }
    found = "; ".join(f"{what}: {_some(names)}" for what, names in parts.items() if names)
    if found:
        raise UserError(f"{path}: its weights are not those of the model that config.json describes ({found}). {cure}")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
