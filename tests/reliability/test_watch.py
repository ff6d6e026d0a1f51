"""A command whose cluster is gone ends by itself, with a sentence; one whose trouble passes goes on."""

import socket
import subprocess
import sys

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
