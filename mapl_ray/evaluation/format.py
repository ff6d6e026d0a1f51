"""Numbers as people read them."""

from __future__ import annotations

from mapl_ray.evaluation.bootstrap import Estimate


def format_percent(value: Estimate) -> str:
    """`72.1 [68.0, 76.3]`: percent and its interval, where there is one."""
    return _format(value, "")


def format_points(value: Estimate) -> str:
    """`+4.2 [-1.0, +9.3]`: signed percentage points and their interval, where there is one."""
    return _format(value, "+")


def _format(value: Estimate, sign: str) -> str:
    text = f"{100 * value['value']:{sign}.1f}"
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} [{100 * value['low']:{sign}.1f}, {100 * value['high']:{sign}.1f}]"
