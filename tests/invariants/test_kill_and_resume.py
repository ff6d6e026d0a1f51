"""Synthesis killed at twenty random points, with all that it started, ends with the same data (`make test-faults`)."""

import gzip
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.reliability import commands
from benchmarks.reliability.commands import Command, kill_with_family, wait_until
from benchmarks.reliability.runs import parts
from mapl_ray.data.shards import iter_rows, read_manifest

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(900)]
KILLS = 20
ROWS = 960


@pytest.fixture(scope="module")
def source(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pairs, with a row that is rejected when it is read."""
    path = tmp_path_factory.mktemp("source") / "pairs.jsonl"
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [next(lines) for _ in range(ROWS)]
    path.write_text("".join([*rows, json.dumps({"prompt": "a", "chosen": "b", "rejected": 3}) + "\n"]))
    return path


def start(source: Path, output: Path) -> Command:
    # Small shards, so that there are many points to be killed at: over a hundred parts.
    words = [f"data.path={source}", f"output_dir={output}", "name=run", "synthesis.rows_per_shard=8"]
    return commands.start(["synthesize", *words, "cluster.num_cpus=2"], output)


def finish(source: Path, output: Path) -> None:
    command = start(source, output)
    assert command.finish(300) == 0, command.text()[-3000:]


def owner_of(run: Path) -> int | None:
    """The process that holds the lease of synthesis; the lease of one that was killed is still there."""
    try:
        lease = json.loads((run / ".leases" / "synthesize.json").read_text())
    except (OSError, ValueError):  # not there, or about to be written
        return None
    return int(lease["process"])


@contextmanager
def paused(command: Command) -> Iterator[None]:
    """The driver does nothing meanwhile, and is there."""
    os.kill(command.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(command.process.pid, signal.SIGCONT)


def test_twenty_kills_change_nothing(source: Path, tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    finish(source, undisturbed)
    rng, points = random.Random(20), []
    while len(points) < KILLS:
        command = start(source, killed)
        # The first ones while the pairs are read and written, then after nought to two more parts.
        target = 0 if len(points) < 3 else parts(killed / "run") + rng.randint(0, 2)
        if not wait_until(lambda target=target: parts(killed / "run") >= target, command):
            break
        time.sleep(rng.uniform(0.0, 8.0 if len(points) < 3 else 0.02))
        kill_with_family(command)
        points.append(parts(killed / "run"))
        for manifest in (killed / "run").glob("*/*/manifest.json"):
            read_manifest(manifest.parent)  # whatever a reader would take for whole is whole
    assert len(points) == KILLS, f"the run was over after {len(points)} kills, at parts {points}"
    assert len(set(points)) > 5, f"not at many points: {points}"
    finish(source, killed)
    for stage in ("pairs", "groups"):
        for split in ("train", "eval"):
            a, b = (read_manifest(folder / "run" / stage / split) for folder in (undisturbed, killed))
            assert a == b
    ids = [row["pair_id"] for s in ("train", "eval") for row in iter_rows(killed / "run" / "groups" / s)]
    assert len(ids) == len(set(ids))
    pairs = [read_manifest(killed / "run" / "pairs" / split) for split in ("train", "eval")]
    assert sum(manifest.input_rows for manifest in pairs) == ROWS + 1
    leftovers = [p.name for p in (killed / "run").rglob("*") if p.name.endswith(".tmp")]
    assert leftovers == []


def test_a_second_copy_is_refused_whenever_the_first_is_killed(source: Path, tmp_path: Path) -> None:
    """As after Ctrl-C in `mapl submit`, or by a requeue: nothing is mixed, and a dead run's lease holds nobody up."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    finish(source, undisturbed)
    rng = random.Random(10)
    for kill in range(10):
        first = start(source, killed)
        assert wait_until(lambda first=first: owner_of(killed / "run") == first.process.pid, first)
        with paused(first):  # or it might be over before the second one has started
            second = start(source, killed)
            assert second.finish(120) == 2, second.text()[-3000:]
        assert "another run of synthesize is at work there" in second.text()
        assert "Traceback" not in second.text()
        time.sleep(rng.uniform(0.0, 3.0))
        alive = first.process.poll() is None
        kill_with_family(first)
        if not alive:
            assert kill > 2, "the run was over too soon"
            break
    finish(source, killed)
    for stage in ("pairs", "groups"):
        for split in ("train", "eval"):
            assert read_manifest(undisturbed / "run" / stage / split) == read_manifest(killed / "run" / stage / split)
    assert not (killed / "run" / ".leases").exists()
