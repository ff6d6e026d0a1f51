"""What a stranger gets from a port, without the token: `python -m tests.multihost.stranger ADDRESS PORT...`

Run on another host. Prints a JSON object, port -> answer:
    "not reachable"            nobody answers from there
    "refused: ..."             every call requires a token
    "answered: ..."            what came back to a call without one, or that nothing is known of it
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import socket
import sys
from collections import Counter
from collections.abc import Iterator

import grpc
import ray.core.generated

_SECONDS = 5.0
# HTTP paths of the dashboard, its agents and the metrics; and one that nobody has.
_PATHS = ("/", "/metrics", "/api/jobs/", "/api/job_agent/jobs/", "/nowhere")
_POSTS = ("/get_or_create_runtime_env", "/api/job_agent/jobs/")


def main() -> None:
    """Ask every port."""
    address, *ports = sys.argv[1:]
    print(json.dumps({port: answer(address, int(port)) for port in ports}))


def answer(address: str, port: int) -> str:
    """HTTP first; what does not speak it is asked for each method of each of Ray's gRPC services."""
    try:
        with socket.create_connection((address, port), timeout=_SECONDS):
            pass
    except OSError:
        return "not reachable"
    statuses = [_http(address, port, "GET", path) for path in _PATHS]
    if any(statuses):
        statuses += [_http(address, port, "POST", path) for path in _POSTS]
        told = ", ".join(f"HTTP {status}" for status in sorted(set(map(str, statuses))))
        return f"refused: {told}" if set(statuses) <= {401, 403} else f"answered: {told}"
    codes = Counter(_grpc(address, port))
    there = {code: number for code, number in codes.items() if code != "UNIMPLEMENTED"}  # no such service on this port
    told = ", ".join(f"gRPC {code}" for code in sorted(there)) or "nothing of it known"
    return f"refused: {told}" if set(there) == {"UNAUTHENTICATED"} else f"answered: {told}"


def _http(address: str, port: int, method: str, path: str) -> int | None:
    request = f"{method} {path} HTTP/1.1\r\nHost: {address}:{port}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((address, port), timeout=_SECONDS) as connection:
            connection.sendall(request.encode())
            words = connection.recv(64).split(b" ")
    except OSError:
        return None
    return int(words[1]) if words[0].startswith(b"HTTP/1") and len(words) > 1 else None


def methods() -> Iterator[tuple[str, bool]]:
    """Every method of every gRPC service that Ray has, and whether it streams."""
    for module in pkgutil.iter_modules(ray.core.generated.__path__, "ray.core.generated."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                for method in service.methods:
                    yield f"/{service.full_name}/{method.name}", method.client_streaming or method.server_streaming
    # The object manager's, of which Ray ships no Python.
    yield from ((f"/ray.rpc.ObjectManagerService/{name}", False) for name in ("Push", "Pull", "FreeObjects"))


def _grpc(address: str, port: int) -> Iterator[str]:
    with grpc.insecure_channel(f"{address}:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
        for path, streams in methods():
            try:
                if streams:
                    for _ in channel.stream_stream(path)(iter([b""]), timeout=_SECONDS):
                        break
                else:
                    channel.unary_unary(path)(b"", timeout=_SECONDS)
                yield f"OK to {path}"
            except grpc.RpcError as error:
                code = error.code().name
                yield code if code in ("UNIMPLEMENTED", "UNAUTHENTICATED") else f"{code} to {path}"


if __name__ == "__main__":
    main()
