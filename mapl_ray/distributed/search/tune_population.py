"""Population-based training: members train separately for some steps, then the worst continue from the best.

Ray Tune's own scheduler moves checkpoints that a trial reports to Tune. Here the workers of a Train run within the
trial write checkpoints, and Tune never sees them. So members are compared between two runs of the tuner, when all are
at the same step, and a move copies a verified checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace

from mapl_ray.config import RunConfig
from mapl_ray.distributed.search.tune_trial import trial_config
from mapl_ray.training.resume import adopt_checkpoint
from mapl_ray.tuning import Move, Trial, TrialJournal, draw, next_moves

Turn = Callable[[list[Trial], int | None], None]  # trains these members up to a step; None: to the end


def run_population(config: RunConfig, journal: TrialJournal, steps: int, turn: Turn) -> None:
    """Run the search from the journal's state to the end. `steps` is the total number of steps per member."""
    tune = config.tune
    for number in range(tune.trials):
        if number not in journal.trials:
            journal.put(Trial(number, draw(tune.dimensions, tune.seed, number)))
    for step in range(tune.perturb_every_steps, steps, tune.perturb_every_steps):
        _train_to(step, journal, turn)
        alive = [trial for trial in journal.in_order() if trial.status == "running"]
        if all(journal.reached(trial) == step for trial in alive):  # otherwise the moves are already made
            _make_moves(config, journal, alive, step)
    _train_to(None, journal, turn)


def _train_to(step: int | None, journal: TrialJournal, turn: Turn) -> None:
    def behind() -> list[Trial]:
        running = [trial for trial in journal.in_order() if trial.status == "running"]
        return [trial for trial in running if step is None or journal.reached(trial) < step]

    if waiting := behind():
        turn(waiting, step)
    if behind():
        raise KeyboardInterrupt  # Tune has handled the signal: the same command resumes from the journal


def _make_moves(config: RunConfig, journal: TrialJournal, alive: list[Trial], step: int) -> None:
    """Make the moves of this step that are not done yet. An interruption does not change them, because donors are never
    moved and scores are those of this step."""
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
    print(f"  step {step}: trial {trial.number + 1} continues from trial {donor.number + 1}", flush=True)
