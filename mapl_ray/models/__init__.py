"""Policies and reward models: loading, tree attention, and the forward pass of each method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mapl_ray.lazy import lazy_names

if TYPE_CHECKING:
    from mapl_ray.models.adapters import verify_adapter, with_saved_adapter
    from mapl_ray.models.forward import PolicyLogps, RewardScores
    from mapl_ray.models.identity import check_same_model, model_identity
    from mapl_ray.models.kinds import Kind, check_kind, check_shareable, kind_of, read_config
    from mapl_ray.models.load import check_weights_fit, load_policy, load_reward_model
    from mapl_ray.models.model_check import verify_base, verify_model, verify_shareable
    from mapl_ray.models.quiet import quiet_peft, quiet_transformers
    from mapl_ray.models.smollm2 import SMOLLM2, smollm2_directory, with_smollm2
    from mapl_ray.models.template_check import TemplateCheck, check_rendering
    from mapl_ray.models.tiny import build_tiny
    from mapl_ray.models.tokenizer import check_model_directory, load_tokenizer
    from mapl_ray.models.tree_support import prepare_for_trees

__all__ = [
    "SMOLLM2",
    "Kind",
    "PolicyLogps",
    "RewardScores",
    "TemplateCheck",
    "build_tiny",
    "check_kind",
    "check_model_directory",
    "check_rendering",
    "check_same_model",
    "check_shareable",
    "check_weights_fit",
    "kind_of",
    "load_policy",
    "load_reward_model",
    "load_tokenizer",
    "model_identity",
    "prepare_for_trees",
    "quiet_peft",
    "quiet_transformers",
    "read_config",
    "smollm2_directory",
    "verify_adapter",
    "verify_base",
    "verify_model",
    "verify_shareable",
    "with_saved_adapter",
    "with_smollm2",
]

__getattr__ = lazy_names(__name__, __file__)
