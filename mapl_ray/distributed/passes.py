"""Resumable passes: a pass processes every item exactly once, on Ray Data or in this process.

An item writes its files and, last, an entry (`00000.json`) that marks it as done. A run that was killed resumes with
the items that have no entry. Ray Data is used if Ray runs and the work is large enough; both ways call the same
function.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.data

from mapl_ray.awaited import awaited
from mapl_ray.data.shards import write_json
from mapl_ray.distributed.shard_tasks import MAX_RETRIES, computed, errors_as_rows
from mapl_ray.errors import RunError, UserError

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass. `work` takes an item and its index, writes its files, and returns the content of its entry."""

    name: str
    folder: Path
    work: Callable[[Any, int], Entry]

    def entry_path(self, index: int) -> Path:
        """Path of an item's entry."""
        return self.folder / f"{index:05d}.json"

    def entry(self, index: int) -> Entry | None:
        """An item's entry; None if the item is not done."""
        try:
            values = json.loads(self.entry_path(index).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None


def run_pass(one: Pass, items: Sequence[Any], workers: int | None, *, here: bool) -> list[Entry]:
    """Process the items that are not done; returns the entries of all items, in order.

    Args:
        workers: maximum number of items at once; None: number of CPUs.
        here: process them one after another in this process, as without Ray and for a single item.

    Raises the first error of an item (`UserError`, `RunError`); finished items are kept.
    """
    one.folder.mkdir(parents=True, exist_ok=True)
    left = [index for index in range(len(items)) if one.entry(index) is None]
    if here or len(left) == 1 or not ray.is_initialized():
        for index in left:
            _do(one, items[index], index)
    elif left:
        arguments = {"one": one, "items": {index: items[index] for index in left}}
        results = computed(
            one.name,
            [{"index": index} for index in left],
            lambda rows: rows.map(
                _do_row,
                fn_kwargs=arguments,
                compute=ray.data.TaskPoolStrategy(size=workers),
                num_cpus=1,
                max_retries=MAX_RETRIES,
            ),
            lambda: f"{sum(one.entry(index) is None for index in left)} of {len(items)} parts",
        )
        with closing(results):
            for row in results:
                if row["error"]:
                    raise UserError(row["error"]) if row["mistake"] else RunError(f"{one.name}: {row['error']}")
    return [_made(one, index) for index in range(len(items))]


@errors_as_rows
def _do_row(row: Mapping[str, Any], *, one: Pass, items: Mapping[int, Any]) -> dict[str, Any]:
    index = int(row["index"])
    _do(one, items[index], index)
    return {"error": ""}


def _do(one: Pass, item: Any, index: int) -> None:
    write_json(one.entry_path(index), one.work(item, index))


def _made(one: Pass, index: int) -> Entry:
    """The entry of an item that its worker reported as done."""
    found = awaited(lambda: one.entry(index), one.folder)
    if found is None:
        raise RunError(
            f"{one.entry_path(index)} is missing after the stage. On a cluster, output_dir must be on storage that "
            "all nodes share (check with mapl doctor --config)."
        )
    return found
