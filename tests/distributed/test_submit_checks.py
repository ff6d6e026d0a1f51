"""What `mapl submit` finds out without a cluster: addresses, protection, paths, the plan."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mapl_ray.config import RunConfig
from mapl_ray.distributed.jobs import job_client, submit
from mapl_ray.distributed.jobs.job_client import listeners
from mapl_ray.distributed.jobs.job_environment import FORWARDED, QUIET, job_arguments, worker_environment
from mapl_ray.distributed.jobs.job_paths import absolute_paths
from mapl_ray.errors import UserError


def test_a_wrong_address_ends_quickly_with_what_to_do() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # nobody listens on it
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no Ray job server answers .*ray start --head"):
        job_client.connect(f"127.0.0.1:{port}")
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize(
    "address", ["os://x", "module:8265", "ftp://host:1", "http://user:pw@host:8265", "http://host:8265/x", "http://"]
)
def test_addresses_that_are_no_dashboard_are_refused_without_asking(address: str) -> None:
    # Ray imports a module of the scheme's name, and would send a token along to whoever is named.
    if address == "module:8265":
        assert job_client.job_server(address) == "http://module:8265"
        return
    with pytest.raises(UserError, match="expected the dashboard's address"):
        job_client.job_server(address)


def test_addresses_in_short() -> None:
    assert job_client.job_server(None) == "http://127.0.0.1:8265"
    assert job_client.job_server("auto") == "http://127.0.0.1:8265"
    assert job_client.job_server("head.example:1234") == "http://head.example:1234"
    assert job_client.job_server("https://head.example") == "https://head.example:443"
    assert job_client.job_server("[::1]:8265") == "http://[::1]:8265"


@pytest.mark.parametrize(
    ("url", "protected", "allowed", "outcome"),
    [
        ("http://127.0.0.1:8265", True, False, "quiet"),
        ("http://127.0.0.1:8265", False, False, "anyone who can reach this port"),  # one's own machine: only a word
        ("http://[::1]:8265", False, False, "anyone who can reach this port"),
        ("http://10.0.0.1:8265", True, False, "over http"),
        ("http://10.0.0.1:8265", True, True, "not encrypted"),
        ("https://10.0.0.1:8265", True, False, "quiet"),
        ("http://10.0.0.1:8265", False, False, "refused"),
        ("https://ray.example:443", False, False, "refused"),  # encrypted, and still open to all
        ("http://localhost.evil.example:8265", False, False, "refused"),
        ("http://10.0.0.1:8265", False, True, "anyone who can reach this port"),  # --allow-unprotected
    ],
)
def test_a_remote_cluster_without_a_token_is_refused(url: str, protected: bool, allowed: bool, outcome: str) -> None:
    words = {"refused": r"requires no token.*--allow-unprotected", "over http": r"over http.*--allow-plain-http"}
    options = {"allow_unprotected": allowed and not protected, "allow_plain_http": allowed and protected}
    if outcome in words:
        with pytest.raises(UserError, match=words[outcome]):
            job_client.check_protection(url, protected=protected, **options)
        return
    warnings = job_client.check_protection(url, protected=protected, **options)
    assert [outcome in warning for warning in warnings] == ([] if outcome == "quiet" else [True])


LISTEN = """
import os, socket, sys
if sys.argv[1] != "own": os.setuid(int(sys.argv[1]))
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        link, _ = server.accept()
        print(link.recv(65536).decode(), file=sys.stderr, flush=True)
        link.sendall(b"HTTP/1.1 401 Unauthorized\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
        link.close()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="another user's process takes root to start")
