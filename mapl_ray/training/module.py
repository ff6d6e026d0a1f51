"""The module to train, checked against the config before any step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from mapl_ray.config import Method, ModelConfig, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model, prepare_for_trees
from mapl_ray.training.lora import check_quantize, with_adapter


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from; it can be loaded from there more than once."""

    path: str
    config: ModelConfig
    method: Method
    seed: int  # of a fresh head: every rank and every load gives the same weights

    def load(self, device: str, four_bit: bool = False) -> Any:
        """The transformers model. Raises `UserError` where it can't be loaded."""
        dtype, revision = self.config.dtype, self.config.revision
        if self.method == "rm":
            return load_reward_model(self.path, dtype, revision, device, self.seed, four_bit)
        return load_policy(self.path, dtype, revision, device, four_bit)


@dataclass(frozen=True, slots=True)
class TrainingModule:
    """What is trained: the module that the engine runs, and peft's wrapper around its model where there is one."""

    module: PolicyLogps | RewardScores
    wrapped: Any | None


def training_module(config: TrainConfig, source: ModelSource, tokenizer: Any) -> TrainingModule:
    """Load the model and wrap it. Every rank gets the same weights.

    Raises `UserError` for a model that can't be loaded, holds too few positions, or can't take tree batches, and for
    adapters that can't be had.
    """
    check_quantize(config)
    lora, device = config.lora, "cuda" if torch.cuda.is_available() else "cpu"
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
        prepare_for_trees(model, config.attention, device, bf16=True if config.bf16 else None)
    wrapped = None
    if lora is not None:
        wrapped = with_adapter(model, lora, source.method, config.seed)
        model = wrapped.get_base_model()  # the same model, its layers adapted in place
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return TrainingModule(RewardScores(model) if source.method == "rm" else PolicyLogps(model), wrapped)
