"""Tokenize all groups once, for all trainings and trials of a model on these groups."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from mapl_ray.batches import ENCODING, RenderError, TokenIds
from mapl_ray.config import RunConfig
from mapl_ray.data.kept_tokens import TOKENIZE, KeptTokens
from mapl_ray.data.records import TOKEN_SCHEMA, RelationGroup
from mapl_ray.data.shards import fingerprint_of, read_manifest, write_part
from mapl_ray.distributed.node_watch import nodes_watched
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, errors_as_rows, rows_of_part, run_stages
from mapl_ray.distributed.training_job import TrainingJob
from mapl_ray.errors import RunError, no_space
from mapl_ray.lease import lease, lease_path
from mapl_ray.models import load_tokenizer
from mapl_ray.progress import tracked
from mapl_ray.scoring import tokenizer_identity
from mapl_ray.versions import package_versions

_WAIT_SECONDS = 24 * 3600.0  # how long to wait for another run that makes them
_WORKER_ROWS = 1000  # starting a process takes about as long as tokenizing this many
_CODE = ("mapl_ray", "transformers", "tokenizers")  # packages that determine the ids


def with_kept_tokens(config: RunConfig, jobs: Sequence[TrainingJob]) -> list[TrainingJob]:
    """Add the token ids of their groups to the trainings of one run; missing ids are made in the data's folder. A job
    with `keep_token_ids=false` stays as it is.

    Raises `RunError` if the disk has no room for them.
    """
    data_dir = config.data_dir
    if not any(job.train.keep_token_ids for job in jobs):
        return list(jobs)
    if not os.access(data_dir, os.W_OK):  # another run's data, `data_run`
        print(f"  {data_dir} can't be written to: no token ids are kept, groups are tokenized as they come", flush=True)
        return list(jobs)
    of_model: dict[str, KeptTokens] = {}
    for job in jobs:
        if job.train.keep_token_ids and job.model_path not in of_model:
            with nodes_watched(TOKENIZE, config):
                of_model[job.model_path] = run_tokenization(data_dir, job)
    return [replace(job, tokens=of_model[job.model_path]) if job.train.keep_token_ids else job for job in jobs]


def run_tokenization(data_dir: Path, job: TrainingJob) -> KeptTokens:
    """Tokenize the training groups of both splits into a folder below `data_dir/tokens`; finished parts are skipped.

    Each model has its own folder, so another run on the same data can't replace the ids that this run's workers read.
    """
    tokenizer = tokenizer_identity(load_tokenizer(job.model_path, job.model.revision))
    versions = {name: version for name, version in package_versions().items() if name in _CODE}
    recipe = fingerprint_of(
        {
            "model": job.model_id,
            "tokenizer": tokenizer,
            "columns": TOKEN_SCHEMA.names,
            "encoding": ENCODING,
            "versions": versions,
        }
    )
    kept = KeptTokens(data_dir / "tokens" / fingerprint_of(job.model_id)[:16], recipe)
    stages = [
        Stage(TOKENIZE, source, kept.of(split).folder, recipe, cache=True) for split, source in job.groups.items()
    ]

    def compute(shards: ray.data.Dataset) -> ray.data.Dataset:
        rows = sum(read_manifest(stage.source, verify=False).rows for stage in stages)
        given = {"stages": stages, "model": (job.model_path, job.model.revision), "identity": tokenizer}
        pool = ray.data.TaskPoolStrategy(size=max(1, rows // _WORKER_ROWS))
        return shards.map(_tokenize, fn_kwargs=given, compute=pool, num_cpus=1, max_retries=MAX_RETRIES)

    # Several runs may use the same data.
    with lease(lease_path(data_dir, "tokens"), patience_seconds=_WAIT_SECONDS):
        done = run_stages(stages, compute)
    rows, made = sum(manifest.rows for manifest, _ in done), sum(parts for _, parts in done)
    print(f"  token ids of {rows} groups: {f'{made} parts made' if made else 'already there'}", flush=True)
    return kept


@errors_as_rows
def _tokenize(
    row: Mapping[str, Any], stages: list[Stage], model: tuple[str, str | None], identity: dict[str, Any]
) -> dict[str, Any]:
    stage, index = stages[int(row["stage"])], int(row["index"])
    tokenizer = _tokenizer(*model, fingerprint_of(identity))
    groups = (RelationGroup.from_row(one) for one in rows_of_part(stage.source, index))
    found = [_ids(group, tokenizer).to_row(group.pair_id) for group in tracked(groups, "tokenize", "groups")]
    table = pa.Table.from_pylist(found, schema=TOKEN_SCHEMA)
    try:
        write_part(stage.target, index, table, [], TOKEN_SCHEMA, row["fingerprint"])
    except OSError as error:
        if (message := no_space(error)) is None:
            raise
        raise RunError(f"{message} Or keep no token ids: train.keep_token_ids=false.") from None
    return {"error": ""}


def _ids(group: RelationGroup, tokenizer: Any) -> TokenIds:
    """Token ids of the group; empty if the chat template can't render it. Training reports the reason."""
    try:
        return TokenIds.of(group, tokenizer)
    except RenderError:
        return TokenIds((), ())


@lru_cache(maxsize=1)
def _tokenizer(path: str, revision: str | None, identity: str) -> Any:
    """Load the tokenizer; raise `RunError` if its `tokenizer_identity` does not have the driver's fingerprint."""
    tokenizer = load_tokenizer(path, revision)
    if fingerprint_of(tokenizer_identity(tokenizer)) != identity:
        raise RunError(
            f"{path}: tokenizer or chat template on {platform.node()} differ from those on the machine that started "
            "the run. Put the same files on every node, or on storage that all nodes share."
        )
    return tokenizer
