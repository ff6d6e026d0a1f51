"""Policies and reward models: loading, tree attention, and one forward pass a method."""

from mapl_ray.models.forward import PolicyLogps, RewardScores
from mapl_ray.models.identity import model_identity
from mapl_ray.models.load import check_model_directory, load_policy, load_reward_model, load_tokenizer
from mapl_ray.models.quiet import quiet_peft, quiet_transformers
from mapl_ray.models.tiny import build_tiny
from mapl_ray.models.tree_support import prepare_for_trees

__all__ = [
    "PolicyLogps",
    "RewardScores",
    "build_tiny",
    "check_model_directory",
    "load_policy",
    "load_reward_model",
    "load_tokenizer",
    "model_identity",
    "prepare_for_trees",
    "quiet_peft",
    "quiet_transformers",
]
