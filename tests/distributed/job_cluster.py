"""A real Ray cluster on this machine that jobs are submitted to, with a token, its own ports and its own folder."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray._private.authentication_test_utils import reset_auth_token_state

from mapl_ray.distributed.jobs import submit

SWITCHES = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "DS_ACCELERATOR": "cpu"}
QUIET = {"PYTHONWARNINGS": "ignore::ResourceWarning", "RAY_TRAIN_ENABLE_PRINT_PATCH": "1"}


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; all are held open together, so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 180.0) -> None:
    """Return once the cluster has its node: the dashboard answers some seconds before that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if submit.available(url).startswith("1 node(s)"):
            return
        time.sleep(0.3)
    pytest.fail(f"no Ray cluster at {url}:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def cluster(without_ray: None) -> Iterator[str]:
    """The dashboard's address of a one-node cluster that asks for the token this process is given."""
    # Not tmp_path: Ray's socket paths must stay below 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="mapl"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    gcs, dashboard, client, agent, metrics = free_ports(5)  # another Ray may have the usual ones
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.delenv("RAY_ADDRESS", raising=False)
        reset_auth_token_state()  # Ray reads mode and token once per process, when it is imported
        command = [
            *(Path(sys.executable).parent / "ray", "start", "--head", "--block", f"--port={gcs}", "--num-cpus=1"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
            *(f"--temp-dir={folder}", "--disable-usage-stats", "--object-store-memory=100000000"),
        ]
        log = folder / "head.log"
        # Nothing runs on it any more when it is stopped, so there is nothing to drain.
        environment = {**os.environ, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
        for name in (*SWITCHES, *QUIET):  # jobs inherit the head's environment
            environment.pop(name, None)
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            url = f"http://127.0.0.1:{dashboard}"
            wait_until_up(url, process, log)
            yield url
        finally:
            process.terminate()  # `ray start --block` takes its processes with it
            process.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)
    reset_auth_token_state()
