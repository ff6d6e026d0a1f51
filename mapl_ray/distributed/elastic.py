"""Elastic training: restart from the newest checkpoint with as many workers as there is room for.

An attempt is one run of Ray Train with a fixed number of workers. It ends when the model is trained, when a worker or
its node is lost, or when the workers save a checkpoint and leave because their node is about to be preempted or there
is room for more of them. Ray Train's own elastic policy is not used: it resizes in the middle of a step, which loses
the steps since the last checkpoint, and it uses a list of nodes that may be twenty seconds old.
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

_SETTLE_SECONDS = 5.0  # how long to wait for workers beyond min_workers: nodes started together may join seconds apart
_LOOK_SECONDS = 0.5


class Seats:
    """Reserved room for workers: one placement group each. An autoscaler is asked for those without room."""

    def __init__(self, number: int, resources: dict[str, float]) -> None:
        self._groups = [placement_group([resources]) for _ in range(number)]

    def taken(self) -> int:
        """Number of reserved seats. A node that is being drained, or whose death is not yet noticed, has none."""
        table = placement_group_table()
        return sum(table[group.id.hex()]["state"] == "CREATED" for group in self._groups)

    def give_back(self) -> None:
        """Release the room, so that the workers can use it."""
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
    """Run attempts until `ended()`, each with as many workers as there is room for.

    Args:
        resources: of one worker, with Ray's names.
        attempt: called with the attempt's number and number of workers; raises `TrainingFailedError` if one is lost.
        ended: whether training is finished or was asked to stop.
        grow: a file that asks the workers to leave after their next checkpoint.
        running: a file that the workers create once they run.

    Raises the last attempt's error if more than `max_failures` attempts in a row made no new checkpoint, `RunError` if
    there is no room for `min_workers` within `worker_wait_seconds`.
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
    """Number of workers that can start, once at least `min_workers` can; 0 if the run ends before that."""
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
                    "Checkpoints are kept: run the same command again to resume from the newest."
                )
            time.sleep(_LOOK_SECONDS)
        return 0
    finally:
        seats.give_back()


@contextmanager
def _room_watch(missing: int, resources: dict[str, float], grow: Path, running: Path) -> Iterator[None]:
    """Create `grow` once there is room for one more worker, and reserve that room until the workers have left."""
    done = threading.Event()

    def watch() -> None:
        while not has_appeared(running):  # until then the free room may be meant for them
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
    """Step of the newest committed checkpoint; 0 if there is none."""
    list_again(output / "checkpoints")
    return max(map(step_of, committed(output / "checkpoints")), default=0)
