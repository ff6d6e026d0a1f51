"""Keeps one notice of Ray off the screen, which looks like an error and is none.

Ray logs at level E, once per process, that an actor "has constructor arguments in the object store and
max_restarts > 0".
Every actor pool of Ray Data is such an actor, for Ray Data hands its actors their work as references. Those are held by
the driver as long as the pool lives, so that a restarted actor finds them. The C++ logger has no filter, and a higher
level would hide errors that are some.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import ray

_STDERR = 2


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
