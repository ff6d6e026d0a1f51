"""The Slurm script: its syntax, and a real run of it with a stand-in for `srun` that starts steps on this machine."""

import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

# The last step of two nodes: drop srun's own options, run what is left here. Leaves the token's mode to look at.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do echo "$1" >>"$STEP_LOG"; shift; done
stat --format=%a "$RAY_AUTH_TOKEN_PATH" >>"$STEP_LOG"
exec "$@" --num-cpus=1 --object-store-memory=80000000
"""


@pytest.fixture(scope="module")
def script(root: Path) -> Path:
    return root / "cluster" / "slurm.sh"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_the_syntax_is_right(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_what_it_asks_of_slurm_and_ray(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert "#SBATCH --signal=B:TERM@" in text
    assert "umask 077" in text
    assert "RAY_AUTH_MODE=token" in text
    assert "--dashboard-host=127.0.0.1" in text
    assert "0.0.0.0" not in text
    assert "ray stop" not in text  # would end every Ray of this user on the node, not ours alone
    code = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    # The token's value is never a word of a command line, where every user of the node could read it.
    assert not any("RAY_AUTH_TOKEN=" in line or "cat $private" in line for line in code)


def test_without_a_command_it_says_how_to_use_it(script: Path) -> None:
    done = subprocess.run([script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: sbatch" in done.stderr


@pytest.mark.ray
@pytest.mark.long
def test_two_nodes_come_up_run_the_command_and_leave_nothing(script: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "srun").write_text(SRUN)
    (tools / "srun").chmod(0o755)
    canary = tmp_path / "canary"  # appears if a shell reads any of these words unquoted
    hostile = f"missing $(touch {canary}) `touch {canary}` ; touch {canary} '\" file.yaml"
    tokens = tmp_path / "$(touch canary); tokens"
    tokens.mkdir()
    # Modules that someone has planted in the folder the job was submitted in.
    work = tmp_path / "submitted-in"
    work.mkdir()
    for name in ("secrets", "random", "ray", "time"):
        (work / f"{name}.py").write_text(f"open({str(work / 'imported')!r}, 'w').close()\nraise ImportError")
    job_id = f"test{os.getpid()}"
    sessions: list[Path] = []
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "SLURM_JOB_ID": job_id,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURMD_NODENAME": "first",
        "STEP_LOG": str(tmp_path / "step.log"),
        "MAPL_TOKEN_ROOT": str(tokens),
        "MAPL_RAY_PORT": str(free_port()),
        "MAPL_RAY_HEAD_OPTIONS": f"--num-cpus=1 --object-store-memory=80000000 --dashboard-port={free_port()} "
        f"--ray-client-server-port={free_port()}",
    }
    try:
        done = subprocess.run(
            [script, "doctor", "--config", hostile],
            env=environment,
            cwd=work,
            capture_output=True,
            text=True,
            timeout=400,
        )
        # The command's own exit code and message: the words came through the script whole.
        assert done.returncode == 2, done.stderr[-3000:]
        assert f"{hostile}: no such config file" in done.stderr
        assert not canary.exists()
        assert not Path("canary").exists()
        assert not (work / "imported").exists()
        assert "Ray: 2 node(s)" in done.stdout
        steps = (tmp_path / "step.log").read_text().splitlines()
        assert steps == ["--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--exclude=first", "600"]
        assert list(tokens.iterdir()) == []  # the token is gone
        # Ray's folder of each node is kept after a failure, for its logs, inside one that nobody else may enter.
        sessions = [Path(path) for path in re.findall(r"^logs of Ray on \S+: (/tmp/mapl-\w{10})$", done.stdout, re.M)]
        assert len(set(sessions)) == 2, done.stdout
        assert [stat.S_IMODE(session.stat().st_mode) for session in sessions] == [0o700, 0o700]
        assert all((session / "ray").is_dir() for session in sessions)
        for session in sessions:
            wait_for_no_process_of(str(session))
    finally:
        for session in sessions:
            shutil.rmtree(session, ignore_errors=True)


def wait_for_no_process_of(session: str) -> None:
    deadline = time.monotonic() + 20.0
    while left := [path for path in Path("/proc").glob("[0-9]*/cmdline") if session in command_line(path)]:
        assert time.monotonic() < deadline, f"still running: {[command_line(path)[:200] for path in left]}"
        time.sleep(0.5)


def command_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # ended meanwhile
        return ""


def test_a_node_starts_ray_inside_a_folder_that_nobody_can_have_made(script: Path, tmp_path: Path) -> None:
    """What every node runs, with a stand-in for `ray start` that says where it is and what it was given."""
    found = re.search(r"^on_a_node='(.*?)'$", script.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "succeeded").touch()  # so that the folder is removed in the end
    show = 'stat --format=%a .; pwd; echo "$RAY_TMPDIR"; echo "$@"'
    folders = set()
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", found[1], "node", "bash", "-c", show, "ray"],
            env={**os.environ, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        mode, here, named, options = done.stdout.splitlines()
        assert mode == "700"
        assert re.fullmatch(r"/tmp/mapl-\w{10}", here)
        assert named == here
        assert options == f"--temp-dir={here}/ray"
        assert not Path(here).exists()
        folders.add(here)
    assert len(folders) == 2
