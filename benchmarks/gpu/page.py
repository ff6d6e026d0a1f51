"""Generate docs/gpu.md from the lines of the points."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import date
from typing import Any

import torch

from benchmarks.gpu.material import Setting
from mapl_ray.versions import package_versions

_HEAD = """# What was proven on a GPU

Eleven points, each with its assertion, in about ten minutes on one card: `python -m benchmarks.gpu --out DIR --page
docs/gpu.md`. The points are described in [benchmarks/gpu](../benchmarks/gpu/__main__.py); `tests/gpu` asserts the same.
"""
NOT_RUN = f"""{_HEAD}
**Not run.** Nothing in this project was run on a GPU yet. What was proven on CPUs for GPUs: the mask, block lists and
graphs of FlexAttention with its backward pass (`tests/models/test_flex_attention.py`), the index arithmetic of varlen
attention, models partitioned under ZeRO-3 (`tests/training/test_partitioned.py`, `test_ranks.py`), logits in pieces
(`tests/models/test_heads.py`, `tests/training/test_logits_in_pieces.py`), sequence parallelism
(`tests/training/test_sequence_parallel.py`). `python -m benchmarks.gpu --out DIR --rehearse` runs the gate itself with
tiny shapes on a CPU.
"""


def facts(setting: Setting) -> dict[str, Any]:
    """Device, date and package versions."""
    device = torch.cuda.get_device_name() if setting.device == "cuda" else platform.processor() or platform.machine()
    return {"device": device, "date": date.today().isoformat(), "versions": package_versions()}


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The page of one run."""
    about, points = lines[0]["facts"], lines[1:]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    text = [_HEAD, f"Device: {about['device']}. {about['date']}. {versions}.\n"]
    text += ["| point | | seconds |", "|---|---|---|"]
    text += [f"| {p['what']} | {'holds' if p['ok'] else 'FAILED'} | {p['seconds']} |" for p in points]
    for point in points:
        text += ["", f"## {point['point']}", ""]
        if not point["ok"]:
            text += ["```", point["error"], "```"]
            continue
        text += ["| figure | value |", "|---|---|"]
        text += [f"| {name} | {_shown(value)} |" for name, value in point["figures"].items()]
    return "\n".join(text) + "\n"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return ", ".join(map(_shown, value)) if isinstance(value, list) else str(value)