def test_the_token_goes_to_no_other_user_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits on a free port, answers 401 as Ray does, and would be told the token."""
    (tmp_path / "token").write_text("f" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    for user, words in (("65534", r"to another user \(uid 65534\)"), ("own", "requires a token, and the local one")):
        process = subprocess.Popen(
            [sys.executable, "-c", LISTEN, user], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        port = int(process.stdout.readline())
        try:
            assert listeners(port) == {65534 if user == "65534" else 0}
            with pytest.raises(UserError, match=words):
                job_client.connect(f"127.0.0.1:{port}")
        finally:
            process.kill()
        _, heard = process.communicate()
        # The control: Ray's client, which sends the token, asks one's own process, so this would have shown it above.
        assert ("python-requests" in heard) is (user == "own")


def test_relative_paths_are_refused_for_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shared = RunConfig.model_validate({"output_dir": "/mnt/shared/runs", "data": {"path": "org/dataset"}})
    assert absolute_paths(shared, local=False) == {}  # absolute; a hub's name; `tiny`
    with pytest.raises(UserError, match="output_dir='runs': a relative path, ~ or a variable of this"):
        absolute_paths(RunConfig(), local=False)
    assert absolute_paths(RunConfig(), local=True) == {"output_dir": str(tmp_path / "runs")}
    judged = {"judge": {"model": "policy"}, "pair_reward_model": "./rm", "ref_model": "s3://bucket/policy"}
    models = RunConfig.model_validate({"output_dir": "/mnt/runs", "scoring": judged})
    assert absolute_paths(models, local=True) == {"scoring.pair_reward_model": str(tmp_path / "rm")}
    with pytest.raises(UserError, match=r"scoring.pair_reward_model='./rm': a relative path"):
        absolute_paths(models, local=False)
    (tmp_path / "a.jsonl").touch()
    sources = {"mix": [{"path": "a.jsonl", "weight": 2.0}, {"path": "org/dataset"}], "benchmarks": ["./b.txt"]}
    sets = {"rewardbench": "org/bench", "mine": {"path": "./c.jsonl", "limit": 5}}
    several = {"output_dir": "/mnt/runs", "data": sources, "evaluation": {"sets": sets, "models": ["./m", "org/model"]}}
    here = str(tmp_path)
    assert absolute_paths(RunConfig.model_validate(several), local=True) == {
        "data.mix": [{"path": f"{here}/a.jsonl", "weight": 2.0}, {"path": "org/dataset"}],
        "data.benchmarks": [f"{here}/b.txt"],
        "evaluation.models": [f"{here}/m", "org/model"],
        "evaluation.sets.mine": {"path": f"{here}/c.jsonl", "limit": 5},
    }
    with pytest.raises(UserError, match=r"data.mix.path='a.jsonl': a relative path"):
        absolute_paths(RunConfig.model_validate(several), local=False)
    own = RunConfig.model_validate(
        {"output_dir": "/mnt/runs", "synthesis": {"modules": ["mine.py", "installed.module"]}}
    )
    assert absolute_paths(own, local=True) == {"synthesis.modules": (str(tmp_path / "mine.py"), "installed.module")}
    with pytest.raises(UserError, match=r"synthesis.modules=.*has no meaning on another machine"):
        absolute_paths(own, local=False)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["synthesize"], "CPUs as they become free"),
        (["score"], "score: 8 CPU, 8 GPU"),  # 8 engines of one CPU and one GPU
        (["train", "rm"], "train rm: 32 CPU, 8 GPU"),  # 8 workers of 4 CPU and one GPU
        (["tune"], "tune: 32 CPU, 8 GPU"),  # one trial at a time
        (["evaluate"], "evaluate: 1 CPU, 1 GPU"),
    ],
)
def test_the_plan_names_what_a_command_wants(command: list[str], expected: str) -> None:
    values = {
        "scoring": {"num_engines": 8, "gpus_per_engine": 1},
        "train": {"num_workers": 8, "gpus_per_worker": 1, "cpus_per_worker": 4},
        "evaluation": {"gpus": 1},
    }
    assert submit.resources_line(RunConfig.model_validate(values), command) == expected


def test_the_plan_counts_a_pools_fewest_engines_and_those_that_look_at_pairs() -> None:
    scoring = {"concurrency": [2, 4], "cpus_per_engine": 3, "judge": {"model": "policy"}}
    assert (
        submit.resources_line(RunConfig.model_validate({"scoring": scoring}), ["synthesize"])
        == "score pairs: 6 CPU, 0 GPU"
    )


def test_a_job_joins_the_cluster_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert job_arguments(["--config", "a.yaml"]) == ["--config", "a.yaml"]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert job_arguments(["--config", "a.yaml"]) == ["--config", "a.yaml", "cluster.address=auto"]
    assert job_arguments(["cluster.address=h:1"]) == ["cluster.address=h:1"]


def test_a_driver_leaves_out_what_its_job_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray refuses a variable that both set. What the shell sets wins over our defaults."""
    for name in (*FORWARDED, *QUIET):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert worker_environment() == QUIET
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert worker_environment() == QUIET | {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "error"}
    for env_vars in ({"HF_HUB_OFFLINE": "0"}, {"PYTHONWARNINGS": "error", "TORCH_CPP_LOG_LEVEL": "INFO"}, {}):
        job = {"runtime_env": {"env_vars": env_vars}, "metadata": {}}
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
        assert set(worker_environment()) == {*QUIET, "HF_HUB_OFFLINE"} - {*env_vars}
    for job in ({}, {"runtime_env": None}, {"runtime_env": {}}):
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
        assert set(worker_environment()) == {*QUIET, "HF_HUB_OFFLINE"}


def test_a_token_is_not_sent_over_http_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_client, "asks_for_token", lambda url: True)
    monkeypatch.setattr(job_client, "JobSubmissionClient", lambda url: pytest.fail("the token was sent"))
    with pytest.raises(UserError, match=r"over http.*--allow-plain-http"):
        job_client.connect("http://10.0.0.1:8265")
