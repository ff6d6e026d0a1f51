"""Scores of sequences from vLLM: reference log-probabilities and rewards."""

from mapl_ray.scoring.options import EngineOptions
from mapl_ray.scoring.protocol import Scorer
from mapl_ray.scoring.score_groups import ScoredGroup, score_groups

__all__ = ["EngineOptions", "ScoredGroup", "Scorer", "score_groups"]
