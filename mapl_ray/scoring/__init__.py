"""Scores of sequences (ref_logps and rewards), computed by vLLM or by the trainer's forward pass."""

from mapl_ray.scoring.column_scorer import ColumnScorer
from mapl_ray.scoring.journal import Journal, Outcome
from mapl_ray.scoring.lora import check_lora
from mapl_ray.scoring.needs import EngineNeeds, check_engine, engine_needs, evaluation_gib
from mapl_ray.scoring.options import EngineOptions, TreeOptions
from mapl_ray.scoring.protocol import GroupScorer, Scorer
from mapl_ray.scoring.same_tokenizer import check_same_tokenizer, tokenizer_identity
from mapl_ray.scoring.score_groups import BrokenEngineError, Column, ScoredGroup, score_groups, score_part, with_outcome

__all__ = [
    "BrokenEngineError",
    "Column",
    "ColumnScorer",
    "EngineNeeds",
    "EngineOptions",
    "GroupScorer",
    "Journal",
    "Outcome",
    "ScoredGroup",
    "Scorer",
    "TreeOptions",
    "check_engine",
    "check_lora",
    "check_same_tokenizer",
    "engine_needs",
    "evaluation_gib",
    "score_groups",
    "score_part",
    "tokenizer_identity",
    "with_outcome",
]
