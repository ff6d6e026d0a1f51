"""Preparation and evaluation, each killed at ten random points with all that they started, end with the same data
(`make test-faults`)."""

import gzip
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability import commands
from benchmarks.reliability.commands import Command, kill_with_family, wait_until
from mapl_ray.data.shards import file_sha256, read_manifest

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.timeout(1500)]
KILLS = 10  # of each stage
ROWS, FILES = 480, 12


@pytest.fixture(scope="module")
def source(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real pairs in compressed files, with a row that is rejected when it is read."""
    folder = tmp_path_factory.mktemp("source")
    with gzip.open(shared_data / "alpaca_eval_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [next(lines) for _ in range(ROWS)] + [json.dumps({"prompt": "a", "chosen": "b", "rejected": 3}) + "\n"]
    for number in range(FILES):
        with gzip.open(folder / f"{number:02d}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(rows[number::FILES])
    return folder


def prepare(source: Path, output: Path) -> Command:
    """`mapl synthesize`, whose preparation has dozens of items for workers."""
    words = [f"data.path={source}", f"output_dir={output}", "name=run", "synthesis.rows_per_shard=8"]
    options = ["data.eval_fraction=0.3", "data.duplicates=near", "cluster.num_cpus=2", "cluster.synthesis_workers=2"]
    return commands.start(["synthesize", *words, *options], output, module="tests.multihost.small_items")


def evaluate(models: list[Path], output: Path) -> Command:
    words = [f"output_dir={output}", "name=run", f"evaluation.models=[{', '.join(map(str, models))}]"]
    options = [f"evaluation.reference={models[0]}", "evaluation.bootstrap_samples=20", "cluster.num_cpus=2"]
    return commands.start(["evaluate", *words, *options, "train.max_sequence_tokens=512"], output)


def count(run: Path, *patterns: str) -> int:
    return sum(1 for pattern in patterns for _ in run.glob(pattern))


def kill_repeatedly(start: Callable[[], Command], done: Callable[[], int], seed: int) -> list[int]:
    """Kill the command `KILLS` times, each time after none to two more finished items; their numbers at the kills."""
    rng, points = random.Random(seed), list[int]()
    while len(points) < KILLS:
        command = start()
        target = done() + rng.randint(0, 2)
        assert wait_until(lambda target=target: done() >= target, command, 300), f"over after kills at {points}"
        time.sleep(rng.uniform(0.0, 8.0 if len(points) < 2 else 0.02))
        assert command.process.poll() is None, f"over after kills at {points}"
        kill_with_family(command)
        points.append(done())
    assert len(set(points)) > KILLS // 3, f"not at many points: {points}"
    return points


def finish(command: Command) -> None:
    assert command.finish(600) == 0, command.text()[-3000:]


def contents(run: Path, *folders: str) -> dict[str, str]:
    """sha256 of every file by its path, without the files of preparation's passes."""
    files = [path for folder in folders for path in (run / folder).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(run)): file_sha256(path)
        for path in files
        if "work-" not in str(path.relative_to(run).parent)
    }


def results(run: Path) -> dict[str, Any]:
    """The evaluation without its date."""
    found: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    del found["provenance"]["date"]
    return found


def test_ten_kills_of_preparation_and_ten_of_evaluation_change_nothing(
    source: Path, tiny_model: Path, tiny_reward_model: Path, tmp_path: Path
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    models = [tiny_model, tiny_reward_model]
    for folder in (undisturbed, killed):
        folder.mkdir()
    finish(prepare(source, undisturbed))

    run = killed / "run"
    passes = ("pairs/work-*/*/*.json", "pairs/*/part-*.parquet")
    points = kill_repeatedly(lambda: prepare(source, killed), lambda: count(run, *passes), seed=19)
    assert points[-1] > 0
    finish(prepare(source, killed))
    assert contents(run, "pairs", "groups") == contents(undisturbed / "run", "pairs", "groups")
    manifests = [read_manifest(run / "pairs" / split) for split in ("train", "eval")]
    assert sum(manifest.input_rows for manifest in manifests) == ROWS + 1

    finish(evaluate(models, undisturbed))
    parts = "evaluation/**/part-*.parquet"
    points = kill_repeatedly(lambda: evaluate(models, killed), lambda: count(run, parts), seed=20)
    assert points[-1] > 0
    finish(evaluate(models, killed))
    assert contents(run, "evaluation") == contents(undisturbed / "run", "evaluation")
    assert results(run) == results(undisturbed / "run")
