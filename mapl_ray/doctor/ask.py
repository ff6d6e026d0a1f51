"""Probe a Ray port without a token, with read-only calls, to see what anyone could get from it."""

from __future__ import annotations

import socket
from typing import Literal

import grpc

Answer = Literal["refuses", "answers", "metrics", "unknown"]
_SECONDS = 3.0
# One read-only call per service: control store, raylet, worker or driver, agent, Ray client.
_CALLS = (
    "/ray.rpc.NodeInfoGcsService/CheckAlive",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.CoreWorkerService/NumPendingTasks",
    "/ray.rpc.ReporterService/HealthCheck",
    "/ray.rpc.RayletDriver/ClusterInfo",
)


def ask(host: str, port: int) -> Answer:
    """Probe a port. `refuses`: it required a token; `metrics`: it returned Prometheus metrics; `unknown`: no answer."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return _http(target, port) or _grpc(f"[{target}]:{port}" if ":" in target else f"{target}:{port}")


def _http(target: str, port: int) -> Answer | None:
    """Probe over HTTP, with a page that only the dashboard has and protects by token; None if it is not HTTP/1."""
    request = f"GET /api/jobs/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((target, port), timeout=_SECONDS) as connection:
            connection.sendall(request.encode())
            head = connection.makefile("rb").read(2000)
    except OSError:
        return None
    version, _, rest = head.partition(b" ")
    if not version.startswith(b"HTTP/1"):
        return None
    if rest[:3] in (b"401", b"403"):
        return "refuses"
    return "metrics" if b"text/plain; version=" in head else "answers"


def _grpc(target: str) -> Answer:
    found: Answer = "unknown"
    with grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)]) as channel:
        for call in _CALLS:
            try:
                channel.unary_unary(call)(b"", timeout=_SECONDS)
                return "answers"
            except grpc.RpcError as error:
                code = error.code()
            if code is grpc.StatusCode.UNAUTHENTICATED:
                found = "refuses"
            elif code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                return found  # nothing listens, or no gRPC
            elif code is not grpc.StatusCode.UNIMPLEMENTED:  # it processed the request
                return "answers"
    return found
