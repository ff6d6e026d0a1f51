"""The scripts under `jobs/`: thin, one per stage, each hands its arguments to the command line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "jobs"
COMMANDS = {
    "synthesize": ["synthesize"],
    "score": ["score"],
    "train_rm": ["train", "rm"],
    "train_dpo": ["train", "dpo"],
    "tune": ["tune"],
    "evaluate": ["evaluate"],
    "pipeline": ["pipeline"],
}


def test_there_is_a_script_for_every_stage() -> None:
    assert {path.stem for path in JOBS.glob("*.py")} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_calls_its_own_command(name: str) -> None:
    text = (JOBS / f"{name}.py").read_text(encoding="utf-8")
    words = ", ".join(f'"{word}"' for word in COMMANDS[name])
    assert f"sys.exit(main([{words}, *job_arguments(sys.argv[1:])]))" in text
    # The example in its docstring names itself and a recipe that is there.
    (script, recipe) = re.search(r"python jobs/(\w+)\.py --config (\S+)`", text).groups()  # type: ignore[union-attr]
    assert script == name
    assert (JOBS.parent / recipe).is_file()


def test_the_users_mistake_is_exit_code_2_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, JOBS / "train_rm.py", "--print-config", "train.no_such_key=1"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert "unknown key 'train.no_such_key'" in done.stderr
