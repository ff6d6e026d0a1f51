"""`mapl submit`: run one command as a job of a Ray cluster and return its exit code.

Only this package's source and the config file are sent. The entry point is quoted word by word, because Ray runs it
through a shell. Secrets are never part of the entry point, the metadata or the environment.
"""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ray.job_submission import JobSubmissionClient
from ray.util.state import list_nodes

import mapl_ray
from mapl_ray.config import RunConfig, load_config, override_text
from mapl_ray.data.shards import fingerprint_of
from mapl_ray.distributed.jobs.job_client import (
    TERMINAL,
    connect,
    exactly_this_address,
    follow,
    on_this_machine,
)
from mapl_ray.distributed.jobs.job_environment import shell_environment
from mapl_ray.distributed.jobs.job_paths import absolute_paths
from mapl_ray.distributed.jobs.job_secrets import refuse_secrets
from mapl_ray.distributed.resources import ALL_STAGES, demand_of, with_pair_scoring
from mapl_ray.errors import RunError, UserError
from mapl_ray.unfinished import scratch_folder

CONFIG_NAME = "submitted.yaml"
_AGENT_SECONDS = 30.0


def submit(
    config_path: Path,
    command: Sequence[str],
    address: str | None,
    overrides: Sequence[str] = (),
    *,
    wait: bool = True,
    allow_unprotected: bool = False,
    allow_plain_http: bool = False,
    package: bool = True,
    python: str | None = None,
) -> int:
    """Submit `mapl COMMAND --config CONFIG OVERRIDES` and follow its log.

    Args:
        command: words of the command, such as `["train", "rm"]`.
        wait: False returns 0 as soon as the job is accepted.
        package: False sends only the config, for clusters whose image has this package.
        python: interpreter on the cluster; None: this interpreter if the cluster's head runs here, else `python`.

    Returns 0 succeeded, 1 failed, 2 the job reports a user's mistake, 130 stopped or interrupted here.
    Raises `UserError` for an invalid config, a config with a secret, paths that the cluster can't see, or a cluster
    that `connect` rejects.
    """
    config = load_config(config_path, list(overrides))
    refuse_secrets({str(config_path): config_path.read_text(encoding="utf-8"), "an override": "\n".join(overrides)})
    client, url, warnings = connect(address, allow_unprotected=allow_unprotected, allow_plain_http=allow_plain_http)
    local = on_this_machine(client, url)
    written = load_config(config_path, list(overrides), as_written=True)
    words = _entrypoint(written, command, overrides, local=local, python=python)
    refuse_secrets({"a path": "\n".join(words)})  # a variable in the config may have expanded to a secret
    print(plan(config, command, url, words, warnings, package=package), flush=True)
    label = " ".join(["mapl", *command])
    metadata = {
        "submitted_by": label,
        "mapl_run": f"{config.output_dir}/{config.name}",
        "mapl_config": fingerprint_of(config.model_dump(mode="json")),
    }
    if (running := _running(client, metadata, url)) is not None:
        print(f"job {running} already runs this command with the same config", flush=True)
        return _followed(client, running, url, wait=wait)
    with _staged(config_path, package=package) as folder:
        return run_job(client, words, folder, url=url, label=label, wait=wait, metadata=metadata)


