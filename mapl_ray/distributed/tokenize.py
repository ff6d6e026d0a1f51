"""Token ids of all groups, made once for every trial of a search."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from mapl_ray.batches import ENCODING, RenderError, TokenIds
from mapl_ray.config import RunConfig
from mapl_ray.data.records import TOKEN_SCHEMA, RelationGroup
from mapl_ray.data.shards import fingerprint_of, write_part
from mapl_ray.distributed.prepare import SPLITS
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, rows_of_part, run_stages
from mapl_ray.distributed.training_job import data_dirs
from mapl_ray.lease import lease, lease_path
from mapl_ray.models import load_tokenizer, model_identity
from mapl_ray.progress import tracked

_WAIT_SECONDS = 24 * 3600.0  # for another search that makes them


def run_tokenization(config: RunConfig, model_path: str) -> Path:
    """Groups as they train -> a folder below `data_dir/tokens`, both splits, skipped where they are there; returns it.

    one folder per model: another run on the same data must not put other ids under the trials of this one.
    """
    revision = config.model.revision
    recipe = fingerprint_of(
        {"model": model_identity(model_path, revision), "columns": TOKEN_SCHEMA.names, "encoding": ENCODING}
    )
    folder = config.data_dir / "tokens" / recipe[:16]
    held_out = data_dirs(config)[1]
    sources = dict(zip(SPLITS, (data_dirs(config)[0], held_out), strict=True))
    stages = [
        Stage("tokenize", source, folder / split, recipe, cache=True)
        for split, source in sources.items()
        if source is not None
    ]

    def compute(shards: ray.data.Dataset) -> ray.data.Dataset:
        arguments = {"stages": stages, "model_path": model_path, "revision": revision}
        return shards.map(_tokenize, fn_kwargs=arguments, num_cpus=1, max_retries=MAX_RETRIES)

    # Searches of several runs may take the same data.
    with lease(lease_path(config.data_dir, "tokens"), patience_seconds=_WAIT_SECONDS):
        done = run_stages(stages, compute)
    rows, made = sum(manifest.rows for manifest, _ in done), sum(parts for _, parts in done)
    print(f"  tokens of {rows} groups, for all trials: {f'{made} parts made' if made else 'already there'}", flush=True)
    return folder


def _tokenize(row: Mapping[str, Any], stages: list[Stage], model_path: str, revision: str | None) -> dict[str, Any]:
    stage, index = stages[int(row["stage"])], int(row["index"])
    tokenizer = _tokenizer(model_path, revision)
    groups = (RelationGroup.from_row(one) for one in rows_of_part(stage.source, index))
    found = [_ids(group, tokenizer).to_row(group.pair_id) for group in tracked(groups, "tokenize", "groups")]
    table = pa.Table.from_pylist(found, schema=TOKEN_SCHEMA)
    write_part(stage.target, index, table, [], TOKEN_SCHEMA, row["fingerprint"])
    return {"error": ""}


def _ids(group: RelationGroup, tokenizer: Any) -> TokenIds:
    """None at all where the chat template does not take the group: whoever trains on it says why."""
    try:
        return TokenIds.of(group, tokenizer)
    except RenderError:
        return TokenIds((), ())


@lru_cache(maxsize=1)
def _tokenizer(model_path: str, revision: str | None) -> Any:
    return load_tokenizer(model_path, revision)
