"""Start, watch and kill `mapl` commands as processes.

Processes that a killed command leaves behind are found by its working directory, which they inherit. Adopting orphans
(PR_SET_CHILD_SUBREAPER) would change the measurement, because Ray's workers exit when their parent is init.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SOURCE = Path(__file__).resolve().parents[2]
QUICK = 0.002  # polling interval, in seconds


def started_in(folder: Path) -> list[psutil.Process]:
    """All processes whose working directory is the folder or below it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process)
    return found


@dataclass(frozen=True, slots=True)
class Command:
    """A running command and its log file."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def family(self) -> list[psutil.Process]:
        """All processes that it started and that still run."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self, title: str) -> list[psutil.Process]:
        """Ray's processes with this text in their title."""
        return titled(self.family, title)

    def message(self) -> str:
        """Its last line that starts with `mapl: `; empty if there is none."""
        lines = [line for line in self.text().splitlines() if line.startswith("mapl: ")]
        return lines[-1] if lines else ""

    def text(self) -> str:
        """Its whole output."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def finish(self, seconds: float) -> int:
        """Wait for its exit code. Raises `TimeoutExpired` if it does not end."""
        return self.process.wait(timeout=seconds)


def start(
    words: Sequence[str], folder: Path, *, module: str = "mapl_ray.cli", log_name: str = "log", **environment: str
) -> Command:
    """Start `mapl WORDS`, with its output appended to `folder/log_name`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / log_name
    known = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu"}
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdout=sink,
            stderr=sink,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_SOURCE), **known, **environment},
        )
    return Command(process, log)


def run(words: Sequence[str], folder: Path, seconds: float = 300.0, **environment: str) -> Command:
    """`start` a command and wait for it. Raises `RuntimeError` with the end of its output if it fails."""
    command = start(words, folder, **environment)
    if (code := command.finish(seconds)) != 0:
        raise RuntimeError(f"mapl {' '.join(words)}: exit code {code}\n{command.text()[-3000:]}")
    return command


def wait_until(condition: Callable[[], object], command: Command | None, seconds: float = 180.0) -> bool:
    """Wait; return True once `condition` is met, False if the command ends before. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if command is not None and command.process.poll() is not None:
            return bool(condition())
        if time.monotonic() > deadline:
            words = "" if command is None else f"\n{command.text()[-3000:]}"
            raise TimeoutError(f"nothing seen for {seconds:.0f} s{words}")
        time.sleep(QUICK)
    return True


def kill(process: psutil.Process) -> None:
    """Send SIGKILL to a process that may have ended."""
    with suppress(psutil.NoSuchProcess):
        process.kill()


def kill_alone(command: Command) -> None:
    """Kill only the driver."""
    command.process.send_signal(signal.SIGKILL)
    command.process.wait()


def kill_with_family(command: Command) -> None:
    """Kill the driver and all of Ray at once, as if the machine had lost power."""
    family = command.family
    command.process.send_signal(signal.SIGKILL)
    for member in family:
        kill(member)
    command.process.wait()
    psutil.wait_procs(family, timeout=20)


def still_running(family: Sequence[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run and are not zombies."""
    found = []
    for member in family:
        with suppress(psutil.NoSuchProcess):
            if member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
                found.append(member)
    return found


def titled(processes: Sequence[psutil.Process], title: str) -> list[psutil.Process]:
    """The processes with this text in their command line."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if title in " ".join(process.cmdline()):
                found.append(process)
    return found
