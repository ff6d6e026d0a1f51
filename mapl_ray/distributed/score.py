"""Scoring on Ray Data: an actor an engine, which takes part after part."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray.data

from mapl_ray.config import RunConfig
from mapl_ray.distributed.prepare import SPLITS, resolve_model
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, part_by_index, run_stages
from mapl_ray.errors import RunError, UserError
from mapl_ray.models import check_model_directory, model_identity
from mapl_ray.records import GROUP_SCHEMA, Rejection, RelationGroup
from mapl_ray.scoring import EngineOptions, score_groups
from mapl_ray.scoring.score_groups import Column
from mapl_ray.shards import Manifest, fingerprint_of, read_part, write_part


def run_scoring(config: RunConfig) -> dict[str, Manifest]:
    """`run_dir/groups` -> `run_dir/scored`, both splits, with the columns that `scoring` asks for."""
    columns = _columns(config)
    if not columns:
        raise UserError("nothing to score: set scoring.ref_logps=true or scoring.reward_model.")
    manifests: dict[str, Manifest] = {}
    for number, (column, model) in enumerate(columns.items()):
        last = number == len(columns) - 1
        source = config.data_dir / ("groups" if number == 0 else f"scored-{next(iter(columns))}")
        target = config.data_dir / ("scored" if last else f"scored-{column}")
        manifests = _score(config, column, model, source, target)
    return manifests


def _columns(config: RunConfig) -> dict[Column, str]:
    columns: dict[Column, str] = {}
    if config.scoring.ref_logps:
        columns["ref_logps"] = resolve_model(config)
    if config.scoring.reward_model is not None:
        check_model_directory(config.scoring.reward_model)
        columns["rewards"] = config.scoring.reward_model
    return columns


def _score(config: RunConfig, column: Column, model: str, source: Path, target: Path) -> dict[str, Manifest]:
    """Both splits with the same engines: each takes longer to start than to score a small split."""
    options = EngineOptions.of(config.scoring, model, config.model.revision, config.model.dtype, config.seed)
    recipe = fingerprint_of(
        {
            "column": column,
            "model": model_identity(model, config.model.revision),
            "dtype": options.dtype,
            "max_model_len": options.max_model_len,
        }
    )
    stages = [Stage("score", source / split, target / split, recipe) for split in SPLITS]
    done = run_stages(stages, lambda shards: _compute(shards, stages, column, options, config))
    for split, (manifest, made) in zip(SPLITS, done, strict=True):
        text = f"{manifest.rows} groups with {column}, {manifest.rejected} rejected"
        print(f"  {split}: {text}; {f'{made} parts made' if made else 'already there, skipped'}", flush=True)
    return {split: manifest for split, (manifest, _) in zip(SPLITS, done, strict=True)}


def _compute(
    shards: ray.data.Dataset, stages: list[Stage], column: Column, options: EngineOptions, config: RunConfig
) -> ray.data.Dataset:
    scoring = config.scoring
    return shards.map(
        ScoreShard,
        fn_constructor_kwargs={
            "stages": stages,
            "column": column,
            "options": asdict(options),
            "batch_groups": scoring.batch_groups,
        },
        compute=ray.data.ActorPoolStrategy(size=scoring.num_engines),
        num_cpus=scoring.cpus_per_engine,
        num_gpus=scoring.gpus_per_engine,
        max_restarts=MAX_RETRIES,
        max_task_retries=MAX_RETRIES,
    )


class ScoreShard:
    """One engine, started once; a part a call."""

    def __init__(self, stages: list[Stage], column: Column, options: dict[str, Any], batch_groups: int) -> None:
        from mapl_ray.scoring.engine import LogprobScorer, RewardScorer

        self._stages, self._column, self._batch_groups = stages, column, batch_groups
        self._error = ""
        try:
            engine = EngineOptions(**options)
            self._scorer = LogprobScorer(engine) if column == "ref_logps" else RewardScorer(engine)
        except (UserError, RunError) as error:  # as an exception Ray would start the actor again, for ever
            self._error = str(error)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        stage, index = self._stages[int(row["stage"])], int(row["index"])
        if self._error:
            return {"error": self._error}
        source = read_part(stage.source, part_by_index(stage.source, index))
        groups = [RelationGroup.from_row(item) for item in source]
        results = []
        for start in range(0, len(groups), self._batch_groups):
            results += score_groups(groups[start : start + self._batch_groups], self._scorer, self._column)
        write_part(
            stage.target,
            index,
            [result.to_row() for result in results if isinstance(result, RelationGroup)],
            [result for result in results if isinstance(result, Rejection)],
            GROUP_SCHEMA,
            row["fingerprint"],
        )
        return {"error": ""}
