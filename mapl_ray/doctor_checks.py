"""Security checks of `mapl doctor`: Ray endpoints open to the network, and the token file's mode."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

RAY_PORTS = {6379: "GCS", 8265: "dashboard and jobs", 10001: "Ray client"}
_LISTEN = "0A"  # TCP_LISTEN in /proc/net/tcp


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    cure: str = ""


def listening(table: str) -> Iterator[tuple[str, int]]:
    """Address and port of every listening socket in the text of /proc/net/tcp or tcp6."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[3] == _LISTEN:
            address, port = fields[1].split(":")
            yield _address(address), int(port, 16)


def _address(text: str) -> str:
    # The kernel prints the address as 32-bit words in the machine's (little-endian) order.
    words = [bytes.fromhex(text[start : start + 8])[::-1] for start in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def exposed(sockets: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Those on Ray's default ports that are reachable from other machines."""
    return sorted({(host, port) for host, port in sockets if port in RAY_PORTS and not _is_loopback(host)})


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def check_endpoints() -> Iterator[Finding]:
    """Ray's default ports on this machine, as /proc/net/tcp has them."""
    tables = [path.read_text() for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists()]
    if not tables:
        yield Finding("warn", "endpoints", "no /proc/net/tcp: listening ports not looked at")
        return
    found = exposed(pair for table in tables for pair in listening(table))
    if not found:
        yield Finding("ok", "endpoints", "none of Ray's default ports is open beyond this machine")
    for host, port in found:
        detail = f"{RAY_PORTS[port]} listens on {host}:{port}, beyond this machine"
        if port == 8265 and _asks_for_token(host, port):
            yield Finding("ok", "endpoints", f"{detail}, and asks for a token")
        elif os.environ.get("RAY_AUTH_MODE") == "token" and port != 8265:
            yield Finding("warn", "endpoints", f"{detail}; RAY_AUTH_MODE=token here, but it could not be asked", "")
        else:
            # Not --node-ip-address=127.0.0.1: Ray replaces it, and its control store listens on every interface.
            cure = "start Ray with RAY_AUTH_MODE=token and --dashboard-host=127.0.0.1, and close the port (firewall)"
            yield Finding("fail", "endpoints", f"{detail}, and no token is known to be asked for", cure)


def _asks_for_token(host: str, port: int) -> bool:
    """Ask the dashboard without a token, as a stranger would; only a refusal counts."""
    address = ipaddress.ip_address(host)
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, str(address))
    request = f"GET /api/jobs/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((target, port), timeout=3.0) as connection:
            connection.sendall(request.encode())
            return connection.recv(64).split(b" ")[1:2] in ([b"401"], [b"403"])
    except OSError:
        return False


def check_token_file() -> Iterator[Finding]:
    """Ray's token file, if there is one: nobody else may read it."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if not path.is_file():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield Finding("fail", "token file", f"{path} has mode {mode:04o}: others can read it", f"chmod 600 {path}")
    else:
        yield Finding("ok", "token file", f"{path}, mode {mode:04o}")
