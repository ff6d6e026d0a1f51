"""SIGKILL of a training rank, between two checkpoints and while one is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.reliability.commands import Command, kill, start, wait_until
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    INTERVAL,
    STEPS,
    compare_weights,
    few_groups,
    resumed_step,
    steps_done,
    training_words,
    undisturbed_training,
)
from mapl_ray.training.checkpoint import checkpoint_path
from mapl_ray.unfinished import leftovers

WORKER = "RayTrainWorker"


def between_checkpoints(scene: Scene) -> Outcome:
    """Kill a rank after a random step."""

    def moment(run: Path, command: Command) -> bool:
        target = scene.rng.randint(INTERVAL + 1, STEPS - 2)
        return wait_until(lambda: steps_done(run) >= target, command)

    return _killed(scene, moment)


def in_mid_checkpoint(scene: Scene) -> Outcome:
    """Kill a rank while the files of a checkpoint (not the first) are written."""
    killed_in: list[Path] = []

    def moment(run: Path, command: Command) -> bool:
        folder, step = run / "rm" / "checkpoints", scene.rng.randrange(2 * INTERVAL, STEPS, INTERVAL)
        killed_in.append(checkpoint_path(folder, step))
        return wait_until(lambda: any(leftovers(checkpoint_path(folder, step))), command)

    def after(outcome: Outcome) -> None:
        outcome.check("the checkpoint in progress was not whole yet", not killed_in[-1].exists())

    return _killed(scene, moment, after)


def _killed(
    scene: Scene, moment: Callable[[Path, Command], bool], after: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    there, outcome, lost, points = undisturbed_training(scene), Outcome(), list[int](), list[int]()
    for number in range(scene.rounds):
        folder = scene.folder / str(number)
        run = few_groups(scene, folder)
        command = start(training_words(folder), folder)
        outcome.check("the rank was killed before the training was done", moment(run, command))
        kill(scene.rng.choice(command.workers(WORKER)))
        began = time.monotonic()
        time.sleep(0.2)  # time for the other rank to finish its current work
        after(outcome)
        at = steps_done(run)
        wait_until(lambda run=run, at=at: steps_done(run) > at, command)
        outcome.seconds.append(time.monotonic() - began)
        outcome.check("the same command goes on by itself, and ends with exit code 0", command.finish(300) == 0)
        points.append(at)
        lost.append(at - resumed_step(run))
        compare_weights(outcome, there, run)
    outcome.check("at most one checkpoint interval of steps is done again", max(lost) <= INTERVAL)
    points_text = ", ".join(map(str, points))
    outcome.lost = f"at most {max(lost)} of {STEPS} steps (a checkpoint every {INTERVAL}); killed after {points_text}"
    return outcome


_BY_ITSELF = (
    "Nothing has to be done: the log shows Ray's word about the worker that died, then `resumed after step N`. A run "
    "is restarted `train.max_failures` times; after that it ends with exit code 1, and the same command goes on from "
    "the newest checkpoint."
)
FAULTS = (
    Fault(
        name="training-rank",
        of_issue="training rank",
        title="SIGKILL of a training rank",
        happens="all ranks are started again, and go on from the newest whole checkpoint",
        user=_BY_ITSELF,
        recovery="from the kill to the first step that had not been done before",
        rounds=2,
        limit_seconds=400,
        measure=between_checkpoints,
    ),
    Fault(
        name="mid-checkpoint",
        of_issue="rank killed in mid-checkpoint",
        title="SIGKILL of a rank in mid-checkpoint",
        happens="what was written of it is passed over and removed; the checkpoint before is taken",
        user=_BY_ITSELF,
        recovery="from the kill to the first step that had not been done before",
        rounds=2,
        limit_seconds=400,
        measure=in_mid_checkpoint,
    ),
)