def run_job(
    client: JobSubmissionClient,
    words: Sequence[str],
    folder: Path,
    *,
    url: str,
    label: str,
    wait: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> int:
    """Submit `words` as an entry point with `folder` as its working directory; exit codes as in `submit`."""
    job_id = _accepted(client, words, folder, url=url, metadata={"submitted_by": label, **(metadata or {})})
    print(f"job {job_id} submitted", flush=True)
    return _followed(client, job_id, url, wait=wait)


def _running(client: JobSubmissionClient, metadata: Mapping[str, str], url: str) -> str | None:
    """The id of an unfinished job with the same command, run and config; None if there is none.

    Raises `UserError` for an unfinished job with the same command and run but another config. Conflicts between other
    commands are caught by leases.
    """
    for job in client.list_jobs():
        there = job.metadata or {}
        same = all(there.get(key) == metadata[key] for key in ("submitted_by", "mapl_run"))
        if job.status in TERMINAL or not same or job.submission_id is None:
            continue
        if there.get("mapl_config") != metadata["mapl_config"]:
            raise UserError(
                f"job {job.submission_id} runs `{metadata['submitted_by']}` on {metadata['mapl_run']} with another "
                f"config. Wait for it, stop it ({_stop_words(url, job.submission_id)}), or give this run another name."
            )
        return str(job.submission_id)
    return None


def _stop_words(url: str, job_id: str) -> str:
    return shlex.join(["ray", "job", "stop", "--address", url, job_id])


def _followed(client: JobSubmissionClient, job_id: str, url: str, *, wait: bool) -> int:
    stop = _stop_words(url, job_id)
    print(f"stop it with: {stop}", flush=True)
    if not wait:
        return 0
    try:
        code = follow(client, job_id, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        print(f"\nno longer following; job {job_id} keeps running. The same command follows it again.", flush=True)
        print(f"Stop it with: {stop}", flush=True)
        return 130
    print(f"job {job_id}: {client.get_job_status(job_id).value.lower()}", flush=True)
    return code


def _accepted(
    client: JobSubmissionClient, words: Sequence[str], folder: Path, *, url: str, metadata: dict[str, str]
) -> str:
    """Submit the job and return its id. Retries for some seconds while a new cluster has no agent yet."""
    environment = shell_environment()
    deadline = time.monotonic() + _AGENT_SECONDS
    while True:
        try:
            return str(
                client.submit_job(
                    entrypoint=shlex.join(words),
                    runtime_env={"working_dir": str(folder), "env_vars": environment},
                    metadata=metadata,
                )
            )
        except Exception as error:  # Ray raises RuntimeError, ValueError and requests' errors here.
            if "No available agent" not in str(error) or time.monotonic() > deadline:
                raise RunError(f"{url}: the job was not accepted: {error}") from None
            time.sleep(1.0)


def plan(
    config: RunConfig, command: Sequence[str], url: str, words: Sequence[str], warnings: Sequence[str], *, package: bool
) -> str:
    """The submission as lines to print: cluster, command, files, resources, run and warnings."""
    sent = "this package's source and the config file" if package else "the config file (the code is in the image)"
    lines = [
        f"cluster    {url}",
        f"command    {shlex.join(words)}",
        f"sends      {sent}",
        f"needs      {resources_line(config, command)}",
        f"available  {available(url)}",
        f"run        {config.output_dir}/{config.name}",
    ]
    return "\n".join(lines + [f"warning    {text}" for text in warnings])


def resources_line(config: RunConfig, command: Sequence[str]) -> str:
    """The most resources that the command holds at once, as a line. Stages of a pipeline run one after another."""
    one = " ".join(command[:2]) if command[0] == "train" else command[0]
    stages = with_pair_scoring(ALL_STAGES if command[0] == "pipeline" else (one,), config)
    holding = {*ALL_STAGES, "score pairs"} - {"synthesize"}  # synthesis uses free CPUs; report is not a stage
    totals = {stage: demand_of(stage, config).in_all for stage in stages if stage in holding}
    return "; ".join(f"{stage}: {cpus:g} CPU, {gpus:g} GPU" for stage, (cpus, gpus) in totals.items()) or (
        "CPUs as they become free"
    )


def available(url: str) -> str:
    """The cluster's nodes and their resources, as a line."""
    try:
        with exactly_this_address():
            nodes = [node for node in list_nodes(address=url, limit=10_000) if node.state == "ALIVE"]
    except Exception as error:  # Informational only: a cluster that does not report it can still run the job.
        return f"unknown ({error})"
    total = {name: sum((node.resources_total or {}).get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    return f"{len(nodes)} node(s), {total['CPU']:g} CPU, {total['GPU']:g} GPU"


def _entrypoint(
    config: RunConfig, command: Sequence[str], overrides: Sequence[str], *, local: bool, python: str | None
) -> list[str]:
    interpreter = python or (sys.executable if local else "python")
    paths = [override_text(key, value) for key, value in absolute_paths(config, local=local).items()]
    return [
        *(interpreter, "-m", "mapl_ray.cli", *command, "--config", CONFIG_NAME),
        *(*overrides, *paths, "cluster.address=auto"),
    ]


@contextmanager
def _staged(config_path: Path, *, package: bool) -> Iterator[Path]:
    """A temporary folder with only the files that the job needs, for Ray to upload."""
    with scratch_folder("mapl-submit") as folder:
        shutil.copyfile(config_path, folder / CONFIG_NAME)
        if package:
            source = Path(mapl_ray.__file__ or "").parent
            shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder
