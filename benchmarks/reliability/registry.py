"""All faults in the order of the page, and a separate list of the promised ones, which a test compares."""

from __future__ import annotations

from benchmarks.reliability import (
    disk,
    driver,
    head,
    inputs,
    link,
    nodes,
    poison,
    ranks,
    second_copy,
    terminated,
    workers,
)
from benchmarks.reliability.fault import Fault

PROMISED = (
    "data worker",
    "vLLM actor",
    "training rank",
    "raylet",
    "driver",
    "head without GCS fault tolerance",
    "head with GCS fault tolerance",
    "cut link",
    "full disk",
    "truncated input",
    "poison row",
    "SIGTERM",
    "drained node",
    "rank killed in mid-checkpoint",
    "second copy",
)
_FAMILIES = (driver, workers, ranks, nodes, head, link, disk, inputs, poison, terminated, second_copy)
FAULTS: dict[str, Fault] = {fault.name: fault for family in _FAMILIES for fault in family.FAULTS}
