"""Ray jobs and their environment: what `jobs/` adds to a command line, and the variables of workers.

Variables of workers: what the user's job sets, then what the shell sets, then our defaults.

Ray refuses a variable that the job and its driver both set, even to the same value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

# Switches without secrets that change how the libraries behave; nothing else of the environment is sent.
FORWARDED = ("HF_HUB_OFFLINE", "DS_ACCELERATOR", "TOKENIZERS_PARALLELISM")
# Of workers: what the libraries say about themselves would bury a run's own lines.
QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # it shows every line of a worker twice
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
}
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entry point of a job


def in_a_job() -> bool:
    """Whether this process is the entry point of a Ray job, however it was submitted."""
    return _JOB in os.environ


def shell_environment() -> dict[str, str]:
    """The forwarded variables that this process has."""
    return {name: os.environ[name] for name in FORWARDED if name in os.environ}


def worker_environment() -> dict[str, str]:
    """Variables for `ray.init`, without those that the job of this process sets."""
    shell = {name: os.environ[name] for name in (*FORWARDED, *QUIET) if name in os.environ}
    there = _set_by_the_job()
    return {name: value for name, value in (QUIET | shell).items() if name not in there}


def _set_by_the_job() -> frozenset[str]:
    values = json.loads(os.environ.get(_JOB) or "{}")
    runtime_env = values.get("runtime_env") or {}
    return frozenset(runtime_env.get("env_vars") or {})


def job_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments, with `cluster.address=auto` added inside a Ray job.

    A job runs on the cluster that started it; without this it would start a second, private cluster on the head's
    machine. An address that the user gives as an override stays. Outside a job nothing changes.
    """
    given = any(argument.startswith("cluster.address=") for argument in arguments)
    if given or not in_a_job():
        return list(arguments)
    return [*arguments, "cluster.address=auto"]
