"""A wheel builds, and the method runs from it in an environment that has nothing else: no Ray, DeepSpeed or vLLM."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OF_RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MISSING = """
import importlib.util, mapl_ray
print(mapl_ray.__file__)
print([name for name in ("ray", "deepspeed", "vllm") if importlib.util.find_spec(name)])
"""


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    """The standard output of a command, which must succeed."""
    # What DeepSpeed and accelerate leave in the environment of a process that trained would make this a rank.
    shell = {name: value for name, value in os.environ.items() if name not in OF_RANKS}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**shell, **more}, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> set[str]:
    """The package's own files: modules and the data beside them."""
    files = (path for path in (ROOT / "mapl_ray").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_bare_environment_runs_an_example_from_the_wheel(tmp_path: Path) -> None:
    source, venv = tmp_path / "source", tmp_path / "venv"
    source.mkdir()  # a copy: an earlier build/ would get into the wheel
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "mapl_ray", source / "mapl_ray", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, source, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in archive.namelist() if name.startswith("mapl_ray/")} == sources()

    run(ROOT / ".ci" / "install", venv, "", wheel, cwd=tmp_path, PYTHON=sys.executable)
    python = venv / "bin" / "python"
    place, missing = run(python, "-c", MISSING, cwd=tmp_path).splitlines()
    assert Path(place).is_relative_to(venv)
    assert missing == "[]"

    shutil.copytree(ROOT / "examples", tmp_path / "examples")  # beside no checkout
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": ""}
    assert "inter_widening: " in run(python, tmp_path / "examples" / "groups.py", cwd=tmp_path, **offline)
    assert "eval_loss" in run(python, tmp_path / "examples" / "mapl_trainer.py", cwd=tmp_path, **offline)
