"""A Ray session: a private cluster of this machine, or the one that the config names."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import ray

from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.resources import Node, Resources
from mapl_ray.distributed.token_file import ensure_token_file
from mapl_ray.distributed.watch import HEAD_SECONDS, head_problem, watched
from mapl_ray.errors import UserError

_FORWARDED = ("HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM")
# Of workers: what the libraries say about themselves would bury a run's own lines.
_QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it shows every line of a worker twice
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
}
# Ports for Prometheus ask for no token and listen on every interface; Ray starts no server on port -1.
_NO_METRICS = {
    "RAY_enable_metrics_collection": "false",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}
# Switches of Ray Data that open files of old Ray versions by unpickling their schema.
_UNPICKLING = ("RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE")
_LOG_LEVELS = {
    "ray.data": logging.ERROR,  # it warns of progress bars that are switched off on purpose
    "ray.train": logging.WARNING,
    "ray.tune": logging.WARNING,
    "ray._private.authentication": logging.ERROR,  # a word at every start that a token is asked for
}


@contextmanager
def ray_session(config: ClusterConfig, *, trains: bool = True) -> Iterator[None]:
    """Connect, and disconnect at the end; a session that is there already is used and left as it is.

    What a private cluster lets other machines reach asks for a token; it has a dashboard where it `trains`. Raises
    `UserError` for a cluster that can't be reached, and where the environment has Ray unpickle what stands in files.
    """
    for switch in (name for name in _UNPICKLING if os.environ.get(name, "0") != "0"):
        raise UserError(f"{switch}={os.environ[switch]}: with it a Parquet file runs code when it is opened. Unset it.")
    if ray.is_initialized():
        yield
        return
    _connect(config, trains)
    try:
        head = head_problem(ray.get_runtime_context().gcs_address)
        with _sigterm_interrupts(), watched(head, HEAD_SECONDS):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, with a word and a code of its own; Ray's handler would leave without."""

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


def _connect(config: ClusterConfig, trains: bool) -> None:
    environment = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    environment |= _QUIET
    for noisy, level in _LOG_LEVELS.items():
        logging.getLogger(noisy).setLevel(level)
    options = {"log_to_driver": True, "logging_level": logging.WARNING, "runtime_env": {"env_vars": environment}}
    if config.address is None:
        # Reports on usage would leave the machine; a private cluster asks nobody and tells nobody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        for name, value in _NO_METRICS.items():
            os.environ.setdefault(name, value)
        ensure_token_file()
        # The dashboard serves Ray's state, by which Ray Train frees what a stopped trial held; on loopback, with token.
        # Nothing else asks it, and its eight processes take seconds of two cores to start.
        # Its port is told to all workers: where two clusters run on a machine, Ray would not know whom to ask.
        port = _free_port()
        environment["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
        dashboard = {"include_dashboard": trains, "dashboard_host": "127.0.0.1", "dashboard_port": port}
        ray.init(address="local", num_cpus=config.num_cpus, **dashboard, **options)
        return
    try:
        ray.init(address=config.address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"cluster.address={config.address!r}: no Ray cluster could be reached: {reason}. Start one with "
            "`ray start --head`, name another, or leave the address out to run on this machine."
        ) from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
