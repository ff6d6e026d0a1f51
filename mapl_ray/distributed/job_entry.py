"""What the scripts under `jobs/` add to their command line."""

from __future__ import annotations

from collections.abc import Sequence

from mapl_ray.distributed.worker_environment import in_a_job


def job_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `cluster.address=auto` added inside a Ray job.

    A job runs on the cluster that started it; without this it would start a second, private cluster on the head's
    machine. An address that the user gives as an override stays. Outside a job nothing changes.
    """
    given = any(argument.startswith("cluster.address=") for argument in arguments)
    if given or not in_a_job():
        return list(arguments)
    return [*arguments, "cluster.address=auto"]
