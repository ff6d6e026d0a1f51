"""One host: what runs on it, and its cable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Host:
    """Made by `Network`. Files are those of this machine, but for /etc/hosts, /tmp/ray and the home."""

    name: str
    address: str
    home: Path
    init: int  # its first process, numbered as this machine numbers it; all of the host's processes die with it
    _cable: tuple[int, str, str]  # a process beside the bridge, the host's end there, the bridge

    def run(
        self,
        words: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its output as text. Raises with what it said if it fails, unless `check` is off."""
        done = subprocess.run(
            self.command(words), env=self.environment(env), cwd=ROOT, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode != 0:
            said = f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
            raise RuntimeError(f"{self.name}: {' '.join(map(str, words))} ended with {done.returncode}:\n{said}")
        return done

    def start(
        self, words: Sequence[str | Path], log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command, its output into a file. SIGTERM is handed on to it; to kill, see `processes`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command(words), env=self.environment(env), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )

    def command(self, words: Sequence[str | Path]) -> list[str]:
        """The words that run a command here. The command gets a SIGTERM when `nsenter` ends, whatever ended it."""
        enter = ["nsenter", f"--target={self.init}", "--net", "--uts", "--mount", "--pid", "--wdns=."]
        return [*enter, "setpriv", "--pdeathsig", "TERM", *map(str, words)]

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """This process's, without what would lead to another Ray, with the host's home and this tree's package."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        kept |= {"HOME": str(self.home), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        return {**kept, **(more or {})}

    def processes(self, word: str = "") -> list[psutil.Process]:
        """The host's processes whose command line contains the word, but for its first one; for signals of any kind."""
        space = _pid_space(self.init)
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.pid != self.init
                    and _pid_space(process.pid) == space
                    and word in " ".join(process.cmdline())
                ):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def cut(self) -> None:
        """Pull the cable out of the bridge: nothing arrives any more, and nobody is told."""
        self._at_bridge("nomaster")

    def restore(self) -> None:
        """Put the cable back."""
        self._at_bridge("master", self._cable[2])

    def lose_power(self) -> None:
        """End every process of the host at once. It does not come back."""
        psutil.Process(self.init).kill()

    def _at_bridge(self, *words: str) -> None:
        switch, cable, _ = self._cable
        subprocess.run(["nsenter", f"--net=/proc/{switch}/ns/net", "ip", "link", "set", cable, *words], check=True)


def _pid_space(process: int) -> Any:
    return os.stat(f"/proc/{process}/ns/pid").st_ino
