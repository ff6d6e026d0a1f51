"""Hide three notices of Ray that look like errors but are harmless.

1. Ray logs at level E, once per process, that an actor "has constructor arguments in the object store and
   max_restarts > 0". This holds for every actor pool of Ray Data, which passes work to its actors as references. The
   driver keeps those references as long as the pool lives, so a restarted actor finds them. The C++ logger has no
   filter, and a higher level would hide real errors.
2. Ray Train's controller requests resources every 20 seconds and waits 5 seconds for the answer. On a busy machine the
   first answers are late, and the controller logs a traceback. An error that persists is still shown.
3. Ray ends a trial's process with SIGTERM and `SystemExit`. Python prints a traceback if it is cleaning up then.
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
_LATE_REQUESTS = 3  # hidden per training, about a minute's worth; later ones are shown


@cache
def notice_given() -> Any:
    """Trigger Ray's once-per-process notice while stderr is closed, with a dummy actor, which is returned.

    The actor is kept as long as the process: Ray logs an error about an actor that is dropped while it starts.
    """
    actor_class = ray.remote(num_cpus=0, max_restarts=1)(_Nobody)
    argument = ray.put(None)
    with _stderr_closed():
        return actor_class.remote(argument)


class _Nobody:
    def __init__(self, argument: None) -> None:
        """Do nothing."""


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
    """Ray Train callback that hides the log lines of late requests in the controller's process."""

    def __init__(self) -> None:
        """Install the log filter, once per process."""
        logger = logging.getLogger(_REQUESTS)
        if not logger.filters:
            logger.addFilter(_LateRequests())

    def __reduce__(self) -> tuple[type[QuietController], tuple[()]]:
        """Unpickle by calling the constructor, which installs the filter in the receiving process."""
        return QuietController, ()


class _LateRequests(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to show the record."""
        self.seen += 1
        return self.seen > _LATE_REQUESTS


def exit_without_traceback() -> None:
    """Suppress the traceback of `SystemExit` in a process that Ray ends with SIGTERM during cleanup."""
    shown = sys.unraisablehook

    def show(lost: sys.UnraisableHookArgs) -> None:
        if lost.exc_type is not SystemExit:
            shown(lost)

    sys.unraisablehook = show
