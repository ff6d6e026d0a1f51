"""What looks like an error and is none stays off the screen; what is one does not."""

from __future__ import annotations

import logging
import sys
import weakref
from typing import Any

import pytest
import ray

from mapl_ray.distributed.ray_notice import QuietController, exit_without_traceback


def test_a_controller_drops_its_first_late_requests(local_ray: None) -> None:
    @ray.remote(num_cpus=0)
    def controller(callbacks: list[Any], requests: int) -> list[str]:
        from ray.train.v2._internal.execution.scaling_policy import autoscaling_coordinator_client as client

        shown: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: shown.append(record.getMessage())
        client.logger.addHandler(handler)
        for number in range(requests):
            client.logger.warning(f"request {number}")
        client.logger.removeHandler(handler)
        return shown

    assert len(ray.get(controller.remote([], 5))) == 5
    assert ray.get(controller.remote([QuietController(), QuietController()], 5)) == ["request 3", "request 4"]


def test_an_exit_that_python_cannot_raise_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: printed.append(lost.exc_type))

    class Thing:
        pass

    def drop(error: BaseException) -> None:
        def fail(_: object) -> None:
            raise error

        thing = Thing()
        watched = weakref.ref(thing, fail)
        del thing
        assert watched() is None

    drop(SystemExit(1))
    assert printed == [SystemExit]
    exit_without_traceback()
    drop(SystemExit(1))
    drop(ValueError("lost"))
    assert printed == [SystemExit, ValueError]
