"""A command whose cluster is gone ends by itself, with a sentence; one whose trouble passes goes on."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import pytest

from benchmarks.reliability.commands import kill
from benchmarks.reliability.hosts import cluster
from mapl_ray.distributed.watch import head_problem

SCRIPT = """
import time
from mapl_ray.distributed import watch
watch._EVERY_SECONDS = 0.05
troubles = iter(["a passing trouble"] * 3 + [""] * 3 + ["the cluster is gone"] * 1000)
with watch.watched(lambda: next(troubles), 0.4):
    time.sleep(30)
"""


def test_trouble_that_stays_ends_the_process_and_is_told() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (1, "mapl: failed: the cluster is gone\n")


def test_a_head_is_missed_only_while_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        problem = head_problem(f"127.0.0.1:{server.getsockname()[1]}")
        assert problem() == ""
    assert "has not answered" in problem()


LATE = """
import sys, time
from mapl_ray.config import ClusterConfig
from mapl_ray.distributed import runtime
runtime.HEAD_SECONDS = 25.0
with runtime.ray_session(ClusterConfig(address=sys.argv[1])):
    print("connected", flush=True)
    time.sleep(90)
"""


@pytest.mark.long
def test_the_message_comes_however_late_the_check_is() -> None:
    """Ray's own limit, 10 s here, ends the cluster's processes and not the driver, which has more to say."""
    with (
        tempfile.TemporaryDirectory() as folder,  # Ray's sockets have no room for the name of a test
        patch.dict(os.environ),
        cluster(Path(folder) / "ray") as ray,
    ):
        environment = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}
        driver = subprocess.Popen(
            [sys.executable, "-c", LATE, ray.address],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert driver.stdout is not None
        while driver.stdout.readline() not in {"connected\n", ""}:
            pass
        kill(ray.gcs)
        errors = driver.communicate(timeout=100)[1]
    assert driver.returncode == 1
    assert "mapl: failed: the head of the Ray cluster" in errors
