"""Keeps three notices of Ray off the screen, which look like errors and are none.

1. Ray logs at level E, once per process, that an actor "has constructor arguments in the object store and
   max_restarts > 0". Every actor pool of Ray Data is such an actor, for Ray Data hands its actors their work as
   references. Those are held by the driver as long as the pool lives, so that a restarted actor finds them. The C++
   logger has no filter, and a higher level would hide errors that are some.
2. Ray Train's controller asks for room every 20 seconds and waits 5 seconds for the answer. On a busy machine the first
   answers come later, and the controller logs a traceback. An error that goes on is still shown.
3. Ray ends a trial's process by SIGTERM and `SystemExit`. Python prints a traceback if it is cleaning up just then.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray
import ray.train

_STDERR = 2
_REQUESTS = "ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client"
_LATE_REQUESTS = 3  # of one training, a minute's worth; from the next one on they are shown


@cache
def notice_given() -> Any:
    """Have Ray give its notice now, unseen: about an actor that does nothing, and is returned.

    It is kept as long as the process: Ray logs an error about an actor that is dropped while it starts.
    """
    actor_class = ray.remote(num_cpus=0, max_restarts=1)(_Nobody)
    argument = ray.put(None)
    with _stderr_closed():
        return actor_class.remote(argument)


class _Nobody:
    def __init__(self, argument: None) -> None:
        """Holds nothing."""


@contextmanager
def _stderr_closed() -> Iterator[None]:
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)


class QuietController(ray.train.UserCallback):
    """Given to Ray Train, it comes to life in the controller's process and drops late requests there."""

    def __init__(self) -> None:
        """Every process has one filter, however many trainings it starts."""
        logger = logging.getLogger(_REQUESTS)
        if not logger.filters:
            logger.addFilter(_LateRequests())

    def __reduce__(self) -> tuple[type[QuietController], tuple[()]]:
        """So that the process that receives it has the filter."""
        return QuietController, ()


class _LateRequests(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        self.seen += 1
        return self.seen > _LATE_REQUESTS


def exit_without_traceback() -> None:
    """To be called in a process that Ray ends by SIGTERM while it may be cleaning up."""
    shown = sys.unraisablehook

    def show(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not SystemExit:
            shown(lost)

    sys.unraisablehook = show
