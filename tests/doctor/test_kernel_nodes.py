"""Kernels on nodes of a real cluster whose GPUs are but numbers to Ray: the trials themselves fail, and say why."""

from collections.abc import Iterator

import pytest
import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mapl_ray.config import parse_config
from mapl_ray.distributed.kernel_nodes import kernels_on_nodes
from mapl_ray.doctor.kernel_check import check_kernels
from mapl_ray.models.kernel_process import KernelNeeds

pytestmark = [pytest.mark.ray, pytest.mark.long, pytest.mark.timeout(300)]
NEEDS = KernelNeeds(bf16=True, flex=False)


@pytest.fixture
def three_nodes(without_ray: None) -> Iterator[str]:
    """A head without a GPU, a node with two and one with one."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=0, num_gpus=2)
    cluster.add_node(num_cpus=0, num_gpus=1, resources={"busy": 1})
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the failure is that of a torch without CUDA")
def test_a_gpu_of_every_node_is_tried(three_nodes: str) -> None:
    config = parse_config({"train": {"gpus_per_worker": 1}, "cluster": {"address": three_nodes}}, "test")
    findings = list(check_kernels(config))  # both nodes with GPUs, and not the head
    assert len(findings) == 2
    for finding in findings:
        assert (finding.level, finding.what) == ("fail", "kernels")
        assert ", GPU 0: AssertionError: Torch not compiled with CUDA enabled" in finding.detail
        assert "install the GPU stack there" in finding.cure

    ray.init(address=three_nodes, log_to_driver=False)
    busy = next(node["NodeID"] for node in ray.nodes() if "busy" in node["Resources"])
    on_busy = NodeAffinitySchedulingStrategy(busy, soft=False)

    @ray.remote(num_cpus=0, num_gpus=1, scheduling_strategy=on_busy)
    class Other:
        def holds(self) -> bool:
            return True

    other = Other.remote()
    assert ray.get(other.holds.remote())
    trials = kernels_on_nodes(config.cluster, NEEDS, start_seconds=20.0)
    assert sorted(trial.tried for trial in trials) == [False, True]
    (late,) = (trial for trial in trials if not trial.tried)
    assert late.error.startswith("not tried: no GPU of this node was free within 20 s")
    ray.kill(other)
