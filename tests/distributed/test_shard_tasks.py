"""What a failed part does to the others: a user's mistake ends the stage at once; any other failure does not."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray.data

from mapl_ray.data.records import PAIR_SCHEMA, Message, PreferencePair
from mapl_ray.data.shards import commit, finished_part, iter_rows, read_manifest, write_part
from mapl_ray.distributed.shard_tasks import Stage, errors_as_rows, rows_of_part, run_stages, write_results
from mapl_ray.errors import RunError, UserError

pytestmark = pytest.mark.ray
PARTS, FAILING = 12, 3
BEFORE = set(range(FAILING))
WAIT_SECONDS = 300.0  # many times what a busy machine needs to end a stage


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Parts of two pairs each."""
    pairs = [PreferencePair(f"p{n}", (Message("user", "Why?"),), "yes", "no", "made-up") for n in range(2 * PARTS)]
    source = tmp_path / "source"
    parts = [
        write_part(source, n, [pair.to_row() for pair in pairs[2 * n : 2 * n + 2]], [], PAIR_SCHEMA, "f")
        for n in range(PARTS)
    ]
    commit(source, "prepare", "f", parts)
    return Stage("copy", source, tmp_path / "target", "recipe")


def wait_for(there: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not there() and time.monotonic() < until:
        time.sleep(0.1)


def copying(stage: Stage, failure: Exception | None, go_on: Path | None) -> Callable[[ray.data.Dataset], Any]:
    """Two parts at once. One raises `failure` once those before it are made; those after it wait until the file
    `go_on` is there."""

    @errors_as_rows
    def copy(row: dict[str, Any]) -> dict[str, Any]:
        index = int(row["index"])
        if index == FAILING and failure is not None:
            wait_for(lambda: made(stage) >= BEFORE)
            raise failure
        if index > FAILING and go_on is not None:
            wait_for(go_on.exists)
        pairs = [PreferencePair.from_row(item) for item in rows_of_part(stage.source, index)]
        return write_results(stage, row, pairs, PAIR_SCHEMA)

    return lambda shards: shards.map(copy, num_cpus=1, concurrency=2)


def made(stage: Stage) -> set[int]:
    return {index for index, mark in stage.wanted().items() if finished_part(stage.target, index, mark) is not None}


def test_a_users_mistake_ends_the_stage_at_once(local_ray: None, stage: Stage, tmp_path: Path) -> None:
    """The parts after it wait for a file that does not come; the stage does not wait for them."""
    began = time.monotonic()
    go_on = tmp_path / "go-on"
    with pytest.raises(UserError, match=r"^copy: fix the key$"):
        run_stages([stage], copying(stage, UserError("fix the key"), go_on))
    assert time.monotonic() - began < WAIT_SECONDS
    assert made(stage) == BEFORE
    assert not (stage.target / "manifest.json").exists()
    files = {path: path.stat().st_mtime_ns for path in stage.target.glob("part-*.parquet")}
    # The mistake is fixed: the rest is made, each part once, and nothing is made again.
    ((manifest, number),) = run_stages([stage], copying(stage, None, None))
    assert number == PARTS - len(BEFORE)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert manifest.rows == 2 * PARTS
    assert [row["pair_id"] for row in iter_rows(stage.target)] == [f"p{n}" for n in range(2 * PARTS)]
    straight = replace(stage, target=tmp_path / "straight")
    run_stages([straight], copying(straight, None, None))
    assert manifest.content_hash == read_manifest(straight.target).content_hash


def test_after_another_failure_the_other_parts_are_made(local_ray: None, stage: Stage) -> None:
    with pytest.raises(RunError, match=r"^copy: the engine broke$"):
        run_stages([stage], copying(stage, RunError("the engine broke"), None))
    assert made(stage) == set(range(PARTS)) - {FAILING}
    ((_, number),) = run_stages([stage], copying(stage, None, None))
    assert number == 1
