"""Environment of Ray jobs: the argument that `jobs/` adds to a command line, and the workers' variables.

Variables of workers, by precedence: those of the user's job, those of the shell, our defaults.

Ray rejects a variable that both the job and its driver set, even to the same value.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

# Switches without secrets that change how libraries behave. No other environment variable is sent.
FORWARDED = ("HF_HUB_OFFLINE", "DS_ACCELERATOR", "TOKENIZERS_PARALLELISM")
# For workers: library notices would bury the run's own lines.
QUIET = {
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # the patch shows every line of a worker twice
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
}
_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for the entry point of a job


def in_a_job() -> bool:
    """Whether this process is the entry point of a Ray job, however it was submitted."""
    return _JOB in os.environ


def shell_environment() -> dict[str, str]:
    """The forwarded variables that are set in this process."""
    return {name: os.environ[name] for name in FORWARDED if name in os.environ}


def worker_environment() -> dict[str, str]:
    """Variables for `ray.init`, without those that this process's job sets."""
    shell = {name: os.environ[name] for name in (*FORWARDED, *QUIET) if name in os.environ}
    there = _set_by_the_job()
    return {name: value for name, value in (QUIET | shell).items() if name not in there}


def _set_by_the_job() -> frozenset[str]:
    values = json.loads(os.environ.get(_JOB) or "{}")
    runtime_env = values.get("runtime_env") or {}
    return frozenset(runtime_env.get("env_vars") or {})


def job_arguments(arguments: Sequence[str]) -> list[str]:
    """Add `cluster.address=auto` to the arguments inside a Ray job.

    Without it a job would start a second, private cluster on the head's machine instead of using the cluster that
    started it. An address override given by the user is kept. Outside a job nothing changes.
    """
    given = any(argument.startswith("cluster.address=") for argument in arguments)
    if given or not in_a_job():
        return list(arguments)
    return [*arguments, "cluster.address=auto"]
