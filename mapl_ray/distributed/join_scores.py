"""Join groups with their separately stored scores: one task per part, no engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.data

from mapl_ray.data.records import GROUP_SCHEMA, Rejection, RelationGroup
from mapl_ray.data.shards import json_lines
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, Stage, errors_as_rows, rows_of_part, write_results
from mapl_ray.scoring import Column, ScoredGroup, with_outcome

_LOST = "no score; the file with the reason is damaged"


def join_scores(shards: ray.data.Dataset, stages: list[Stage], columns: Sequence[Column]) -> ray.data.Dataset:
    """Join every part of every stage. `columns` names the column of each data set in `Stage.beside`."""
    return shards.map(join_shard, fn_kwargs={"stages": stages, "columns": columns}, num_cpus=1, max_retries=MAX_RETRIES)


@errors_as_rows
def join_shard(row: dict[str, Any], *, stages: list[Stage], columns: Sequence[Column]) -> dict[str, Any]:
    """Join one part. A group that any column rejected is rejected with the first such reason."""
    stage, index = stages[int(row["stage"])], int(row["index"])
    results: list[ScoredGroup] = [RelationGroup.from_row(item) for item in rows_of_part(stage.source, index)]
    for column, directory in zip(columns, stage.beside, strict=True):
        scores = {item["pair_id"]: tuple(item["scores"]) for item in rows_of_part(directory, index)}
        reasons = _reasons(directory, index)
        results = [
            group
            if isinstance(group, Rejection)
            else with_outcome(
                group, column, scores.get(group.pair_id) or f"{column}: {reasons.get(group.pair_id, _LOST)}"
            )
            for group in results
        ]
    return write_results(stage, row, results, GROUP_SCHEMA)


def _reasons(directory: Path, index: int) -> dict[str, str]:
    rows = json_lines(directory / f"rejected-{index:05d}.jsonl")
    return {str(row.get("pair_id")): str(row.get("reason")) for row in rows if row is not None}
