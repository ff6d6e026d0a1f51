"""Population-based training: members train apart for some steps, are compared, and the worst go on from the best.

Ray Tune's scheduler of that name moves checkpoints that a trial hands to Tune. Ours are made by the workers of a Train
run within the trial, and Tune never sees them; so the population is looked at between two runs of the tuner, when all
members stand at the same step, and a move is a copy of a verified checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

from mapl_ray.config import RunConfig
from mapl_ray.distributed.search.tune_trial import trial_config
from mapl_ray.training.resume import adopt_checkpoint
from mapl_ray.tuning import Move, Trial, TrialJournal, draw, next_moves

Turn = Callable[[list[Trial], int | None], None]  # train these members; up to a step, or to the end


def run_population(config: RunConfig, journal: TrialJournal, steps: int, turn: Turn) -> None:
    """From wherever the journal stands to the end. `steps` are those of a member in all."""
    tune = config.tune
    for number in range(tune.trials):
        if number not in journal.trials:
            journal.put(Trial(number, draw(tune.dimensions, tune.seed, number)))
    for step in range(tune.perturb_every_steps, steps, tune.perturb_every_steps):
        _train_to(step, journal, turn)
        alive = [trial for trial in journal.in_order() if trial.status == "running"]
        if all(journal.reached(trial) == step for trial in alive):  # else its moves are made, and some went on
            _make_moves(config, journal, alive, step)
    _train_to(None, journal, turn)


def _train_to(step: int | None, journal: TrialJournal, turn: Turn) -> None:
    def behind() -> list[Trial]:
        running = [trial for trial in journal.in_order() if trial.status == "running"]
        return [trial for trial in running if step is None or journal.reached(trial) < step]

    if waiting := behind():
        turn(waiting, step)
    if behind():
        raise KeyboardInterrupt  # Tune takes the signal for itself: the same command goes on from the journal


def _make_moves(config: RunConfig, journal: TrialJournal, alive: list[Trial], step: int) -> None:
    """Those not yet made. A death in between changes none: donors are never moved, and scores are of this step."""
    tune = config.tune
    scores = {trial.number: trial.objective_at(step) for trial in alive}
    params = {trial.number: trial.params for trial in alive}
    for move in next_moves(scores, params, tune.dimensions, f"{tune.seed}/{step}"):
        trial = journal.trials[move.member]
        if all(made["step"] != step for made in trial.moves):
            _move(config, journal, trial, move, step)


def _move(config: RunConfig, journal: TrialJournal, trial: Trial, move: Move, step: int) -> None:
    donor = journal.trials[move.donor]
    made = {"step": step, "from": move.donor, "params": trial.params, "objective": trial.objective_at(step)}
    moved = replace(trial, run=trial.run + 1, params=move.params, moves=(*trial.moves, made))
    adopt_checkpoint(
        journal.folder(donor) / "checkpoints",
        journal.folder(moved) / "checkpoints",
        step,
        trial_config(config, move.params),
    )
    journal.put(moved)
    shutil.rmtree(journal.folder(trial) / "checkpoints", ignore_errors=True)
    print(f"  step {step}: trial {trial.number + 1} goes on from trial {donor.number + 1}", flush=True)
