"""Training on workers that come and go: as many as there is room for, again and again from the newest checkpoint.

An attempt is one run of Ray Train with a number of workers that stays. It ends when the model is trained, when a worker
or its node is lost, or when the workers leave with a checkpoint: their node is about to be taken away, or there is room
for more of them. Ray Train's own elastic policy is not used: it resizes in the middle of a step, which costs the steps
since the last checkpoint, and goes by a list of nodes that may be twenty seconds old.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray.train
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group

from mapl_ray.awaited import has_appeared, list_again
from mapl_ray.config import TrainConfig
from mapl_ray.distributed.resources import room_for
from mapl_ray.distributed.runtime import available_resources
from mapl_ray.errors import RunError
from mapl_ray.training.checkpoint import committed, step_of

_SETTLE_SECONDS = 5.0  # workers beyond the fewest are waited for that long: nodes that start together join together
_LOOK_SECONDS = 0.5


class Seats:
    """Room for workers, each held by a placement group of its own; for those that find none an autoscaler is asked."""

    def __init__(self, number: int, resources: dict[str, float]) -> None:
        self._groups = [placement_group([resources]) for _ in range(number)]

    def taken(self) -> int:
        """How many are there. A node that is being drained, or is dead and not yet known to be, has none."""
        table = placement_group_table()
        return sum(table[group.id.hex()]["state"] == "CREATED" for group in self._groups)

    def give_back(self) -> None:
        """Leave the room to the workers themselves."""
        for group in self._groups:
            remove_placement_group(group)


def train_elastically(
    train: TrainConfig,
    resources: dict[str, float],
    output: Path,
    *,
    attempt: Callable[[int, int], None],
    ended: Callable[[], bool],
    grow: Path,
    running: Path,
) -> None:
    """Attempts until `ended()`, each with as many workers as there is room for.

    Args:
        resources: of one worker, as Ray names them.
        attempt: called with its number and that of its workers; raises `TrainingFailedError` where one is lost.
        ended: whether there is nothing more to do: trained, or asked to stop.
        grow: a file that asks the workers to leave after their next checkpoint.
        running: a file that the workers make once they run.

    Raises the last attempt's error when more than `max_failures` in a row brought no new checkpoint, `RunError` where
    there is no room for the fewest workers in `worker_wait_seconds`.
    """
    number, fruitless = 0, 0
    while (workers := _room(train, resources, ended)) > 0:
        before, failure = _newest_step(output), None
        if number or workers < train.num_workers:
            print(f"  {workers} of {train.num_workers} worker(s), from step {before}", flush=True)
        try:
            with _room_watch(train.num_workers - workers, resources, grow, running):
                attempt(number, workers)
        except ray.train.TrainingFailedError as error:
            failure = error
        if ended():
            return
        after = _newest_step(output)
        number, fruitless = number + 1, 0 if after > before else fruitless + 1
        if fruitless > train.max_failures:
            if failure is not None:
                raise failure
            return
        why = "workers were lost" if failure is not None else "the workers left"
        print(f"  {why}; the newest checkpoint is of step {after}", flush=True)


def _room(train: TrainConfig, resources: dict[str, float], ended: Callable[[], bool]) -> int:
    """Number of workers that can start now, once the fewest can; 0 where the run ends before that."""
    seats, began = Seats(train.num_workers, resources), time.monotonic()
    try:
        while not ended():
            taken, waited = seats.taken(), time.monotonic() - began
            if taken >= train.fewest_workers:
                most = min(train.num_workers, room_for(train.num_workers, resources, available_resources()))
                if taken >= most or waited > _SETTLE_SECONDS:
                    return taken
            elif waited > train.worker_wait_seconds:
                raise RunError(
                    f"room for {taken} of at least {train.fewest_workers} worker(s) of {resources} after "
                    f"{waited:.0f} s (train.min_workers, train.worker_wait_seconds); {available_resources()}. "
                    "Checkpoints are kept: the same command goes on from the newest."
                )
            time.sleep(_LOOK_SECONDS)
        return 0
    finally:
        seats.give_back()


@contextmanager
def _room_watch(missing: int, resources: dict[str, float], grow: Path, running: Path) -> Iterator[None]:
    """Makes `grow` once there is room for one worker more, and keeps that room until the workers have left."""
    done = threading.Event()

    def watch() -> None:
        while not has_appeared(running):  # before that the room might be theirs
            if done.wait(_LOOK_SECONDS):
                return
        seats = Seats(missing, resources)
        try:
            while not done.wait(_LOOK_SECONDS):
                if seats.taken() and not grow.exists():
                    grow.touch()
        finally:
            seats.give_back()

    for mark in (grow, running):
        mark.unlink(missing_ok=True)
    watcher = threading.Thread(target=watch, daemon=True)
    if missing:
        watcher.start()
    try:
        yield
    finally:
        done.set()
        if missing:
            watcher.join()
        for mark in (grow, running):
            mark.unlink(missing_ok=True)


def _newest_step(output: Path) -> int:
    """Of the checkpoints that are whole by their name; 0 where there is none."""
    list_again(output / "checkpoints")
    return max(map(step_of, committed(output / "checkpoints")), default=0)
