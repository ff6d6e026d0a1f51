"""DeepSpeed's own configuration: made from ours, and overridden by a user's file where the two agree."""

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

# On GPUs, for the collectives of a step: where ranks wait longer, one of them hangs.
COLLECTIVE_TIMEOUT = timedelta(minutes=10)
# For what one rank does while the others wait: verifying and converting a checkpoint, writing a model.
LONG_WAIT = timedelta(hours=12)

# What the loop relies on: a file may repeat these values, or say `auto`, and change none of them.
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
    """What `deepspeed.initialize` takes. Raises `UserError` where `train.deepspeed_config` contradicts the rest."""
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
            # A trailing allgather into a flat buffer of this size: tiny models must not pay gigabytes for it.
            "allgather_bucket_size": 5e7,
            "reduce_bucket_size": 5e7,
            # Under ZeRO-2 a gradient goes to the rank that keeps it; by DeepSpeed's default to all, twice the bytes.
            "use_multi_rank_bucket_allreduce": False,
            "overlap_comm": config.overlaps(config.zero_stage),
            "zero_hpz_partition_size": config.zero_hpz_partition_size,
            **_offload(config),
        },
        "steps_per_print": 10**9,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # without a GPU torch's Adam serves as well, and needs no compiler
    }
    if config.in_bf16:
        # Sums of bfloat16 lose what the micro-batches and ranks add: 8 bits of mantissa.
        ours["communication_data_type"] = "fp32"
        if config.zero_stage > 0:  # without ZeRO DeepSpeed accumulates in the type of the weights alone
            ours["data_types"] = {"grad_accum_dtype": "fp32"}
    fixed = _OURS if config.overlap_comm is None else {**_OURS, "zero_optimization.overlap_comm": "train.overlap_comm"}
    return merged(ours, read_deepspeed_config(config.deepspeed_config), "train.deepspeed_config", fixed)


def check_sizes(config: TrainConfig) -> None:
    """Raises `UserError` where an elastic run would come to a number of workers that it can't have: a DeepSpeed file
    that fixes what follows from that number."""
    for workers in range(config.fewest_workers, config.num_workers + 1 if config.min_workers is not None else 0):
        try:
            engine_config(at_size(config, workers), workers)
        except UserError as error:
            raise UserError(f"train.min_workers={config.min_workers}: with {workers} worker(s): {error}") from None


def check_quantize(config: TrainConfig) -> None:
    """Raises `UserError` where 4-bit weights can't be had: without bitsandbytes."""
    if config.lora is not None and config.lora.quantize is not None:
        require(f"train.lora.quantize={config.lora.quantize}", ["bitsandbytes"], "set it to null")


def read_deepspeed_config(source: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The user's DeepSpeed settings: a JSON file, or a mapping as it is. Raises `UserError` for what is neither."""
    if source is None or isinstance(source, Mapping):
        return dict(source or {})
    return read_json_object(source, f"train.deepspeed_config={source}")


def inlined(config: TrainConfig) -> TrainConfig:
    """The same with the file's content in place of its path: workers may not see it, and a run is what it says."""
    if not isinstance(config.deepspeed_config, str):
        return config
    return config.model_copy(update={"deepspeed_config": read_deepspeed_config(config.deepspeed_config)})


def merged(ours: Mapping[str, Any], theirs: Mapping[str, Any], where: str, fixed: Mapping[str, str]) -> dict[str, Any]:
    """`theirs` over `ours`; `auto` stands for our value. `fixed`: paths whose values must agree, and what sets them.

    Raises `UserError` naming every contradiction.
    """
    wrong = [f"{name} is made from {cure}" for name, cure in _SECTIONS.items() if theirs.get(name) not in (None, {})]
    for path, cure in fixed.items():
        there, here = _at(theirs, path), _at(ours, path)
        if there not in (None, "auto") and not _same(there, here):
            wrong.append(f"{path}={there!r}, and {'nothing' if here is None else repr(here)} follows from {cure}")
    if wrong:
        raise UserError(f"{where}: {'; '.join(wrong)}. Take these keys out of it, or change the others.")
    return _over(ours, theirs)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trained parameters for an optimizer: matrices decay; biases and norms, which are vectors, do not."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if weight_decay == 0.0:
        return [{"params": trained, "weight_decay": 0.0}]
    groups = [
        {"params": [p for p in trained if _ndim(p) > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if _ndim(p) <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _ndim(parameter: nn.Parameter) -> int:
    """Of a parameter that ZeRO-3 has partitioned too: what it leaves has one dimension, and the shape is beside it."""
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
