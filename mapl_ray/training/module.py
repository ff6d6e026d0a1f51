"""The module to train, checked against the config, with adapters for LoRA and QLoRA.

LoRA (Hu et al. 2022) and QLoRA (Dettmers et al. 2023) use PEFT, which replaces layers of the model in place. So the
model inside PEFT's wrapper is used as before, also with tree batches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

from mapl_ray.config import Dtype, LoraConfig, Method, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.models import (
    PolicyLogps,
    RewardScores,
    load_policy,
    load_reward_model,
    prepare_for_trees,
    quiet_peft,
    quiet_transformers,
    with_saved_adapter,
)
from mapl_ray.models.sequence_parallel import SequenceGroup, share_sequences
from mapl_ray.training.deepspeed_engine import ensure_process_group, world_size
from mapl_ray.training.engine_config import check_quantize, engine_config
from mapl_ray.training.plan import at_size
from mapl_ray.training.weight_groups import use_weight_groups

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Source of a model, which can be loaded more than once."""

    path: str
    revision: str | None
    dtype: Dtype  # dtype of the loaded weights
    method: Method
    seed: int  # initializes a new head, the same on every rank and at every load

    def load(self, device: str, four_bit: bool = False) -> Any:
        """Load the transformers model. Raises `UserError` if it can't be loaded."""
        if self.method == "rm":
            return load_reward_model(self.path, self.dtype, self.revision, device, self.seed, four_bit)
        return load_policy(self.path, self.dtype, self.revision, device, four_bit)


@dataclass(frozen=True, slots=True)
class TrainingModule:
    """The module that the engine trains, and with LoRA the PEFT wrapper of its model."""

    module: PolicyLogps | RewardScores
    wrapped: Any | None


def training_module(
    config: TrainConfig, source: ModelSource, tokenizer: Any, ranks: SequenceGroup | None = None
) -> TrainingModule:
    """Load and wrap the model, with the same weights on every rank. `ranks`: the ranks that share a batch's tokens.

    Raises `UserError` for a model that can't be loaded, has too few positions, or does not support tree batches, and
    for adapters that can't be created.
    """
    check_quantize(config)
    lora, device = config.lora, "cuda" if torch.cuda.is_available() else "cpu"
    with loaded_in_parts(config):
        model = source.load(device, four_bit=lora is not None and lora.quantize is not None)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and config.max_sequence_tokens > limit:
        raise UserError(
            f"train.max_sequence_tokens={config.max_sequence_tokens} is above the {limit} positions of {source.path}. "
            f"Set it to {limit} or less."
        )
    if config.batching == "tree":
        prepare_for_trees(model, config.attention, device, bf16=True if config.in_bf16 else None)
    if ranks is not None:
        share_sequences(model, ranks)
    wrapped = None
    if lora is not None:
        wrapped = with_adapter(model, lora, source.method, config.seed)
        model = wrapped.get_base_model()  # the same model, with adapted layers
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return TrainingModule((RewardScores if source.method == "rm" else PolicyLogps)(model, ranks), wrapped)


@contextmanager
def loaded_in_parts(config: TrainConfig) -> Iterator[None]:
    """Context manager under which transformers partitions every module right after creating it, for ZeRO-3.

    Otherwise each rank would hold the whole model on its GPU until DeepSpeed partitions it: 141 GB for a 70B model in
    bfloat16. Has no effect at other stages. Models loaded after the block (a base model to merge adapters into) are not
    partitioned.
    """
    if config.zero_stage < 3:
        yield
        return
    ensure_process_group()
    use_weight_groups(config.zero_hpz_partition_size)
    # transformers keeps only a weak reference, so the object must exist until the end of the block.
    settings = HfDeepSpeedConfig(engine_config(at_size(config, world_size()), world_size()))
    try:
        yield
    finally:
        del settings
        unset_hf_deepspeed_config()


def with_adapter(model: Any, lora: LoraConfig, method: Method, seed: int) -> Any:
    """Wrap the model with PEFT, so that only adapters and (for a reward model) the scalar head are trained.

    The initial adapters depend only on the seed, so that they are the same on every rank.
    """
    import torch

    peft = _peft()
    settings = peft.LoraConfig(
        task_type="SEQ_CLS" if method == "rm" else "CAUSAL_LM",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        modules_to_save=["score"] if method == "rm" else None,
    )
    if lora.quantize is not None:
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return peft.get_peft_model(model, settings)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"train.lora.target_modules={lora.target_modules}: {reason}") from None


@contextmanager
def switched_off(wrapped: Any, *, same_modules: bool = False) -> Iterator[None]:
    """Context manager that disables the adapter: the base model as reference, without extra memory.

    `same_modules`: run the adapter's modules as in training, but multiply their outputs by 0. ZeRO-3 prefetches weights
    in the recorded order of modules, and drops that order at the first pass that differs.
    """
    if not same_modules:
        wrapped.base_model.disable_adapter_layers()
        try:
            yield
        finally:
            wrapped.base_model.enable_adapter_layers()
        return
    from peft.tuners.lora import LoraLayer

    layers = [module for module in wrapped.modules() if isinstance(module, LoraLayer)]
    scales = [dict(layer.scaling) for layer in layers]
    for layer in layers:
        layer.scaling.update(dict.fromkeys(layer.scaling, 0.0))
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling.update(scale)


def save_adapter(wrapped: Any, state_dict: dict[str, torch.Tensor], directory: Path) -> None:
    """Save adapters and head in PEFT's format. `state_dict` has the weight names of the model inside the wrapper."""
    named = {f"base_model.model.{name}": tensor.detach().cpu() for name, tensor in state_dict.items()}
    with quiet_transformers():
        wrapped.save_pretrained(directory, state_dict=named, save_embedding_layers=False)


def merged_model(base: Any, adapter: Path) -> Any:
    """Merge a saved adapter into the weights of a newly loaded base model.

    Raises `UserError` if a weight of the adapter does not fit the model.
    """
    return with_saved_adapter(base, adapter).merge_and_unload()


def _peft() -> Any:
    """Import PEFT only if adapters are used, as it imports bitsandbytes, which takes seconds on every rank."""
    quiet_peft()
    import peft

    return peft
