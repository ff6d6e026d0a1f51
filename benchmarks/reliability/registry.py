"""All faults, in the order of the page; what was promised is listed apart, so that a test can hold one to the other."""

from __future__ import annotations

from benchmarks.reliability import driver
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
)
FAULTS: dict[str, Fault] = {fault.name: fault for fault in (*driver.FAULTS,)}
