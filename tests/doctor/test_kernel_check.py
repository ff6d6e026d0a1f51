"""What `mapl doctor` says of kernels: for which configs they are tried, and where they can't be."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mapl_ray.config import parse_config
from mapl_ray.doctor.kernel_check import check_kernels, kernel_needs
from mapl_ray.models.kernel_process import KernelNeeds

GPU = {"gpus_per_worker": 1}
TRAINER = {"ref_logps_by": "trainer", "gpus_per_engine": 1}


@pytest.mark.parametrize(
    ("values", "needs"),
    [
        ({}, None),
        ({"train": GPU}, KernelNeeds(bf16=True, flex=True)),
        ({"train": {**GPU, "bf16": False}}, KernelNeeds(bf16=False, flex=True)),
        ({"train": {**GPU, "attention": "varlen"}}, KernelNeeds(bf16=True, flex=False)),
        ({"train": {**GPU, "batching": "padded"}}, KernelNeeds(bf16=True, flex=False)),
        # One of two trainings wants it.
        ({"train": {**GPU, "attention": "dense", "bf16": False}, "dpo": {"bf16": True}}, KernelNeeds(True, False)),
        ({"train": {**GPU, "attention": "dense"}, "rm": {"attention": "flex"}}, KernelNeeds(True, True)),
        ({"dpo": GPU}, KernelNeeds(bf16=True, flex=True)),
        # Evaluation on GPUs of what CPUs trained: in bfloat16, with the attention that GPUs have by default.
        ({"train": {"attention": "dense"}, "evaluation": {"gpus": 1}}, KernelNeeds(bf16=True, flex=True)),
        ({"scoring": TRAINER}, KernelNeeds(bf16=False, flex=True)),
        ({"scoring": {"gpus_per_engine": 1}}, None),  # vLLM's own kernels
    ],
)
def test_what_is_tried_for_a_config(values: dict[str, Any], needs: KernelNeeds | None) -> None:
    assert kernel_needs(parse_config(values, "test")) == needs


def test_nothing_is_tried_for_cpus() -> None:
    assert list(check_kernels(parse_config({}, "test"))) == []


@pytest.mark.skipif(
    torch.cuda.is_available() or any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU"
)
def test_without_a_gpu_it_was_not_tried() -> None:
    (finding,) = check_kernels(parse_config({"train": GPU}, "test"))
    assert (finding.level, finding.what) == ("warn", "kernels")
    assert finding.detail == "not tried: the config asks for GPUs, and this machine has none"


def test_a_cluster_that_does_not_answer() -> None:
    config = parse_config({"train": GPU, "cluster": {"address": "127.0.0.1:1"}}, "test")
    (finding,) = check_kernels(config, reachable=False)
    assert (finding.level, finding.detail) == ("warn", "not tried: the cluster does not answer")


@pytest.mark.ray
def test_a_cluster_without_gpus(local_ray: None) -> None:
    config = parse_config({"train": GPU, "cluster": {"address": "auto"}}, "test")
    (finding,) = check_kernels(config)
    assert (finding.level, finding.detail) == ("warn", "not tried: the config asks for GPUs, and the cluster has none")
