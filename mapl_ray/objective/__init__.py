"""Rewards -> loss and metrics: torch only, no data, no model."""

from mapl_ray.objective.objective import (
    LossOutput,
    Objective,
    Result,
    dpo_rewards,
    level_sums,
    metrics_of,
    relation_loss,
)

__all__ = ["LossOutput", "Objective", "Result", "dpo_rewards", "level_sums", "metrics_of", "relation_loss"]
