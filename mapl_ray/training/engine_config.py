"""DeepSpeed's config: made from ours, and merged with the user's DeepSpeed config, which must not contradict it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mapl_ray.config import TrainConfig
from mapl_ray.config.json_file import read_json_object
from mapl_ray.errors import UserError
from mapl_ray.training.plan import at_size
from mapl_ray.versions import require

if TYPE_CHECKING:
    from torch import nn

# For collectives of a step on GPUs. A longer wait means that a rank hangs.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
# For waiting on work of a single rank, such as verifying or converting a checkpoint or writing a model.
LONG_WAIT = timedelta(hours=12)

# Keys that the loop depends on: the user's file may repeat our values or have `auto`, but not change them.
_OURS = {
    "train_batch_size": "workers * train.micro_batch_size * train.gradient_accumulation_steps",
    "train_micro_batch_size_per_gpu": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.gradient_accumulation_steps",
    "gradient_clipping": "train.max_grad_norm",
    "bf16.enabled": "train.bf16",
    "fp16.enabled": "train.bf16",
    "zero_optimization.stage": "train.zero_stage",
    "zero_optimization.offload_optimizer.device": "train.offload",
    "zero_optimization.offload_param.device": "train.offload",
    "zero_optimization.zero_hpz_partition_size": "train.zero_hpz_partition_size",
    "checkpoint.load_universal": "the checkpoint that is found",
}
_SECTIONS = {
    "optimizer": "train.learning_rate and train.weight_decay",
    "scheduler": "train.schedule and train.warmup_ratio",
}


def engine_config(config: TrainConfig, world_size: int) -> dict[str, Any]:
    """Build the config for `deepspeed.initialize`. Raises `UserError` if `train.deepspeed_config` contradicts it."""
    micro, accumulation = config.micro_batch_size, config.gradient_accumulation_steps
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": micro * accumulation * world_size,
        "gradient_clipping": config.max_grad_norm,
        "bf16": {"enabled": config.in_bf16},
        "zero_optimization": {
            "stage": config.zero_stage,
            "stage3_gather_16bit_weights_on_model_save": True,
            # Size of flat buffers. DeepSpeed's default would take gigabytes even for tiny models.
            "allgather_bucket_size": 5e7,
            "reduce_bucket_size": 5e7,
            # Under ZeRO-2, reduce a gradient only to the rank that keeps it. DeepSpeed's default sends twice the bytes.
            "use_multi_rank_bucket_allreduce": False,
            "overlap_comm": config.overlaps(config.zero_stage),
            "zero_hpz_partition_size": config.zero_hpz_partition_size,
            **_offload(config),
        },
        "steps_per_print": 10**9,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # without a GPU, torch's Adam is as good and needs no compiler
    }
    if config.in_bf16:
        # bfloat16 (8 bits of precision) is too coarse for sums over micro-batches and ranks.
        ours["communication_data_type"] = "fp32"
        if config.zero_stage > 0:  # without ZeRO, DeepSpeed can only accumulate in the dtype of the weights
            ours["data_types"] = {"grad_accum_dtype": "fp32"}
    fixed = _OURS if config.overlap_comm is None else {**_OURS, "zero_optimization.overlap_comm": "train.overlap_comm"}
    return merged(ours, read_deepspeed_config(config.deepspeed_config), "train.deepspeed_config", fixed)


def check_sizes(config: TrainConfig) -> None:
    """Raise `UserError` if `train.deepspeed_config` rules out a number of workers that an elastic run may have."""
    for workers in range(config.fewest_workers, config.num_workers + 1 if config.min_workers is not None else 0):
        try:
            engine_config(at_size(config, workers), workers)
        except UserError as error:
            raise UserError(f"train.min_workers={config.min_workers}: with {workers} worker(s): {error}") from None


def check_quantize(config: TrainConfig) -> None:
    """Raise `UserError` if the config needs 4-bit weights and bitsandbytes is not installed."""
    if config.lora is not None and config.lora.quantize is not None:
        require(f"train.lora.quantize={config.lora.quantize}", ["bitsandbytes"], "set it to null")


def read_deepspeed_config(source: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """Read the user's DeepSpeed settings from a JSON file or a mapping. Raises `UserError` for invalid ones."""
    if source is None or isinstance(source, Mapping):
        return dict(source or {})
    return read_json_object(source, f"train.deepspeed_config={source}")


def inlined(config: TrainConfig) -> TrainConfig:
    """Replace the path in `deepspeed_config` by the file's content, as workers may not see the file, and the content
    is part of the run's identity."""
    if not isinstance(config.deepspeed_config, str):
        return config
    return config.model_copy(update={"deepspeed_config": read_deepspeed_config(config.deepspeed_config)})


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, fixed: Mapping[str, str]) -> dict[str, Any]:
    """Override `ours` with `theirs`, where `auto` means our value. `fixed`: paths whose values must be equal, and the
    setting that determines each.

    Raises `UserError` that lists every contradiction.
    """
    wrong = [f"{name} is made from {cure}" for name, cure in _SECTIONS.items() if theirs.get(name) not in (None, {})]
    for path, cure in fixed.items():
        there, here = _at(theirs, path), _at(ours, path)
        if there not in (None, "auto") and not _same(there, here):
            wrong.append(f"{path}={there!r}, but {'nothing' if here is None else repr(here)} follows from {cure}")
    if wrong:
        raise UserError(f"{where}: {'; '.join(wrong)}. Remove these keys, or change the other settings.")
    return _over(ours, theirs)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of trained parameters: weight decay for matrices, none for vectors (biases and norms)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if weight_decay == 0.0:
        return [{"params": trained, "weight_decay": 0.0}]
    groups = [
        {"params": [p for p in trained if _ndim(p) > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if _ndim(p) <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _ndim(parameter: nn.Parameter) -> int:
    """Number of dimensions. A parameter partitioned by ZeRO-3 is flat, and has its original shape in `ds_shape`."""
    return len(getattr(parameter, "ds_shape", parameter.shape))


def _offload(config: TrainConfig) -> dict[str, Any]:
    to_cpu = {"device": "cpu", "pin_memory": config.gpus_per_worker > 0}
    return {
        "none": {},
        "optimizer": {"offload_optimizer": to_cpu},
        "optimizer+parameters": {"offload_optimizer": to_cpu, "offload_param": to_cpu},
    }[config.offload]


def _same(there: Any, here: Any) -> bool:
    return there == here or (here is None and there in (False, "none"))


def _at(values: Mapping[str, Any], path: str) -> Any:
    node: Any = values
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping):
            inner = result.get(key)
            result[key] = _over(inner if isinstance(inner, Mapping) else {}, value)
        elif value != "auto":
            result[key] = value
    return result
