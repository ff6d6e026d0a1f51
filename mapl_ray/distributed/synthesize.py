"""Synthesis on Ray Data: a task a shard of pairs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import ray.data

import mapl_ray
from mapl_ray.config import RunConfig, SynthesisConfig
from mapl_ray.distributed.prepare import SPLITS, prepare_pairs
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, part_by_index, run_stages
from mapl_ray.errors import UserError
from mapl_ray.records import GROUP_SCHEMA, PreferencePair, Rejection, RelationGroup
from mapl_ray.shards import Manifest, fingerprint_of, read_part, write_part
from mapl_ray.synthesis import select_functions, synthesize


def run_synthesis(config: RunConfig) -> dict[str, Manifest]:
    """`run_dir/pairs` -> `run_dir/groups`, both splits; the same bytes on any number of workers.

    Raises `UserError` where no pair of the train split gave a group.
    """
    select_functions(config.synthesis)  # a misspelt name is told here, not by a task
    prepare_pairs(config)
    recipe = _recipe(config)
    stages = [
        Stage("synthesize", config.data_dir / "pairs" / split, config.data_dir / "groups" / split, recipe)
        for split in SPLITS
    ]
    manifests = {}
    done = run_stages(stages, lambda shards: _compute(shards, stages, config))
    for split, (manifest, made) in zip(SPLITS, done, strict=True):
        print(f"  {split}: {_told(manifest, made)}", flush=True)
        manifests[split] = manifest
    if manifests["train"].rows == 0:
        raise UserError(
            f"{config.data_dir / 'groups' / 'train'}: no pair gave a group. The reasons are in rejected-*.jsonl there."
        )
    return manifests


def _told(manifest: Manifest, made: int) -> str:
    share = manifest.rows / max(1, manifest.input_rows)
    text = f"{manifest.input_rows} pairs -> {manifest.rows} groups ({share:.1%}), {manifest.rejected} rejected"
    return f"{text}; {made} of {len(manifest.parts)} parts made" if made else f"{text}; already there, skipped"


def _compute(shards: ray.data.Dataset, stages: list[Stage], config: RunConfig) -> ray.data.Dataset:
    return shards.map(
        synthesize_shard,
        fn_kwargs={"stages": stages, "config": config.synthesis, "seed": config.seed},
        compute=ray.data.TaskPoolStrategy(size=config.cluster.synthesis_workers),
        num_cpus=1,
        max_retries=MAX_RETRIES,
    )


def synthesize_shard(row: dict[str, Any], *, stages: list[Stage], config: SynthesisConfig, seed: int) -> dict[str, Any]:
    """Make one part. A config mistake comes back as a row: as an exception Ray would retry it."""
    stage, index = stages[int(row["stage"])], int(row["index"])
    try:
        pairs = map(PreferencePair.from_row, read_part(stage.source, part_by_index(stage.source, index)))
        results = [synthesize(pair, config, seed) for pair in pairs]
    except UserError as error:
        return {"error": str(error)}
    write_part(
        stage.target,
        index,
        [result.to_row() for result in results if isinstance(result, RelationGroup)],
        [result for result in results if isinstance(result, Rejection)],
        GROUP_SCHEMA,
        row["fingerprint"],
    )
    return {"error": ""}


def _recipe(config: RunConfig) -> str:
    """Config, seed, and the very code that writes instructions: a mended function makes the data anew."""
    code = hashlib.sha256()
    package = Path(mapl_ray.__file__ or "").parent
    for folder in ("instructions", "synthesis"):
        for file in sorted((package / folder).glob("*.py")):
            code.update(file.read_bytes())
    values = config.synthesis.model_dump(mode="json", exclude={"rows_per_shard"})
    return fingerprint_of({"config": values, "seed": config.seed, "code": code.hexdigest()})
