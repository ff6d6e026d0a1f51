"""Start a Ray session: a private cluster on this machine, or the cluster that the config names."""

from __future__ import annotations

import importlib
import logging
import math
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import ray
from ray._private import ray_constants, ray_logging

from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.cluster_address import head_address
from mapl_ray.distributed.jobs.job_environment import QUIET, worker_environment
from mapl_ray.distributed.resources import Node, Resources
from mapl_ray.distributed.watch import HEAD_SECONDS, OF_A_DRIVER, head_problem, watched
from mapl_ray.errors import RunError, UserError, first_line
from mapl_ray.private_files import cluster_token, private_folder
from mapl_ray.progress import WAITING_SECONDS, progress

WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# Environment of a private cluster, which is one machine and lives as long as the command.
_PRIVATE = {
    # Usage reports would leave the machine.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Prometheus ports require no token and listen on every interface; Ray starts no server on port -1.
    "RAY_enable_metrics_collection": "false",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
    # The only node is never preempted. The watcher costs one process per training, and Ray logs an error about it.
    WATCHER: "0",
    # A pipeline starts more workers in total than Ray expects at once, and raylet would warn about that.
    "RAY_worker_maximum_startup_concurrency": "64",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # delay until the end of a training is noticed (Ray's default: 2)
    # The node's address is 127.0.0.1, so Ray's servers listen only on loopback. This is Ray's default on macOS and
    # Windows; see `_on_loopback` for processes that have already imported Ray.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "VLLM_HOST_IP": "127.0.0.1",
}
# Ray Data switches for files of old Ray versions, whose schema is unpickled on opening.
_UNPICKLING = ("RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE")
_STARTS = 3
_LONGEST_SOCKET = 107  # characters of a Unix socket's path
# Longest session root, given the longest path below it, with a process number of seven digits.
_LONGEST_ROOT = _LONGEST_SOCKET - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
_END_SECONDS = 20.0  # how long to wait for killed processes to end
_LOG_LEVELS = {
    "ray.data": logging.ERROR,  # warns about progress bars that are disabled on purpose
    "ray.train": logging.WARNING,
    "ray.tune": logging.WARNING,
    "ray.tune.analysis.experiment_analysis": logging.ERROR,  # warns about missing files of disabled loggers
    "ray.tune.utils.util": logging.ERROR,  # warns when bookkeeping takes half a second on a busy machine
    "ray._private.authentication": logging.ERROR,  # reports at every start that a token is required
}

# The control store's error if an actor's process has just exited when Ray Data ends its pool. It is harmless. Other
# failures to end an actor are shown.
_EXITED_ACTOR = r"\(gcs_server\) gcs_actor_scheduler\.cc:\d+: Failed to kill actor .*: Socket closed"


@contextmanager
def ray_session(config: ClusterConfig, *, searches: bool = True) -> Iterator[None]:
    """Connect to Ray during the block. An existing session is used and left open.

    A private cluster requires a token; it has a dashboard only if the session `searches` (Ray Tune). Raises `UserError`
    for a cluster that can't be reached, and if the environment lets Ray unpickle data from files.
    """
    for switch in (name for name in _UNPICKLING if os.environ.get(name, "0") != "0"):
        raise UserError(f"{switch}={os.environ[switch]}: it lets a Parquet file run code when opened. Unset it.")
    if ray.is_initialized():
        yield
        return
    port = _free_port()  # of the dashboard
    own = OF_A_DRIVER if config.address else _private_environment(port)
    with (
        nullcontext() if config.address else _own_token(),
        nullcontext() if config.address else _on_loopback(),
        _environment({**own, **({} if sys.stdout.isatty() else {"RAY_COLOR_PREFIX": "0"})}),
    ):
        with progress("start Ray", silence=WAITING_SECONDS):
            _connect(config, searches, port)
        try:
            head = head_problem(ray.get_runtime_context().gcs_address)
            with _sigterm_interrupts(), watched(head, HEAD_SECONDS):
                yield
        finally:
            ray.shutdown()


def preemption_watched() -> bool:
    """Whether Ray Train notifies workers that their node is about to be preempted."""
    return os.environ.get(WATCHER, "1") != "0"


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C, with a message and exit code 130; Ray's handler has neither."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def available_resources() -> Resources:
    """CPUs, GPUs and main memory of every living node."""
    nodes = []
    for node in ray.nodes():
        if node["Alive"]:
            there = node["Resources"]
            # Ray reserves a share for its object store; an engine's memory is taken from both.
            memory = (there.get("memory", 0.0) + there.get("object_store_memory", 0.0)) / 2**30 or math.inf
            nodes.append(Node(cpus=there.get("CPU", 0.0), gpus=there.get("GPU", 0.0), memory_gib=memory))
    return Resources(tuple(nodes))


def hide_exited_actors() -> None:
    """Hide `_EXITED_ACTOR` in this driver, in addition to what `RAY_DEDUP_LOGS_SKIP_REGEX` hides."""
    lines = ray_logging.stderr_deduplicator
    hidden = lines.skip_re.pattern if lines.skip_re else None
    if hidden is None or _EXITED_ACTOR not in hidden:
        lines.skip_re = re.compile(_EXITED_ACTOR if hidden is None else f"{hidden}|{_EXITED_ACTOR}")


