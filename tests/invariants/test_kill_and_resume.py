"""Synthesis killed at random points, with everything it started, ends with the very same data.

A few times in every run of the tests, twenty times in `make test-long`.
"""

import gzip
import json
import random
import time
from pathlib import Path

import pytest

from benchmarks.reliability import commands
from benchmarks.reliability.commands import Command, kill_with_family, wait_until
from benchmarks.reliability.runs import parts
from mapl_ray.shards import iter_rows, read_manifest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


def write_source(path: Path, data: Path, rows_wanted: int) -> None:
    """Real pairs, with a row that is rejected when it is read."""
    with gzip.open(data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [next(lines) for _ in range(rows_wanted)]
    path.write_text("".join([*rows, json.dumps({"prompt": "a", "chosen": "b", "rejected": 3}) + "\n"]))


def start(source: Path, output: Path) -> Command:
    # Small shards, so that there are many points to be killed at.
    words = [f"data.path={source}", f"output_dir={output}", "name=run", "synthesis.rows_per_shard=8"]
    return commands.start(["synthesize", *words, "cluster.num_cpus=2"], output)


def finish(source: Path, output: Path) -> None:
    command = start(source, output)
    assert command.finish(300) == 0, command.text()[-3000:]


@pytest.mark.parametrize(("kills", "rows", "further"), [(3, 240, 8), pytest.param(20, 960, 2, marks=pytest.mark.long)])
def test_kills_change_nothing(kills: int, rows: int, further: int, shared_data: Path, tmp_path: Path) -> None:
    """`further`: the most parts from one kill to the next."""
    source = tmp_path / "pairs.jsonl"
    write_source(source, shared_data, rows)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    finish(source, undisturbed)
    rng, points = random.Random(kills), []
    while len(points) < kills:
        command = start(source, killed)
        # The first ones while the pairs are read and written, then after a few more parts.
        early = len(points) < kills // 6 + 1
        target = 0 if early else parts(killed / "run") + rng.randint(0, further)
        if not wait_until(lambda target=target: parts(killed / "run") >= target, command):
            break
        time.sleep(rng.uniform(0.0, 8.0 if early else 0.02))
        kill_with_family(command)
        points.append(parts(killed / "run"))
        for manifest in (killed / "run").glob("*/*/manifest.json"):
            read_manifest(manifest.parent)  # whatever a reader would take for whole is whole
    assert len(points) == kills, f"the run was over after {len(points)} kills, at parts {points}"
    assert len(set(points)) > kills // 4, f"not at many points: {points}"
    finish(source, killed)
    for stage in ("pairs", "groups"):
        for split in ("train", "eval"):
            a, b = (read_manifest(folder / "run" / stage / split) for folder in (undisturbed, killed))
            assert a == b
    ids = [row["pair_id"] for s in ("train", "eval") for row in iter_rows(killed / "run" / "groups" / s)]
    assert len(ids) == len(set(ids))
    pairs = [read_manifest(killed / "run" / "pairs" / split) for split in ("train", "eval")]
    assert sum(manifest.input_rows for manifest in pairs) == rows + 1
    leftovers = [p.name for p in (killed / "run").rglob("*") if p.name.endswith(".tmp") or p.name == ".spill"]
    assert leftovers == []
