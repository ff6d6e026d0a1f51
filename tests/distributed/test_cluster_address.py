"""Clusters that a command is to join: found out within seconds whether there is one, before Ray waits for it."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray

from mapl_ray import doctor
from mapl_ray.cli import main
from mapl_ray.config import RunConfig
from mapl_ray.distributed import cluster_address
from mapl_ray.distributed.cluster_address import head_address
from mapl_ray.distributed.jobs import job_client
from mapl_ray.errors import UserError

NOBODY = "127.0.0.1:9"  # the discard service, which nobody runs


@pytest.fixture
def dashboard() -> Iterator[str]:
    """A server of HTTP/1, as the dashboard is."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def mute() -> Iterator[str]:
    """Accepts connections and never answers, as the near end of a tunnel that goes nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("given", ["the config", "RAY_ADDRESS"])
def test_a_cluster_that_is_not_there_is_the_users_mistake(
    without_ray: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    given: str,
) -> None:
    """From the command line: exit code 2 with one line, at once."""
    monkeypatch.setenv("RAY_ADDRESS", NOBODY)
    address = NOBODY if given == "the config" else "auto"
    started = time.monotonic()
    assert main(["synthesize", "data.path=demo", f"output_dir={tmp_path}", f"cluster.address={address}"]) == 2
    assert time.monotonic() - started < 55.0  # Ray waits for 60 s and more
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    named = f"cluster.address={NOBODY!r}" if given == "the config" else f"RAY_ADDRESS={NOBODY!r}"
    assert f"mapl: error: {named}: no Ray cluster answers there: [Errno 111] Connection refused. Start a" in error


def test_what_listens_there_is_no_head(dashboard: str, mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_address, "_ANSWER_SECONDS", 0.5)
    for address in (dashboard, mute):
        with pytest.raises(UserError, match=rf"address='{address}': the server there .* not the dashboard's \(8265\)"):
            head_address(address)


@pytest.mark.parametrize(
    ("address", "cure"),
    [
        ("ray://10.0.0.7:10001", "do not run through Ray Client. To run there from this machine: `mapl submit"),
        ("http://10.0.0.7:8265", "To run there from this machine: `mapl submit"),
        ("local", "To run on this machine, leave cluster.address out"),
        ("10.0.0.7", "expected `auto` or host:port"),
        ("10.0.0.7:99999", "expected `auto` or host:port"),
        ("", "expected `auto` or host:port"),
    ],
)
def test_addresses_of_another_form_are_refused_without_asking(address: str, cure: str) -> None:
    with pytest.raises(UserError) as error:
        head_address(address)
    assert f"cluster.address={address!r}" in str(error.value)
    assert cure in str(error.value)


def test_no_password_is_shown() -> None:
    with pytest.raises(UserError, match="may hold a password") as error:
        head_address("http://me:hunter2@10.0.0.7:8265")
    assert "hunter2" not in str(error.value)


@pytest.mark.ray
def test_a_head_that_asks_for_a_token_answers(local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    address = ray.get_runtime_context().gcs_address
    assert head_address(address) == address
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert head_address("auto") == address


@pytest.mark.ray
def test_another_token_is_the_users_mistake(local_ray: None, tmp_path: Path) -> None:
    """From a process of its own: Ray reads the token once. Without this, `ray.init` does not say what is wrong."""
    words = [sys.executable, "-m", "mapl_ray.cli", "synthesize", "data.path=demo", f"output_dir={tmp_path}"]
    words.append(f"cluster.address={ray.get_runtime_context().gcs_address}")
    for token in ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}, {"RAY_AUTH_MODE": "disabled"}):
        done = subprocess.run(words, env={**os.environ, **token}, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2, done.stderr
        assert "the cluster requires a token, and the local one is missing or wrong. Set RAY_" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_doctor_says_whether_the_cluster_answers() -> None:
    config = RunConfig.model_validate({"cluster": {"address": NOBODY}})
    (finding,) = (finding for finding in doctor.diagnose(config) if finding.what == "cluster")
    assert finding.level == "fail"
    assert "no Ray cluster answers there" in finding.detail


def test_a_job_server_that_never_answers(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_client, "ANSWER_SECONDS", 0.5)
    with pytest.raises(UserError, match=rf"http://{mute}: no Ray job server answers \(timed out\). Start one"):
        job_client.connect(mute)
