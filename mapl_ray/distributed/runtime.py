"""A Ray session: a private cluster of this machine, or the one that the config names."""

from __future__ import annotations

import importlib
import logging
import math
import os
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
from ray._private import ray_constants

from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.cluster_address import head_address
from mapl_ray.distributed.jobs.job_environment import QUIET, worker_environment
from mapl_ray.distributed.resources import Node, Resources
from mapl_ray.distributed.watch import HEAD_SECONDS, OF_A_DRIVER, head_problem, watched
from mapl_ray.errors import RunError, UserError, first_line
from mapl_ray.private_files import cluster_token, private_folder
from mapl_ray.progress import WAITING_SECONDS, progress

WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# Of a private cluster, which is one machine and lives as long as the command.
_PRIVATE = {
    # Reports on usage would leave the machine.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ports for Prometheus ask for no token and listen on every interface; Ray starts no server on port -1.
    "RAY_enable_metrics_collection": "false",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
    # Nobody takes the one node away. The watcher is a process more for every training, and Ray logs an error about it.
    WATCHER: "0",
    # A pipeline on one cluster starts more workers in all than Ray expects to start at once, and raylet warns of that.
    "RAY_worker_maximum_startup_concurrency": "64",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how late the end of a training is noticed; Ray's own is 2 s
    # The node's address is 127.0.0.1, and Ray's servers then listen on loopback alone. It is Ray's default on macOS and
    # Windows; see `_on_loopback` for processes that have imported Ray.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "VLLM_HOST_IP": "127.0.0.1",
}
# Switches of Ray Data that open files of old Ray versions by unpickling their schema.
_UNPICKLING = ("RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE")
_STARTS = 3
_LONGEST_SOCKET = 107  # characters of a Unix socket's path
# Below a session root, with a process number of seven digits.
_LONGEST_ROOT = _LONGEST_SOCKET - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
_END_SECONDS = 20.0  # for killed processes to end
_LOG_LEVELS = {
    "ray.data": logging.ERROR,  # it warns of progress bars that are switched off on purpose
    "ray.train": logging.WARNING,
    "ray.tune": logging.WARNING,
    "ray.tune.analysis.experiment_analysis": logging.ERROR,  # it misses files of loggers that are switched off
    "ray.tune.utils.util": logging.ERROR,  # it warns where a busy machine takes half a second for bookkeeping
    "ray._private.authentication": logging.ERROR,  # a word at every start that a token is asked for
}


@contextmanager
def ray_session(config: ClusterConfig, *, searches: bool = True) -> Iterator[None]:
    """Connect, and disconnect at the end; a session that is there already is used and left as it is.

    What a private cluster lets other machines reach asks for a token; it has a dashboard where it `searches`. Raises
    `UserError` for a cluster that can't be reached, and where the environment has Ray unpickle what stands in files.
    """
    for switch in (name for name in _UNPICKLING if os.environ.get(name, "0") != "0"):
        raise UserError(f"{switch}={os.environ[switch]}: with it a Parquet file runs code when it is opened. Unset it.")
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
    """Whether Ray Train notifies workers that their node is about to be taken away."""
    return os.environ.get(WATCHER, "1") != "0"


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, with a message and its own exit code; Ray's handler has neither."""

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
            # Ray sets a share aside for its objects; what an engine takes is taken from both.
            memory = (there.get("memory", 0.0) + there.get("object_store_memory", 0.0)) / 2**30 or math.inf
            nodes.append(Node(cpus=there.get("CPU", 0.0), gpus=there.get("GPU", 0.0), memory_gib=memory))
    return Resources(tuple(nodes))


def _connect(config: ClusterConfig, searches: bool, port: int) -> None:
    for noisy, level in _LOG_LEVELS.items():
        logging.getLogger(noisy).setLevel(level)
    options = {"log_to_driver": True, "logging_level": logging.WARNING}
    if config.address is None:
        if named := os.environ.get("RAY_ADDRESS"):
            print(f"RAY_ADDRESS={named} is not used: to run on that cluster, set cluster.address=auto", flush=True)
        # The dashboard serves Ray's state, by which Ray Train frees what a stopped trial held; on loopback, with token.
        # Nothing else asks it, and its eight processes take seconds of two cores to start.
        dashboard = {"include_dashboard": searches, "dashboard_host": "127.0.0.1", "dashboard_port": port}
        session_root = str(_session_root())
        _start(
            partial(ray.init, address="local", num_cpus=config.num_cpus, _temp_dir=session_root), dashboard | options
        )
        return
    _join(config.address, options)


def _start(start: Callable[..., object], options: dict[str, Any]) -> None:
    """Start Ray, up to `_STARTS` times: its processes wait seconds for each other, which a busy machine may not keep.

    Raises `UserError` for a token that can't be read, and `RunError` with what Ray said last.
    """
    here = psutil.Process()
    before = set(here.children())
    for left in reversed(range(_STARTS)):
        try:
            start(**options)
        except ray.exceptions.AuthenticationError as error:  # a token file that is not there, or empty
            raise UserError(f"Ray could not be started on this machine: {first_line(error)}") from None
        except Exception as error:  # Ray raises it bare
            ray.shutdown()  # which knows nothing of processes of a start that failed; they would keep the ports
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
    """Connect to a cluster that runs. Raises `UserError` with what Ray said where that fails."""
    head = head_address(address)
    try:
        ray.init(address=head, runtime_env={"env_vars": worker_environment()}, **options)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(f"cluster.address={address!r}: Ray refused to connect: {str(error).strip()}") from None


def _private_environment(port: int) -> dict[str, str]:
    """What a private cluster's processes inherit from this one; what the user has set stays, but for the address.

    Inherited and not a runtime environment of the job: for one of those Ray starts every worker when it is wanted, and
    the workers that it has started in advance are of no use.
    """
    unset = {name: value for name, value in (_PRIVATE | QUIET).items() if name not in os.environ}
    # Where two clusters run on a machine, workers would not know which dashboard to ask.
    return {**unset, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}


@contextmanager
def _on_loopback() -> Iterator[None]:
    """A private cluster's node has the address 127.0.0.1, so that no other machine reaches Ray's servers."""
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _own_token() -> Iterator[None]:
    """A private cluster asks for a token of its own, unless RAY_AUTH_MODE says that it asks for none."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        yield
        return
    with cluster_token(_session_root().parent) as path:
        # RAY_AUTH_TOKEN would count before the file: it is another cluster's.
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path), "RAY_AUTH_TOKEN": None}
        try:
            with _environment(own):
                _read_token_again()
                yield
        finally:
            if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" or _has_token():
                _read_token_again()


def _read_token_again() -> None:
    """Ray keeps mode and token of a process. In this order: threads of a session that has just ended still ask."""
    raylet = importlib.import_module("ray._raylet")  # compiled, without types
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    """Whether the environment names a token; without one those threads would end the process."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """This process's environment with `values`, as long as the block runs; None: without the variable."""
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
    """Where Ray keeps sockets and logs of private clusters, below `RAY_TMPDIR` or the temporary folder.

    Ray opens this folder to every user of the machine (mode 0777), who could then swap sockets and logs, so it is
    inside one that nobody else may enter. A temporary folder with too long a path for sockets gives way to `/tmp`.
    Raises `UserError` where the folder can't be had, or `RAY_TMPDIR` is too long.
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
