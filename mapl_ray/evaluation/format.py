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
    text = _percent(value["value"], sign)
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} [{_percent(value['low'], sign)}, {_percent(value['high'], sign)}]"


def _percent(share: float, sign: str) -> str:
    return f"{round(100 * share, 1) + 0.0:{sign}.1f}"  # no -0.0
