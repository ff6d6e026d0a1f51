"""Loss and metrics from rewards or logps. Needs only torch: no data sets and no models."""

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
