"""A wheel of the package installs beside its required packages alone, and the method part runs without the rest."""

import re
import subprocess
import sys
import venv
import zipfile
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ("ray", "deepspeed", "vllm")


def requirements(wheel: Path) -> list[str]:
    """Of the wheel, as it was built."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])


def installed(requires: list[str], found: set[str]) -> set[str]:
    """What these requirements bring without extras, and what that requires, by normalized names."""
    for requirement in map(Requirement, requires):
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if key in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            of_it = metadata.distribution(requirement.name).requires or []
        except metadata.PackageNotFoundError:
            continue  # of another platform or build
        found.add(key)
        installed(of_it, found)
    return found


def link_packages(names: set[str], target: Path) -> None:
    """The files of these distributions, as if they were installed in `target`."""
    for name in names:
        files = metadata.distribution(name).files or []
        for top in {file.parts[0] for file in files if file.parts[0] != ".."}:
            source = Path(str(metadata.distribution(name).locate_file(top)))
            if source.exists() and not (target / top).exists():
                (target / top).symlink_to(source)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and its required packages."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = folder.glob("mapl_ray-*.whl")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    link_packages(installed(requirements(wheel), set()), site)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, timeout=300)
    return python.parent


def run(bare: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [str(bare / words[0]), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=folder, env=environment)


@pytest.mark.long
def test_the_method_runs_without_the_cluster_stack(bare: Path, tmp_path: Path) -> None:
    look = f"import importlib.util as u; print([n for n in {LEFT_OUT} if u.find_spec(n)])"
    assert run(bare, "python", "-c", look, folder=tmp_path).stdout.strip() == "[]"
    for example in ("groups.py", "plain_torch.py", "mapl_trainer.py"):
        done = run(bare, "python", str(ROOT / "examples" / example), folder=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "eval_rewards/accuracies/intra" in done.stdout


@pytest.mark.long
def test_commands_name_what_is_missing(bare: Path, tmp_path: Path) -> None:
    assert run(bare, "mapl", "--help", folder=tmp_path).returncode == 0
    done = run(bare, "mapl", "demo", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "mapl demo: not installed here: ray, deepspeed. Run `pip install 'mapl_ray[cpu]'`" in done.stderr
    doctor = run(bare, "mapl", "doctor", folder=tmp_path)
    assert doctor.returncode == 1
    assert "Traceback" not in doctor.stderr
