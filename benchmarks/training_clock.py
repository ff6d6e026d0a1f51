"""Time the parts of a training step in the real training loop."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch

from mapl_ray.data.shards import write_json

if TYPE_CHECKING:
    from mapl_ray.distributed.training_job import TrainingJob

MODEL = ("forward pass", "backward pass", "optimizer")
AROUND = ("micro-batches", "loss", "reductions", "logging", "Ray")
# Parts of "micro-batches", or of the prefetch thread if there is one.
INSIDE = ("tokenization", "collation")


class Clock:
    """Seconds of every part by step. A step lasts from the end of one step's logging to the end of the next one's."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._now: dict[str, float] = defaultdict(float)
        self._began: float | None = None

    def add(self, part: str, seconds: float) -> None:
        self._now[part] += seconds

    def step_done(self) -> None:
        """Finish a step. The first call starts the clock; the time before it is not counted."""
        now = _time()
        if self._began is not None:
            self.steps.append({**self._now, "step": now - self._began})
        self._began, self._now = now, defaultdict(float)

    def timed(self, part: str, act: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(act)
        def around(*args: Any, **kwargs: Any) -> Any:
            began = _time()
            try:
                return act(*args, **kwargs)
            finally:
                self.add(part, _time() - began)

        return around


def _time() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def watch() -> Clock:
    """Patch the training loop of this process permanently, and return the clock."""
    from mapl_ray.objective import Objective
    from mapl_ray.training import feed, group_table
    from mapl_ray.training.deepspeed_engine import Engine
    from mapl_ray.training.loggers import MetricWriters

    clock = Clock()
    for owner, name, part in (
        (Engine, "__call__", "forward pass"),
        (Engine, "backward", "backward pass"),
        (Engine, "step", "optimizer"),
        (Engine, "sum_over_ranks", "reductions"),
        (Engine, "max_over_ranks", "reductions"),
        (group_table, "encode_group", "tokenization"),
        (feed, "collate", "collation"),
        (Objective, "__call__", "loss"),
        (MetricWriters, "write", "logging"),
    ):
        setattr(owner, name, clock.timed(part, getattr(owner, name)))
    write, steps = MetricWriters.write, feed.Feed.steps

    def written(self: MetricWriters, *args: Any, **kwargs: Any) -> None:
        write(self, *args, **kwargs)
        clock.step_done()

    def fed(self: feed.Feed, *args: Any) -> Iterator[feed.Work]:
        with closing(steps(self, *args)) as made:
            while (work := clock.timed("micro-batches", next)(made, None)) is not None:
                yield work

    for owner, name, act in ((MetricWriters, "write", written), (feed.Feed, "steps", fed)):
        setattr(owner, name, act)
    return clock


def clocked_worker(job: TrainingJob) -> None:
    """A Ray Train worker with a clock; rank 0 writes the times to `clock.json`."""
    import ray.train

    from mapl_ray.distributed import train_worker as shell

    clock = watch()
    stop_requests = shell.stop_requests
    shell.stop_requests = lambda job: clock.timed("Ray", stop_requests(job))
    shell.train_worker(job)
    if ray.train.get_context().get_world_rank() == 0:
        write_json(job.output / "clock.json", clock.steps)
