"""SIGKILL of the Ray head, without fault tolerance and with its state in Redis."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.reliability.commands import kill, start, wait_until
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.hosts import cluster, lose
from benchmarks.reliability.runs import compare_data, parts, synthesis_words, undisturbed_synthesis

END_SECONDS = 120.0
AWAY_SECONDS = 10.0  # downtime of the GCS until it is restarted


def no_redis() -> str:
    """Why Redis can't be used; empty if it can."""
    return "" if shutil.which("redis-server") else "redis-server not installed"


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Start a Redis server on loopback; yield its address."""
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def without_tolerance(scene: Scene) -> Outcome:
    """The head's host is lost while the driver lives: the command ends with a message; another cluster resumes it."""
    there, outcome, folder = undisturbed_synthesis(scene), Outcome(), scene.folder
    total = parts(there, "groups")
    with cluster(folder / "ray") as ray:
        ray.add(1)
        command = start(synthesis_words(scene, folder, f"cluster.address={ray.address}"), folder)
        wait_until(lambda: parts(folder / "run", "groups") >= total // 4, command)
        kill(ray.gcs)
        lose(ray.ray.head_node)
        began = time.monotonic()
        code = command.finish(END_SECONDS)
        outcome.seconds.append(time.monotonic() - began)
        outcome.message = command.message().replace(ray.address, "HOST:PORT")
    outcome.check(f"exit code 1 within {END_SECONDS:.0f} s, with a sentence that says what is wrong", code == 1)
    outcome.check(
        f"exit code 1 within {END_SECONDS:.0f} s, with a sentence that says what is wrong", "head" in outcome.message
    )
    at = parts(folder / "run", "groups")
    code = start(synthesis_words(scene, folder), folder).finish(300)
    outcome.check("the same command, given to another cluster, ends with exit code 0", code == 0)
    compare_data(outcome, there, folder / "run", "pairs", "groups")
    outcome.lost = f"the parts in hand; {at} of {total} were taken over"
    return outcome


def with_tolerance(scene: Scene) -> Outcome:
    """The GCS dies during a run and comes back: the command continues."""
    there, outcome, folder = undisturbed_synthesis(scene), Outcome(), scene.folder
    total = parts(there, "groups")
    with redis(folder / "redis") as address, cluster(folder / "ray", RAY_REDIS_ADDRESS=address) as ray:
        ray.add(1)
        command = start(synthesis_words(scene, folder, f"cluster.address={ray.address}"), folder)
        wait_until(lambda: parts(folder / "run", "groups") >= total // 4, command)
        kill(ray.gcs)
        began = time.monotonic()
        time.sleep(AWAY_SECONDS)
        ray.start_gcs_again()
        at = parts(folder / "run", "groups")
        outcome.check("the command runs on while the GCS is away", command.process.poll() is None or at == total)
        wait_until(lambda: parts(folder / "run", "groups") in {total, at + 1}, command)
        outcome.seconds.append(time.monotonic() - began)
        outcome.check("the same command goes on by itself, and ends with exit code 0", command.finish(300) == 0)
        compare_data(outcome, there, folder / "run", "pairs", "groups")
    outcome.lost = f"nothing; {at} of {total} parts were there when the GCS came back"
    return outcome


FAULTS = (
    Fault(
        name="head",
        of_issue="head without GCS fault tolerance",
        title="The head is lost, without GCS fault tolerance",
        happens="the cluster is gone with it; the command says so and ends, and goes on on another cluster",
        user="The sentence below, and exit code 1. Start a cluster, and give the same command again.",
        recovery="from the loss to the end of the command",
        rounds=1,
        limit_seconds=600,
        measure=without_tolerance,
    ),
    Fault(
        name="head-redis",
        of_issue="head with GCS fault tolerance",
        title="SIGKILL of the head's GCS, its state in Redis",
        happens="the GCS is started again and finds its state; workers and command run on",
        user=(
            "Nothing has to be done, where something starts the GCS again (KubeRay does) within Ray's "
            "`RAY_gcs_rpc_server_reconnect_timeout_s`, 60 s. A driver that is on the head's own pod goes with the pod: "
            "then give the same command again."
        ),
        recovery=f"from the kill to the next part after the GCS is back; it is away for {AWAY_SECONDS:.0f} s of them",
        rounds=1,
        limit_seconds=600,
        measure=with_tolerance,
        missing=no_redis,
    ),
)
