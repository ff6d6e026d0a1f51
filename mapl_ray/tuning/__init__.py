"""The parts of a hyperparameter search that do not need Ray: sampling, journal, population, Pareto front, output."""

from mapl_ray.tuning.draws import draw
from mapl_ray.tuning.objectives import MULTI, PREF, level_accuracies, objective_of, on_front, values_of
from mapl_ray.tuning.output import best_config, write_config, write_front, write_trials
from mapl_ray.tuning.population import Move, next_moves
from mapl_ray.tuning.trial import Cost, Trial
from mapl_ray.tuning.trial_journal import TrialJournal

__all__ = [
    "MULTI",
    "PREF",
    "Cost",
    "Move",
    "Trial",
    "TrialJournal",
    "best_config",
    "draw",
    "level_accuracies",
    "next_moves",
    "objective_of",
    "on_front",
    "values_of",
    "write_config",
    "write_front",
    "write_trials",
]
