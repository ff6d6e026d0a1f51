"""The module to train, checked against the config before any step; with LoRA or QLoRA its adapters.

LoRA (Hu et al. 2022) and QLoRA (Dettmers et al. 2023) run through peft, which puts its layers into the model in place,
so the model below its wrapper runs as before, tree batches included.
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
    """Where a model comes from; it can be loaded from there more than once."""

    path: str
    revision: str | None
    dtype: Dtype  # in which weights are loaded
    method: Method
    seed: int  # of a fresh head: every rank and every load gives the same weights

    def load(self, device: str, four_bit: bool = False) -> Any:
        """The transformers model. Raises `UserError` where it can't be loaded."""
        if self.method == "rm":
            return load_reward_model(self.path, self.dtype, self.revision, device, self.seed, four_bit)
        return load_policy(self.path, self.dtype, self.revision, device, four_bit)


@dataclass(frozen=True, slots=True)
class TrainingModule:
    """What is trained: the module that the engine runs, and peft's wrapper around its model where there is one."""

    module: PolicyLogps | RewardScores
    wrapped: Any | None


def training_module(
    config: TrainConfig, source: ModelSource, tokenizer: Any, ranks: SequenceGroup | None = None
) -> TrainingModule:
    """Load the model and wrap it. Every rank gets the same weights; `ranks` share the tokens of a batch.

    Raises `UserError` for a model that can't be loaded, holds too few positions, or can't take tree batches, and for
    adapters that can't be had.
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
        model = wrapped.get_base_model()  # the same model, its layers adapted in place
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return TrainingModule((RewardScores if source.method == "rm" else PolicyLogps)(model, ranks), wrapped)


@contextmanager
def loaded_in_parts(config: TrainConfig) -> Iterator[None]:
    """Under ZeRO-3 transformers partitions every module that it builds within the block as soon as it is built.

    Without it each rank would hold the whole model, on its GPU too, until DeepSpeed cuts it: a 70B model in bfloat16
    takes 141 GB there. Other stages load as usual. What is loaded after the block (a base model to merge adapters
    into) is whole again.
    """
    if config.zero_stage < 3:
        yield
        return
    ensure_process_group()
    use_weight_groups(config.zero_hpz_partition_size)
    # transformers keeps a weak reference: the object must live as long as models are built.
    settings = HfDeepSpeedConfig(engine_config(at_size(config, world_size()), world_size()))
    try:
        yield
    finally:
        del settings
        unset_hf_deepspeed_config()


def with_adapter(model: Any, lora: LoraConfig, method: Method, seed: int) -> Any:
    """The model in peft's wrapper: adapters and, of a reward model, the scalar head are trained, nothing else.

    The adapters depend on the seed alone, so that every rank draws the same.
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
    """The base model as it was: the reference that costs no memory.

    `same_modules`: the adapter's modules run as they do in training, and what they give is multiplied by 0. ZeRO-3
    fetches weights ahead in the order in which it saw modules run, and drops that order at the first pass that differs.
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
    """Adapters and head in peft's format. `state_dict` has the names of the model below the wrapper."""
    named = {f"base_model.model.{name}": tensor.detach().cpu() for name, tensor in state_dict.items()}
    with quiet_transformers():
        wrapped.save_pretrained(directory, state_dict=named, save_embedding_layers=False)


def merged_model(base: Any, adapter: Path) -> Any:
    """The base model, freshly loaded, with the adapters of a directory added into its weights.

    Raises `UserError` where adapter and model do not fit, weight by weight.
    """
    return with_saved_adapter(base, adapter).merge_and_unload()


def _peft() -> Any:
    """peft, imported where adapters are used: it loads bitsandbytes, and takes seconds of every rank's start."""
    quiet_peft()
    import peft

    return peft
