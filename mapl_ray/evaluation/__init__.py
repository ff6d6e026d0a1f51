"""Metrics of trained models on held-out relation groups (docs/method.md, "What is measured")."""

from mapl_ray.evaluation.bootstrap import Estimate, format_percent, format_points
from mapl_ray.evaluation.provenance import Provenance, collect_provenance, text_digest
from mapl_ray.evaluation.results import ModelResults, Results, evaluate_models
from mapl_ray.evaluation.table import results_table

__all__ = [
    "Estimate",
    "ModelResults",
    "Provenance",
    "Results",
    "collect_provenance",
    "evaluate_models",
    "format_percent",
    "format_points",
    "results_table",
    "text_digest",
]
