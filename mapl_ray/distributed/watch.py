"""End a command whose cluster is gone: Ray waits for nodes forever, and exits without a message if the head does not
answer.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Without a head, the cluster's own processes end after this time (Ray's default: 60 s), and the head can't come back.
_NAME = "RAY_gcs_rpc_server_reconnect_timeout_s"  # partly lower case, as Ray reads it
HEAD_SECONDS = max(5.0, float(os.environ.get(_NAME, "60")) - 15.0)
# Ray also ends a driver after this limit, without a message. On a busy machine 15 s are too short for our message to
# come first, so the driver gets a much longer limit. Ray reads it when it connects.
OF_A_DRIVER = {_NAME: f"{HEAD_SECONDS + 600:.0f}"}
_EVERY_SECONDS = 2.0


@contextmanager
def watched(problem: Callable[[], str], patience_seconds: float) -> Iterator[None]:
    """End the process with exit code 1 if `problem` returns a message at every check for `patience_seconds`; print it.

    The main thread may be blocked in Ray forever, so no exception can be raised in it.
    """
    done = threading.Event()

    def watch() -> None:
        since = None
        while not done.wait(_EVERY_SECONDS):
            message = problem()
            if not message:
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since >= patience_seconds and not done.is_set():
                print(f"mapl: failed: {message}", file=sys.stderr, flush=True)
                sys.stdout.flush()
                os._exit(1)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def head_problem(address: str) -> Callable[[], str]:
    """Return a check for `watched` that connects to the head at `host:port`; it returns "" if that works."""
    host, _, port = address.rpartition(":")

    def problem() -> str:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
        except OSError as error:
            return (
                f"the head of the Ray cluster, {address}, has not answered for {HEAD_SECONDS:.0f} s ({error}). "
                "Finished work is kept: once there is a cluster, run the same command again to go on."
            )
        return ""

    return problem
