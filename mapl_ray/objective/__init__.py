"""Rewards -> loss and metrics: torch only, no data, no model."""

from mapl_ray.objective.metrics import level_sums, metrics_of
from mapl_ray.objective.objective import Objective, Result
from mapl_ray.objective.relation_loss import LossOutput, relation_loss
from mapl_ray.objective.rewards import dpo_rewards

__all__ = ["LossOutput", "Objective", "Result", "dpo_rewards", "level_sums", "metrics_of", "relation_loss"]
