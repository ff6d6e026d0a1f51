"""The private session, beside another cluster on the same machine."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import ray

OTHER = """
from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.runtime import ray_session
with ray_session(ClusterConfig(num_cpus=1)):
    print("up", flush=True)
    input()
"""


@pytest.fixture
def another_cluster() -> Iterator[None]:
    """As a colleague's, or one's own second run."""
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert "up\n" in iter(process.stdout.readline, ""), process.communicate()
    yield
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


def test_workers_ask_the_cluster_that_they_belong_to(local_ray: None, another_cluster: None) -> None:
    """So Ray Train frees what a stopped trial held; where it can't tell whom to ask, the search waits for ever."""
    worker = Worker.remote()  # type: ignore[attr-defined]
    actor_id = ray.get(worker.actor_id.remote())
    assert ray.get(state_of.remote(actor_id), timeout=60) == "ALIVE"
    ray.kill(worker)