def _connect(config: ClusterConfig, searches: bool, port: int) -> None:
    for noisy, level in _LOG_LEVELS.items():
        logging.getLogger(noisy).setLevel(level)
    hide_exited_actors()
    options = {"log_to_driver": True, "logging_level": logging.WARNING}
    if config.address is None:
        if named := os.environ.get("RAY_ADDRESS"):
            print(f"RAY_ADDRESS={named} is not used: to run on that cluster, set cluster.address=auto", flush=True)
        # Ray Train needs the dashboard's state API to free the resources of a stopped trial. It listens on loopback
        # and requires the token. Nothing else needs it, and its eight processes take seconds of two cores to start.
        dashboard = {"include_dashboard": searches, "dashboard_host": "127.0.0.1", "dashboard_port": port}
        session_root = str(_session_root())
        _start(
            partial(ray.init, address="local", num_cpus=config.num_cpus, _temp_dir=session_root), dashboard | options
        )
        return
    _join(config.address, options)


def _start(start: Callable[..., object], options: dict[str, Any]) -> None:
    """Start Ray, with up to `_STARTS` attempts: on a busy machine its processes may time out waiting for each other.

    Raises `UserError` for a token that can't be read, and `RunError` with Ray's last error.
    """
    here = psutil.Process()
    before = set(here.children())
    for left in reversed(range(_STARTS)):
        try:
            start(**options)
        except ray.exceptions.AuthenticationError as error:  # the token file is missing or empty
            raise UserError(f"Ray could not be started on this machine: {first_line(error)}") from None
        except Exception as error:  # Ray raises a plain Exception
            ray.shutdown()  # does not end the processes of a failed start, which would keep the ports
            started = [child for child in here.children() if child not in before]
            late = [*started, *(process for child in started for process in child.children(recursive=True))]
            for process in late:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(late, timeout=_END_SECONDS)
            if not left or "timed out" not in str(error).lower():
                raise RunError(f"Ray could not be started on this machine: {str(error).strip()}") from None
            print("  Ray's processes did not start in time; starting them again", flush=True)
        else:
            return


def _join(address: str, options: dict[str, Any]) -> None:
    """Connect to a running cluster. Raises `UserError` with Ray's message if that fails."""
    head = head_address(address)
    try:
        ray.init(address=head, runtime_env={"env_vars": worker_environment()}, **options)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"cluster.address={address!r}: Ray refused to connect: {str(error).strip()}") from None


def _private_environment(port: int) -> dict[str, str]:
    """Variables that a private cluster's processes inherit. The user's values are kept, except the dashboard address.

    They are inherited rather than set as a runtime environment, because with one Ray can't use prestarted workers.
    """
    unset = {name: value for name, value in (_PRIVATE | QUIET).items() if name not in os.environ}
    # With two clusters on a machine, workers would not know which dashboard to use.
    return {**unset, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Give a private cluster's node the address 127.0.0.1, so that no other machine can reach Ray's servers."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_token() -> Iterator[None]:
    """Make a private cluster require a token that only it uses, unless RAY_AUTH_MODE disables tokens."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        yield
        return
    with cluster_token(_session_root().parent) as path:
        # RAY_AUTH_TOKEN would override the file, and it belongs to another cluster.
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), "RAY_AUTH_TOKEN": None}
        try:
            with _environment(own):
                _read_token_again()
                yield
        finally:
            if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" or _has_token():
                _read_token_again()


def _read_token_again() -> None:
    """Reset Ray's cached mode and token. The order matters: threads of a session that has just ended still use them."""
    raylet = importlib.import_module("ray._raylet")  # compiled, without types
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    """Whether the environment provides a token; without one those threads would end the process."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables during the block; None removes a variable."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _session_root() -> Path:
    """Folder for sockets and logs of private clusters, below `RAY_TMPDIR` or the temporary folder.

    Ray makes this folder writable for every user of the machine (mode 0777), who could then replace sockets and logs,
    so it is inside a folder that only this user may enter. If the temporary folder's path is too long for sockets,
    `/tmp` is used. Raises `UserError` if the folder can't be created, or `RAY_TMPDIR` is too long.
    """
    named = os.environ.get("RAY_TMPDIR")
    below = Path(f"mapl-{os.getuid()}", "r")  # short: see `_LONGEST_ROOT`
    most = _LONGEST_ROOT - len(f"/{below}")
    if named and len(named) > most:
        raise UserError(
            f"RAY_TMPDIR={named}: {len(named)} characters; expected at most {most}, because Ray's sockets are below it "
            f"and their paths can have {_LONGEST_SOCKET}. Set it to another folder."
        )
    base = named or os.environ.get("TMPDIR") or "/tmp"
    try:
        return private_folder("mapl", base if len(base) <= most else "/tmp") / below.name
    except OSError as error:
        raise UserError(f"{error}. Or set RAY_TMPDIR to another folder.") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
