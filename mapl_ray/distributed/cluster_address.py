"""Check the address of a running Ray cluster: its form, and whether a Ray head answers there.

`ray.init` waits for more than a minute if nothing listens, so this is checked first.
"""

from __future__ import annotations

import os
import re
import socket

import grpc
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel
from ray.exceptions import AuthenticationError

from mapl_ray.distributed.jobs.job_client import WRONG_TOKEN
from mapl_ray.errors import UserError, first_line

_SUBMIT = " To run there from this machine: `mapl submit --address http://HOST:8265`, the dashboard's address."
_CURES = {
    "ray": f" Stages do not run through Ray Client.{_SUBMIT}",
    "http": _SUBMIT,
    "https": _SUBMIT,
    "local": " To run on this machine, leave cluster.address out.",
}
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 15.0  # a head on a busy machine takes seconds
# Status codes of a server that speaks no gRPC, does not answer, or lacks the service.
_NO_HEAD = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
_HOST_PORT = re.compile(r"(?P<host>[^\s:/\[\]@]+|\[[0-9A-Fa-f:.%]+\]):(?P<port>[0-9]{1,5})")
_CURE = (
    "Start a cluster with `ray start --head` and use the address that it prints, or leave cluster.address out to run "
    "on this machine."
)


def head_address(address: str) -> str:
    """`host:port` of the cluster's head at `address`, after it has answered.

    `auto` means the same as for Ray: RAY_ADDRESS, else the cluster that runs on this machine. Raises `UserError` for
    an address of another form, and if no Ray head answers.
    """
    where = f"cluster.address={address!r}"
    if address == "auto":
        try:
            address = str(services.get_ray_address_from_environment("auto", None))
        except ConnectionError:
            raise UserError(
                f"{where}: no Ray cluster runs on this machine, and RAY_ADDRESS is not set. {_CURE}"
            ) from None
        where = f"RAY_ADDRESS={address!r}" if os.environ.get("RAY_ADDRESS") else f"{where} ({address})"
    host, port = _host_and_port(where, address)
    try:
        socket.create_connection((host, port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise UserError(f"{where}: no Ray cluster answers there: {first_line(error)}. {_CURE}") from None
    try:
        status = _asked(address)
    except AuthenticationError as error:  # the local token file is missing or empty
        raise UserError(f"{where}: {first_line(error)}") from None
    if status in _NO_HEAD:
        raise UserError(
            f"{where}: the server there does not answer as the head of a Ray cluster. Expected the address that "
            "`ray start --head` prints (default port 6379), not the dashboard's (8265) or the client's (10001)."
        )
    if status is grpc.StatusCode.UNAUTHENTICATED:
        raise UserError(f"{where}: {WRONG_TOKEN}")
    return address


def _host_and_port(where: str, address: str) -> tuple[str, int]:
    found = _HOST_PORT.fullmatch(address)
    if found is None or not 0 < int(found["port"]) < 65536:
        scheme = address.partition("://")[0] if "://" in address else ""
        cure = _CURES.get(scheme or address, "")
        shown = "cluster.address or RAY_ADDRESS (not shown: it may hold a password)" if "@" in address else where
        raise UserError(f"{shown}: expected `auto` or host:port of the head, such as 10.0.0.7:6379.{cure}")
    return found["host"].strip("[]"), int(found["port"])


def _asked(address: str) -> grpc.StatusCode:
    """gRPC status of a call that every Ray head supports, sent to `host:port` with our token, if any."""
    # A proxy must not answer for the cluster.
    with init_grpc_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")(b"", timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK
