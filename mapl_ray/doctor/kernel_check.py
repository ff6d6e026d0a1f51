"""`mapl doctor`: whether the GPUs that a config asks for compile and run the kernels of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mapl_ray.config import RunConfig
from mapl_ray.doctor.finding import Finding
from mapl_ray.errors import UserError
from mapl_ray.models.kernel_process import KernelNeeds, KernelTrial, tried_in_process

_WHAT = "kernels"
_DEVICES = "nvidia[0-9]*"  # below /dev


def check_kernels(config: RunConfig, *, reachable: bool = True) -> Iterator[Finding]:
    """One finding per node with a GPU, if training, evaluation or `ref_logps_by: trainer` run on GPUs.

    `reachable`: whether the cluster that the config names answers.
    """
    needs = kernel_needs(config)
    if needs is None:
        return
    if config.cluster.address is not None and not reachable:
        yield Finding("warn", _WHAT, "not tried: the cluster does not answer", "fix cluster.address or RAY_ADDRESS")
        return
    try:
        trials = _on_cluster(config, needs) if config.cluster.address is not None else _here(needs)
    except UserError as error:
        yield Finding("fail", _WHAT, f"not tried: {error}", "fix cluster.address, or check the nodes")
        return
    if not trials:
        where = "this machine" if config.cluster.address is None else "the cluster"
        cure = "run it again when the cluster has its GPUs" if config.cluster.address else "use a cluster with GPUs"
        yield Finding("warn", _WHAT, f"not tried: the config asks for GPUs, and {where} has none", cure)
    yield from (_finding(trial, needs) for trial in trials)


def kernel_needs(config: RunConfig) -> KernelNeeds | None:
    """The kernels that the config needs on GPUs; None if it needs none. vLLM has its own kernels."""
    trainings = [config.training("rm"), config.training("dpo")]
    on_gpus = [one for one in trainings if one.gpus_per_worker]
    bf16 = [one.in_bf16 for one in on_gpus]
    ways = [(one.batching, one.attention) for one in on_gpus]
    if config.evaluation.gpus:  # always bfloat16, regardless of training
        bf16.append(True)
        ways += [(one.batching, one.attention if one.gpus_per_worker else "auto") for one in trainings]
    if config.scoring.gpus_per_engine and config.scoring.ref_logps and config.scoring.ref_logps_by == "trainer":
        dpo = trainings[1]
        bf16.append(dpo.in_bf16)
        ways.append((dpo.batching, dpo.attention if dpo.gpus_per_worker else "auto"))
    if not bf16:
        return None
    return KernelNeeds(any(bf16), any(batching == "tree" and way in ("auto", "flex") for batching, way in ways))


def _here(needs: KernelNeeds) -> list[KernelTrial]:
    """Try the first GPU of this machine. If torch can't see an existing GPU, the trial reports why."""
    import torch  # takes seconds

    there = torch.cuda.is_available() or any(Path("/dev").glob(_DEVICES))
    return [tried_in_process("cuda", needs)] if there else []


def _on_cluster(config: RunConfig, needs: KernelNeeds) -> list[KernelTrial]:
    from mapl_ray.distributed.kernel_nodes import kernels_on_nodes  # Ray takes a second

    return kernels_on_nodes(config.cluster, needs)


def _finding(trial: KernelTrial, needs: KernelNeeds) -> Finding:
    where = f"{trial.host}, {trial.device}"
    if not trial.tried:
        return Finding("warn", _WHAT, f"{where}: {trial.error}", trial.cure)
    if trial.error:
        return Finding("fail", _WHAT, f"{where}: {trial.error}", trial.cure)
    dtype = "bfloat16" if needs.bf16 else "float32"
    compiled = "; FlexAttention compiles, forward and backward" if needs.flex else ""
    return Finding("ok", _WHAT, f"{where}: {dtype} works{compiled}; values match the CPU's ({trial.seconds:.0f} s)")
