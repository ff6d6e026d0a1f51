"""`mapl doctor`: whether model and optimizer states fit into memory, and in which dtype GPUs compute."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mapl_ray.config import RunConfig
from mapl_ray.doctor.finding import Finding
from mapl_ray.model_states import parameter_count, second_copy_bytes, state_bytes


def check_memory(config: RunConfig) -> Iterator[Finding]:
    """Memory estimates for both methods, compared with the memory of this machine or its GPUs."""
    counted = parameter_count(config)
    if counted is None:
        yield Finding("warn", "memory", f"size of {config.model.name_or_path} unknown: no estimate")
        return
    parameters, source = counted
    for method in ("rm", "dpo"):
        train = config.training("rm" if method == "rm" else "dpo")
        need = state_bytes(parameters, train.zero_stage, train.num_workers, bf16=train.in_bf16)
        copy, copied = second_copy_bytes(parameters, train.zero_hpz_partition_size, bf16=train.in_bf16), ""
        if copy:
            in_host = train.gpus_per_worker > 0 and train.offload == "optimizer+parameters"
            need += 0.0 if in_host else copy
            kept = f"{_size(copy)} more in main memory" if in_host else f"of which {_size(copy)}"
            copied = f", {kept} for the second copy of weights (hpZ)"
        detail = (
            f"train {method}: {_size(need)} per worker for model and optimizer states (ZeRO-{train.zero_stage}, "
            f"{train.num_workers} worker(s), {_count(parameters)} parameters {source}){copied}; activations come on top"
        )
        if config.cluster.address is not None:
            there, what = None, ""
        elif train.gpus_per_worker:
            there, what = _gpu_bytes(), "a GPU here has"
        else:  # All workers share the machine's memory.
            need *= train.num_workers
            there, what = _machine_bytes(), f"the workers need {_size(need)}, this machine has"
        if there is not None and need > there:
            cure = "more workers, a higher train.zero_stage, train.bf16=true, or a smaller model"
            if copy:
                cure = f"train.zero_hpz_partition_size=1, {cure}"
            yield Finding("fail", "memory", f"{detail}; {what} {_size(there)}", cure)
        else:
            yield Finding("ok", "memory", detail)


def check_second_copy(config: RunConfig) -> Iterator[Finding]:
    """Warn about hpZ if all workers are on one node: it costs memory and saves no traffic between nodes."""
    for method in ("rm", "dpo"):
        train = config.training("rm" if method == "rm" else "dpo")
        size = train.zero_hpz_partition_size
        if size > 1 and (config.cluster.address is None or size == train.num_workers):
            yield Finding(
                "warn",
                "hpZ",
                f"train {method}: zero_hpz_partition_size={size} keeps a second copy of the weights to save traffic "
                f"between nodes, but all {train.num_workers} worker(s) are on one node",
                f"leave train.zero_hpz_partition_size and {method}.zero_hpz_partition_size out",
            )


def check_precision(config: RunConfig) -> Iterator[Finding]:
    """Warn about GPUs that compute in float32, which is about 10 times slower than bfloat16 or worse."""
    slow = "float32 on GPUs: 8 to 16 times slower than bfloat16 (H100: 67 TFLOP/s against 989)"
    for method in ("rm", "dpo"):
        train = config.training("rm" if method == "rm" else "dpo")
        if train.gpus_per_worker and not train.in_bf16:
            cure = (
                f"leave train.bf16 and {method}.bf16 out, or set true; Adam's states and gradient sums stay in float32"
            )
            yield Finding("warn", "precision", f"train {method}: {slow}", cure)
    scores = config.scoring.ref_logps or config.scoring.reward_model is not None or config.scoring.scores_pairs
    if config.scoring.gpus_per_engine and scores and config.engine_dtype == "float32":
        yield Finding("warn", "precision", f"score: {slow}", "leave model.dtype out, or set it to bfloat16")


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _count(parameters: float) -> str:
    return f"{parameters / 1e9:.2f} billion" if parameters >= 1e8 else f"{parameters / 1e6:.2f} million"


def _machine_bytes() -> float | None:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return None


def _gpu_bytes() -> float | None:
    import torch

    if not torch.cuda.is_available():
        return None
    count = torch.cuda.device_count()
    return min(float(torch.cuda.get_device_properties(i).total_memory) for i in range(count))
