"""`mapl submit` against a real Ray cluster on this machine, with a token, its own ports and its own folder."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ray.job_submission import JobDetails, JobSubmissionClient

from mapl_ray.config import load_config
from mapl_ray.data.shards import fingerprint_of
from mapl_ray.distributed.jobs import job_client, submit
from mapl_ray.errors import UserError
from tests.distributed.job_cluster import QUIET, SWITCHES

ROOT = Path(__file__).resolve().parents[2]
# A job that ends with the code it is given and says every word it got, one a line.
ECHO = "import sys; print(*sys.argv[1:], sep='\\n'); sys.exit(int(sys.argv[1]))"
# A job that opens the session of `mapl` and prints what a worker has of the named variables.
SEEN = """
import json, os, sys
import ray
from mapl_ray.config import ClusterConfig
from mapl_ray.distributed.runtime import ray_session
names = sys.argv[1:]
with ray_session(ClusterConfig(address="auto")):
    seen = ray.get(ray.remote(num_cpus=0)(lambda: {name: os.environ.get(name) for name in names}).remote())
    print("seen", json.dumps(seen))
"""


@pytest.fixture(scope="module")
def client(cluster: str) -> JobSubmissionClient:
    found, url, warnings = job_client.connect(cluster)
    assert url == cluster
    assert warnings == []  # loopback and a token: nothing to warn of
    return found


@pytest.mark.ray
@pytest.mark.parametrize("code", [2, *(pytest.param(code, marks=pytest.mark.long) for code in (0, 1))])
def test_the_jobs_exit_code_comes_back_and_every_word_survives_the_shell(
    client: JobSubmissionClient, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    words = [
        "two words",
        "a \"double\" and a 'single' quote",
        "$HOME `id` $(id) ; exit 7 # | & > x",
        "data.path=[1, 2]",
    ]
    command = [sys.executable, "-c", ECHO, str(code), *words]
    assert submit.run_job(client, command, tmp_path, url=cluster, label="test") == code
    # Each word is a line of the log, exactly as it was given.
    shown = capsys.readouterr().out.splitlines()
    start = shown.index(words[0])
    assert shown[start : start + len(words)] == words
    assert f"job {newest(client).submission_id}: {'succeeded' if code == 0 else 'failed'}" in shown


def newest(client: JobSubmissionClient) -> JobDetails:
    return max(client.list_jobs(), key=lambda job: job.start_time or 0)


@pytest.mark.ray
def test_submit_runs_the_cli_with_the_config_and_shows_the_plan(
    client: JobSubmissionClient, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "my config's name.yaml"  # a name that a shell would trip over
    config.write_text("name: from-a-job\noutput_dir: somewhere\n")
    # --print-config ends before any work: the whole way to the command line and back, and nothing more.
    command = ["doctor", "--print-config"]
    assert submit.submit(config, command, cluster, ["data.path=it's here.jsonl", "seed=7"]) == 0
    out = capsys.readouterr().out
    assert "available  1 node(s), 1 CPU, 0 GPU" in out
    printed = out[out.index("name: from-a-job") :]
    assert "seed: 7" in printed
    assert "path: it's here.jsonl" in printed
    # Relative to this folder, not to the one the job starts in.
    assert f"output_dir: {Path.cwd() / 'somewhere'}" in printed
    assert "address: auto" in printed  # the cluster it was submitted to, not a private one
    assert "token" not in newest(client).entrypoint


@pytest.mark.ray
def test_the_users_mistake_in_a_job_comes_back_as_2(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("name: demo\n")
    # Only the job finds out: `submit` hands the words on as they are.
    assert submit.submit(config, ["synthesize", "--no-such-option"], cluster) == 2
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.long
def test_the_scripts_run_under_plain_ray_job_submit(cluster: str, tmp_path: Path) -> None:
    for name in ("mapl_ray", "jobs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = ["jobs/train_rm.py", "--print-config", "--config", "mapl_ray/demo.yaml", "train.zero_stage=1"]
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "ray", "job", "submit", "--address", cluster),
            *("--working-dir", tmp_path, "--", sys.executable, *script),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "zero_stage: 1" in done.stdout
    assert "address: auto" in done.stdout  # the script adds it: this cluster, not a private one


def seen_by_workers(client: JobSubmissionClient, job_id: str) -> dict[str, str | None]:
    shown: list[str] = []
    code = job_client.follow(client, job_id, shown.append)
    assert code == 0, "".join(shown)
    line = next(line for line in "".join(shown).splitlines() if line.startswith("seen "))
    found: dict[str, str | None] = json.loads(line.removeprefix("seen "))
    return found


@pytest.mark.ray
@pytest.mark.long
def test_what_the_job_sets_is_set_once_and_reaches_the_workers(
    client: JobSubmissionClient, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `mapl submit`, and as `ray job submit --runtime-env-json` and a RayJob hand it over."""
    (tmp_path / "seen.py").write_text(SEEN)
    names = [*SWITCHES, *QUIET]
    command = [sys.executable, "seen.py", *names]
    for name in names:
        monkeypatch.delenv(name, raising=False)

    def submitted(**variables: str) -> str:
        """By `mapl submit` from a shell with these variables."""
        with pytest.MonkeyPatch.context() as shell:
            for name, value in variables.items():
                shell.setenv(name, value)
            assert submit.run_job(client, command, tmp_path, url=cluster, label="test", wait=False) == 0
        return newest(client).submission_id

    def handed_over(**variables: str) -> str:
        runtime_env = {"working_dir": str(tmp_path), "env_vars": variables}
        return str(client.submit_job(entrypoint=shlex.join(command), runtime_env=runtime_env))

    unset: dict[str, str | None] = dict.fromkeys(SWITCHES)
    quiet = {"PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning", "RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}
    jobs = {
        submitted(): unset | quiet,
        submitted(**SWITCHES): SWITCHES | quiet,
        handed_over(): unset | quiet,
        handed_over(**SWITCHES, **QUIET): SWITCHES | QUIET,
    }
    assert {job: seen_by_workers(client, job) for job in jobs} == jobs


@pytest.mark.ray
def test_a_job_can_be_left_alone_listed_and_stopped(
    client: JobSubmissionClient, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", "import time; print('started', flush=True); time.sleep(600)"]
    assert submit.run_job(client, command, tmp_path, url=cluster, label="sleeper", wait=False) == 0
    job = newest(client)
    assert shlex.split(job.entrypoint) == command
    assert f"ray job stop --address {cluster} {job.submission_id}" in capsys.readouterr().out
    assert client.stop_job(job.submission_id)
    shown: list[str] = []
    assert job_client.follow(client, job.submission_id, shown.append) == 130  # stopped


@pytest.mark.ray
@pytest.mark.long
def test_a_job_that_runs_already_is_followed_and_not_started_twice(
    client: JobSubmissionClient, cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"name: twice\noutput_dir: {tmp_path}\n")
    metadata = {
        "mapl_run": f"{tmp_path}/twice",
        "mapl_config": fingerprint_of(load_config(config).model_dump(mode="json")),
    }
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    submit.run_job(client, sleeper, tmp_path, url=cluster, label="mapl report", wait=False, metadata=metadata)
    job = newest(client).submission_id
    assert submit.submit(config, ["report"], cluster, wait=False) == 0
    assert f"job {job} already runs this command with the same config" in capsys.readouterr().out
    assert newest(client).submission_id == job
    with pytest.raises(
        UserError, match=rf"job {job} runs `mapl report` on .*twice with another config. .*ray job stop"
    ):
        submit.submit(config, ["report"], cluster, ["seed=7"], wait=False)
    assert client.stop_job(job)
    assert job_client.follow(client, job, lambda text: None) == 130
    assert submit.submit(config, ["report"], cluster) == 2  # it has ended: a new one, which finds no such run
    assert newest(client).submission_id != job


@pytest.mark.ray
def test_a_wrong_or_missing_token_is_told_from_a_wrong_address(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "token"
    other.write_text("f" * 64)
    # As above: asked from a fresh process.
    code = (
        "import sys\nfrom mapl_ray.distributed.jobs.job_client import connect\nfrom mapl_ray.errors import UserError\n"
        "try: connect(sys.argv[1])\nexcept UserError as error: print(error)\n"
    )
    for environment in ({"RAY_AUTH_TOKEN_PATH": str(other)}, {"RAY_AUTH_MODE": "disabled"}):
        done = subprocess.run(
            [sys.executable, "-c", code, cluster],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "requires a token, and the local one is missing or wrong" in done.stdout, done.stderr[-2000:]
        assert "Traceback" not in done.stderr


@pytest.mark.ray
def test_another_address_in_the_environment_does_not_win(
    client: JobSubmissionClient, cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Port 9 of loopback: nothing answers there.
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")
    assert job_client.connect(cluster)[1] == cluster
    assert submit.available(cluster) == "1 node(s), 1 CPU, 0 GPU"
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:9"  # put back


@pytest.mark.ray
def test_the_clusters_files_are_known_to_be_ours_when_it_runs_here(client: JobSubmissionClient, cluster: str) -> None:
    assert job_client.on_this_machine(client, cluster)


@pytest.mark.ray
def test_the_far_end_of_a_tunnel_is_another_machine(cluster: str) -> None:
    """Asked from where the address is the same loopback one and no process of the cluster is to be seen."""
    elsewhere = ["unshare", "--fork", "--pid", "--mount-proc"]
    if subprocess.run([*elsewhere, "true"], capture_output=True).returncode != 0:
        pytest.skip("namespaces can't be made here (unshare needs root, or user namespaces)")
    code = (
        "import sys\nfrom mapl_ray.distributed.jobs.job_client import connect, on_this_machine\n"
        "client, url, _ = connect(sys.argv[1])\nprint(url, on_this_machine(client, url))\n"
    )
    done = subprocess.run([*elsewhere, sys.executable, "-c", code, cluster], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [cluster, "False"], done.stderr[-2000:]
