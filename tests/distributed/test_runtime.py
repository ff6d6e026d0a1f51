"""The private session: beside another cluster on the same machine, and a training that is told to stop."""

import ipaddress
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray
from ray._private import worker as ray_worker

from mapl_ray.config import RunConfig
from mapl_ray.distributed.runtime import _session_root, _start
from mapl_ray.distributed.train import run_training
from mapl_ray.errors import RunError, UserError
from mapl_ray.training.checkpoint import committed
from mapl_ray.training.result import TrainResult
from tests.waiting import until

OTHER = """
from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.runtime import ray_session
with ray_session(ClusterConfig(num_cpus=1)):
    print("up", flush=True)
    input()
"""


@pytest.fixture
def another_cluster() -> Iterator[list[str]]:
    """As a colleague's, or one's own second run, from a shell that names a cluster. What it printed as it started."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER],
        env={**os.environ, "RAY_ADDRESS": "10.0.0.7:6379"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    printed = list(itertools.takewhile(lambda line: line != "up\n", iter(process.stdout.readline, "")))
    assert process.poll() is None, process.communicate()
    yield printed
    process.communicate("\n", timeout=60)


@ray.remote(num_cpus=0)
class Worker:
    def actor_id(self) -> str:
        return str(ray.get_runtime_context().get_actor_id())


@ray.remote(num_cpus=0)
def state_of(actor_id: str) -> str:
    from ray.util.state import get_actor

    found = get_actor(actor_id, timeout=20)
    return found.state if found is not None else "unknown"


def test_workers_ask_the_cluster_that_they_belong_to(local_ray: None, another_cluster: list[str]) -> None:
    """So Ray Train frees what a stopped trial held; where it can't tell whom to ask, the search waits forever."""
    # A private cluster starts whatever the shell names, and says so.
    unused = "RAY_ADDRESS=10.0.0.7:6379 is not used: to run on that cluster, set cluster.address=auto\n"
    assert another_cluster.count(unused) == 1
    worker = Worker.remote()  # type: ignore[attr-defined]
    actor_id = ray.get(worker.actor_id.remote())
    assert ray.get(state_of.remote(actor_id), timeout=60) == "ALIVE"
    ray.kill(worker)


def test_no_other_user_reaches_the_sessions_sockets_and_logs(local_ray: None) -> None:
    """Ray opens the session's folder to everybody; one of the folders above it is the user's alone."""
    session = Path(ray_worker._global_node.get_session_dir_path())
    assert (session / "logs").is_dir()
    closed = [folder.stat() for folder in session.parents if not folder.stat().st_mode & 0o077]
    assert closed
    assert {folder.st_uid for folder in closed} == {os.getuid()}


def test_a_folder_whose_path_is_too_long_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's choice for Ray is an error; any other temporary folder gives way to /tmp."""
    monkeypatch.setenv("TMPDIR", "/tmp/" + "t" * 60)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    assert _session_root() == Path(f"/tmp/mapl-{os.getuid()}/r")
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "r" * 60)
    with pytest.raises(UserError, match=r"RAY_TMPDIR=/tmp/r+: 65 characters; expected at most 3\d,"):
        _session_root()


def test_no_other_machine_reaches_its_servers(local_ray: None) -> None:
    """Of the driver, the workers and every process that Ray starts; a worker that is there has its server too."""
    assert ray.get(ray.remote(ray.util.get_node_ip_address).remote(), timeout=60) == "127.0.0.1"
    driver, session = psutil.Process(), ray_worker._global_node.get_session_dir_path()
    own = {process.pid for process in (driver, *driver.children(recursive=True))}
    processes = psutil.process_iter(["cmdline"])  # None of one that has just ended
    own |= {process.pid for process in processes if session in " ".join(process.info["cmdline"] or [])}
    listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN and one.pid in own]
    assert len({one.pid for one in listening}) > 3
    addresses = {ipaddress.ip_address(one.laddr.ip.removeprefix("::ffff:")) for one in listening}
    assert {address for address in addresses if not address.is_loopback} == set()


@pytest.mark.parametrize(
    ("says", "starts"),
    [("The current node timed out during startup.", 3), ("No such file: gcs_server", 1)],
)
def test_a_start_that_a_busy_machine_is_late_with_is_tried_again(
    says: str, starts: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a start leaves that fails, such as the dashboard, would keep its port: it is ended, and nothing else is."""
    tried: list[dict[str, int]] = []
    left: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # a session that other tests use is up in this process

    def start(fails: int, **options: int) -> None:
        assert all(process.poll() is not None for process in left)
        tried.append(options)
        if len(tried) <= fails:
            left.append(subprocess.Popen(["sleep", "600"]))
            raise Exception(says)

    other = subprocess.Popen(["sleep", "600"])

    with pytest.raises(RunError, match=says):
        _start(partial(start, 9), {"num_cpus": 1})
    assert tried == [{"num_cpus": 1}] * starts
    assert all(process.poll() is not None for process in left)
    tried.clear()
    capsys.readouterr()
    if starts > 1:
        _start(partial(start, 1), {"num_cpus": 1})
        assert len(tried) == 2
        assert capsys.readouterr().out == "  Ray's processes did not start in time; starting them again\n"
    assert other.poll() is None
    other.kill()
    other.wait()


STEPS = 60


@pytest.fixture
def training(run_to_train: Callable[..., RunConfig]) -> RunConfig:
    """No checkpoint but the one that is asked for."""
    return run_to_train(max_steps=STEPS, gradient_accumulation_steps=2, checkpoint_every_steps=999)


@pytest.mark.faults
def test_sigterm_in_the_middle_of_training_loses_no_step(local_ray: None, training: RunConfig) -> None:
    """To the driver, once three steps are done: a checkpoint after the current step, and nothing after it."""
    output = training.run_dir / "rm"
    metrics = output / "metrics.jsonl"

    def steps() -> list[int]:
        return [json.loads(line)["step"] for line in metrics.read_text().splitlines()] if metrics.is_file() else []

    def train() -> TrainResult:
        config, model = training.training("rm"), training.model.name_or_path
        return run_training(training, "rm", train_config=config, model_path=model, output=output)

    def terminate() -> None:
        until(lambda: len(steps()) >= 3, "three steps")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):  # exit code 130 of `mapl`
        train()
    (checkpoint,) = committed(output / "checkpoints")
    stopped = int(checkpoint.name.removeprefix("step-"))
    assert 3 <= stopped < STEPS
    assert steps() == list(range(1, stopped + 1))
    assert not (output / "result.json").exists()
    assert not list(output.glob("stop-*"))
    result = train()
    assert (result.resumed_step, result.steps) == (stopped, STEPS)
    assert steps() == list(range(1, STEPS + 1))
    assert (output / "model" / "config.json").is_file()
