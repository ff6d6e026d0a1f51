"""The module to train, checked against the config before any step."""

from __future__ import annotations

from typing import Any

import torch

from mapl_ray.config import Method, ModelConfig, TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model, prepare_for_trees


def training_module(
    config: TrainConfig, method: Method, model_path: str, model_config: ModelConfig, tokenizer: Any
) -> PolicyLogps | RewardScores:
    """Load the model and wrap it. Every rank gets the same weights: a fresh head depends on the seed alone.

    Raises `UserError` for a model that can't be loaded, holds too few positions, or can't take tree batches.
    """
    device, revision = "cuda" if torch.cuda.is_available() else "cpu", model_config.revision
    if method == "rm":
        model = load_reward_model(model_path, model_config.dtype, revision, device, config.seed)
    else:
        model = load_policy(model_path, model_config.dtype, revision, device)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.use_cache = False
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and config.max_sequence_tokens > limit:
        raise UserError(
            f"train.max_sequence_tokens={config.max_sequence_tokens} is above the {limit} positions of {model_path}. "
            f"Set it to {limit} or less."
        )
    if config.batching == "tree":
        prepare_for_trees(model)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return RewardScores(model) if method == "rm" else PolicyLogps(model)
