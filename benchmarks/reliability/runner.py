"""Run one fault in its own process with a time limit. A fault that hangs is killed with all its processes and fails."""

from __future__ import annotations

import json
import platform
import random
import subprocess
import sys
import tempfile
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import psutil

from benchmarks.reliability.commands import kill, started_in
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.measured_code import code_digest, commit
from mapl_ray.versions import package_versions

FIXED_SECONDS = 900.0  # time limit for everything except the rounds: undisturbed runs and comparison


def measure(fault: Fault, rounds: int | None, shared: Path, data: str) -> dict[str, Any]:
    """Run the fault; return its row."""
    rounds = rounds or fault.rounds
    row: dict[str, Any] = {"date": date.today().isoformat(), "machine": machine(), "rounds": rounds}
    row |= {"commit": commit(), "code": code_digest()}
    if reason := fault.missing():
        return {**row, "holds": None, "not_run": reason}
    with tempfile.TemporaryDirectory(prefix="mapl-fault-") as folder:
        outcome_file = Path(folder) / "outcome.json"
        words = [fault.name, str(rounds), folder, str(shared), data, str(outcome_file)]
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.reliability.runner", *words])
        limit = FIXED_SECONDS + rounds * fault.limit_seconds
        try:
            code = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process, Path(folder).resolve())
        if code == 0:
            outcome = Outcome(**json.loads(outcome_file.read_text(encoding="utf-8")))
        else:
            outcome = Outcome(message="")
            why = f"came to no end within {limit:.0f} s" if code is None else "broke off; its output says where"
            outcome.check(f"the measurement {why}", False)
    values = {"seconds": [round(one, 1) for one in outcome.seconds], "lost": outcome.lost, "message": outcome.message}
    return {**row, "holds": outcome.holds, "checks": outcome.checks, **values}


def machine() -> str:
    """A description of the machine in one line."""
    memory = psutil.virtual_memory().total / 2**30
    known = package_versions()
    software = f"{platform.system()}, Python {known['python']}, Ray {known['ray']}"
    return f"{psutil.cpu_count()} CPUs, {memory:.0f} GiB, {software}"


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill the process and everything that it or its commands started."""
    with suppress(psutil.NoSuchProcess):
        for member in psutil.Process(process.pid).children(recursive=True):
            kill(member)
    process.kill()
    process.wait()
    for member in started_in(folder):
        kill(member)


def main(name: str, rounds: str, folder: str, shared: str, data: str, outcome_file: str) -> None:
    """The entry point of the fault's process."""
    from benchmarks.reliability.registry import FAULTS

    place = Path(folder) / "scene"
    place.mkdir()
    scene = Scene(place, Path(shared), data, int(rounds), random.Random(name))
    outcome = FAULTS[name].measure(scene)
    Path(outcome_file).write_text(json.dumps(outcome.to_json()), encoding="utf-8")
    for log in () if outcome.holds else sorted(place.rglob("log")):
        if log.is_file():
            print(f"--- {log}\n{log.read_text(encoding='utf-8', errors='replace')[-6000:]}", flush=True)
    for member in psutil.Process().children(recursive=True):
        kill(member)


if __name__ == "__main__":
    main(*sys.argv[1:])
