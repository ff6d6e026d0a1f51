"""A command whose cluster is gone ends by itself, with a sentence; one whose trouble passes goes on."""

import socket
import subprocess
import sys
import tempfile

import pytest

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


DRIVER = """
import sys, time
from mapl_ray.config import ClusterConfig
from mapl_ray.distributed import runtime
runtime.HEAD_SECONDS = 25.0
with runtime.ray_session(ClusterConfig(address=sys.argv[1])):
    print("connected", flush=True)
    time.sleep(90)
"""
# In a process of its own: Ray reads once per process which token it uses.
CLUSTER = """
import os, subprocess, sys
from pathlib import Path
from benchmarks.reliability.commands import kill
from benchmarks.reliability.hosts import cluster
with cluster(Path(sys.argv[1]) / "ray") as ray:
    environment = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}
    driver = subprocess.Popen([sys.executable, "-c", sys.argv[2], ray.address], env=environment, stdout=subprocess.PIPE)
    while driver.stdout.readline() not in {b"connected\\n", b""}:
        pass
    kill(ray.gcs)
    sys.exit(driver.wait(timeout=100))
"""


@pytest.mark.faults
def test_the_message_comes_however_late_the_check_is() -> None:
    """Ray's own limit, 10 s here, ends the cluster's processes and not the driver, which has more to say."""
    with tempfile.TemporaryDirectory() as folder:  # Ray's sockets have no room for the name of a test
        command = [sys.executable, "-c", CLUSTER, folder, DRIVER]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1, done.stderr
    assert "mapl: failed: the head of the Ray cluster" in done.stderr
