"""Work in passes: a pass has items, and every item is done once and whole, on Ray Data or in this process.

What an item leaves is files and an entry, `00000.json`, which is written last and says that the item is done: a run
that was killed goes on with the items that have none. Ray Data does them where it runs and they are worth it; the same
function does them in either place.
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
    """One pass. `work` maps an item and its number to what its entry holds, having written its files."""

    name: str
    folder: Path
    work: Callable[[Any, int], Entry]

    def entry_path(self, index: int) -> Path:
        """Of an item's entry."""
        return self.folder / f"{index:05d}.json"

    def entry(self, index: int) -> Entry | None:
        """An item's entry; None where it is not done."""
        try:
            values = json.loads(self.entry_path(index).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return values if isinstance(values, dict) else None


def run_pass(one: Pass, items: Sequence[Any], workers: int | None, *, here: bool) -> list[Entry]:
    """Do the items that are not done; the entries of all, in order.

    Args:
        workers: at most so many items at once; None: as many as there are CPUs.
        here: do them one after another in this process. So it is without Ray, and for a single item.

    Raises what an item raises (`UserError`, `RunError`), at the first one; the finished ones stay.
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
    """The entry of an item whose worker has said that it is done."""
    found = awaited(lambda: one.entry(index), one.folder)
    if found is None:
        raise RunError(
            f"{one.entry_path(index)} is not there after the stage. On a cluster, output_dir must be on storage that "
            "all nodes share (mapl doctor --config looks)."
        )
    return found
