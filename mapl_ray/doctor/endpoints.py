"""`mapl doctor`: which Ray ports on this machine other machines can reach, and whether they require a token."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import psutil

from mapl_ray.addresses import is_loopback
from mapl_ray.doctor.ask import Answer, ask
from mapl_ray.doctor.finding import Finding

# Process kinds by a word of their command line; the first match counts.
_PROCESSES = {
    "/gcs_server": "Ray's control store (GCS)",
    "/raylet/raylet": "raylet",
    "ray::DashboardAgent": "the dashboard's agent",
    "ray::RuntimeEnvAgent": "the runtime-environment agent",
    "/ray/dashboard/dashboard.py": "the dashboard (jobs)",
    "/monitor.py": "the autoscaler",
    "ray.util.client.server": "Ray client's server",
    "ray::": "a worker",
}
# Default ports, for processes of other users whose command line can't be read.
_PORTS = {
    6379: "Ray's control store (GCS)",
    8265: "the dashboard (jobs)",
    10001: "Ray client's server",
    44217: "the autoscaler",
    44227: "the dashboard (jobs)",
    52365: "the dashboard's agent",
}
# Not --node-ip-address=127.0.0.1: Ray replaces it, and its control store listens on every interface.
_CLOSE = "start Ray with RAY_AUTH_MODE=token and --dashboard-host=127.0.0.1, and close the port (firewall)"
_NO_METRICS = "let only Prometheus reach it (firewall), or start Ray without metrics like cluster/slurm.sh"


@dataclass(frozen=True, order=True, slots=True)
class Endpoint:
    """A listening socket of Ray."""

    what: str
    pid: int  # 0: unknown
    host: str
    port: int


def endpoints() -> list[Endpoint]:
    """Ray sockets that listen beyond loopback. Raises `psutil.AccessDenied` if the system does not report them."""
    found = set()
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and not is_loopback(one.laddr.ip):
            what = _process(one.pid) or _PORTS.get(one.laddr.port)
            if what is not None:
                found.add(Endpoint(what, one.pid or 0, one.laddr.ip, one.laddr.port))
    return sorted(found)


def _process(pid: int | None) -> str | None:
    if pid is None:
        return None
    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return None
    return next((what for word, what in _PROCESSES.items() if word in command), None)


def check_endpoints() -> Iterator[Finding]:
    """One finding per kind of process; each of its ports is probed."""
    try:
        found = endpoints()
    except psutil.AccessDenied:
        yield Finding("warn", "endpoints", "this system does not report which ports are open: not checked")
        return
    if not found:
        yield Finding("ok", "endpoints", "no Ray port is open beyond this machine")
    for what, of_kind in groupby(found, key=lambda one: one.what):
        yield judge(what, {(one.pid, one.host, one.port): ask(one.host, one.port) for one in of_kind})


def judge(what: str, answers: Mapping[tuple[int, str, int], Answer]) -> Finding:
    """The finding for one kind of process. `answers` is keyed by process, host and port. A port without an answer is
    judged by its process's other ports, because a token applies to the whole process (object manager and raylet)."""
    asking = {pid for (pid, _, _), answer in answers.items() if answer == "refuses" and pid}
    unknown = [key for key, answer in answers.items() if answer == "unknown" and key[0] not in asking]
    open_ports = [key for key, answer in answers.items() if answer == "answers"]
    metrics = [key for key, answer in answers.items() if answer == "metrics"]
    if open_ports:
        return Finding("fail", "endpoints", f"{what}: {_where(open_ports)} answers without a token", _CLOSE)
    if unknown and os.environ.get("RAY_AUTH_MODE") != "token":
        return Finding("fail", "endpoints", f"{what}: {_where(unknown)} may not require a token (no answer)", _CLOSE)
    if unknown:
        detail = f"{what}: {_where(unknown)} gave no answer; RAY_AUTH_MODE=token is set here"
        return Finding("warn", "endpoints", detail)
    if metrics:
        return Finding("warn", "endpoints", f"{what}: {_where(metrics)} serves metrics without a token", _NO_METRICS)
    return Finding("ok", "endpoints", f"{what}: {_where(answers)}, open beyond this machine, requires a token")


def _where(keys: Iterable[tuple[int, str, int]]) -> str:
    places = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for _, host, port in sorted(keys)]
    more = f" and {len(places) - 3} more" if len(places) > 3 else ""
    return ", ".join(places[:3]) + more
