"""What the scripts under `jobs/` add to their command line."""

from __future__ import annotations

import os
from collections.abc import Sequence

# Set by Ray for the entry point of every job, however it was submitted.
_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def job_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `cluster.address=auto` added inside a Ray job.

    A job runs on the cluster that started it; without this it would start a second, private cluster on the head's
    machine. An address that the user gives as an override stays. Outside a job nothing changes.
    """
    given = any(argument.startswith("cluster.address=") for argument in arguments)
    if _IN_A_JOB not in os.environ or given:
        return list(arguments)
    return [*arguments, "cluster.address=auto"]
