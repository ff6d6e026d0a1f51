"""The ports of a host, and what a stranger on another host gets from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.multihost.cluster import PYTHON
from tests.multihost.host import Host

# What a process is called in tables, by words of its command line; all else is a driver.
_NAMES = {
    "gcs_server": "control store (GCS)",
    "raylet": "raylet",
    "ray::DashboardAgent": "dashboard's agent",
    "ray::RuntimeEnvAgent": "runtime-environment agent",
    "dashboard.py": "dashboard",
    "monitor.py": "autoscaler",
    "ray.util.client.server": "Ray client server",
    "ray::": "worker",
}
# Run on the host: the command line of whoever listens, by port.
_LISTENING = """
import json, psutil
found = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
print(json.dumps({one.laddr.port: " ".join(psutil.Process(one.pid).cmdline()) if one.pid else "" for one in found}))
"""
_FIXED = (6379, 8265, 10001, 44217, 44227, 52365)  # the others are drawn anew at every start


@dataclass(frozen=True, order=True, slots=True)
class Port:
    """A listening TCP port and what a stranger gets from it."""

    process: str
    number: str  # "random" where Ray draws it
    answer: str  # see `stranger`

    @property
    def is_closed(self) -> bool:
        """Not reachable from another host, or without the token of no use."""
        return self.answer == "not reachable" or self.answer.startswith("refused:")

    @property
    def row(self) -> str:
        """Of a Markdown table."""
        return f"| {self.process} | {self.number} | {self.answer} |"


def listening(host: Host) -> dict[int, str]:
    """Process by port, of every TCP socket that listens, on loopback or beyond: all that a port scan could find."""
    commands = json.loads(host.run([PYTHON, "-c", _LISTENING]).stdout)
    return {
        int(port): next((name for word, name in _NAMES.items() if word in command), "driver")
        for port, command in commands.items()
    }


def scan(target: Host, stranger: Host) -> list[Port]:
    """Every listening port of a host, asked from another one that has no token."""
    there = listening(target)
    command = [PYTHON, "-m", "tests.multihost.stranger", target.address, *map(str, sorted(there))]
    answers = json.loads(stranger.run(command, {"HOME": "/nonexistent"}).stdout)
    return sorted(
        Port(there[int(port)], port if int(port) in _FIXED else "random", answer) for port, answer in answers.items()
    )


def table(ports: Sequence[Port]) -> list[str]:
    """Rows of the table in docs/cluster.md, each once."""
    return sorted({port.row for port in ports})
