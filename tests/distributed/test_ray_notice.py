"""What looks like an error and is none stays off the screen; what is one does not."""

from __future__ import annotations

import logging
import sys
import weakref
from typing import Any

import pytest
import ray
from ray._private.ray_logging import LogDeduplicator

from mapl_ray.distributed.ray_notice import QuietController, exit_without_traceback
from mapl_ray.distributed.runtime import hide_exited_actors


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


# As Ray 2.60 wrote it when the demo's evaluation ended its actors on a busy machine.
EXITED = (
    "[2026-11-30 21:39:03,679 E 2057 2057] (gcs_server) gcs_actor_scheduler.cc:538: Failed to kill actor "
    "51455e7875e1b804e12eb88e01000000, return status: Invalid: KillActor RPC failed for actor "
    "51455e7875e1b804e12eb88e01000000: RpcError: RPC error: Socket closed rpc_code: 14"
)


@pytest.mark.parametrize("skipped", [None, "my own line"])
def test_an_actor_that_has_exited_is_not_reported(monkeypatch: pytest.MonkeyPatch, skipped: str | None) -> None:
    lines = LogDeduplicator(5, None, skipped)
    monkeypatch.setattr("ray._private.ray_logging.stderr_deduplicator", lines)
    for _ in range(2):  # a process may start several sessions
        hide_exited_actors()
    others = [EXITED.replace("Socket closed", "Deadline exceeded"), EXITED.replace("kill actor", "create actor")]
    batch = {"ip": "127.0.0.1", "pid": "gcs_server", "is_err": True, "lines": [EXITED, *others, "my own line"]}
    (shown,) = lines.deduplicate(batch)
    assert shown["lines"] == others + ["my own line"] * (skipped is None)
    assert lines.skip_re is not None
    assert lines.skip_re.pattern.count("gcs_actor_scheduler") == 1
