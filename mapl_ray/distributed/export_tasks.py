"""`mapl export --parts` on a cluster: one Ray Data task per part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import ray.data

from mapl_ray.config import ClusterConfig
from mapl_ray.data.shards import Part
from mapl_ray.distributed.runtime import ray_session
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, errors_as_rows, run_items
from mapl_ray.synthesis import ExportFolder


def write_parts(export: ExportFolder, parts: Sequence[Part], cluster: ClusterConfig) -> None:
    """Write the parts on the configured cluster or a private one.

    Raises `UserError` for a damaged part, and `RunError` for one that could not be written.
    """

    def compute(items: ray.data.Dataset) -> ray.data.Dataset:
        return items.map(_write, fn_kwargs={"export": export}, num_cpus=1, max_retries=MAX_RETRIES)

    with ray_session(cluster, searches=False):
        run_items([asdict(part) for part in parts], compute, "export", partial(export.unwritten, parts))


@errors_as_rows
def _write(row: dict[str, Any], *, export: ExportFolder) -> dict[str, Any]:
    export.write_part(Part(**{**row, "index": int(row["index"])}))
    return {"error": ""}
