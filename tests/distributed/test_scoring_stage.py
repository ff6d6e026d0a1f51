"""Scoring on Ray with real engines: one that is killed, a group that breaks them, reruns, a second scorer."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch

from benchmarks.reliability import poison
from benchmarks.reliability.poison import POISON
from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import Manifest, commit, iter_rows, read_manifest, write_part
from mapl_ray.distributed.score import run_scoring
from mapl_ray.distributed.score_actor import engine_pool
from mapl_ray.models import load_reward_model

pytestmark = [pytest.mark.ray, pytest.mark.vllm]
PARTS, GROUPS, BATCH = 3, 40, 8


@pytest.fixture(scope="module")
def poisoned_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return poison.poisoned_model(tiny_model, tmp_path_factory.mktemp("poisoned") / "model")


def config_of(folder: Path, model: Path, **scoring: Any) -> RunConfig:
    values = {
        "name": "run",
        "output_dir": str(folder),
        "model": {"name_or_path": str(model)},
        "scoring": {"max_model_len": 256, "batch_groups": BATCH, **scoring},
    }
    return parse_config(values, "test")


def write_groups(config: RunConfig, train: list[RelationGroup], evaluation: list[RelationGroup]) -> None:
    for split, groups, number in (("train", train, PARTS), ("eval", evaluation, 1)):
        folder, size = config.data_dir / "groups" / split, len(groups) // number
        rows = [[group.to_row() for group in groups[n * size : (n + 1) * size]] for n in range(number)]
        parts = [write_part(folder, n, of_part, (), GROUP_SCHEMA, str(n)) for n, of_part in enumerate(rows)]
        commit(folder, "synthesize", "made for the test", parts)


def kill_engine_once(folder: Path, happened: list[int]) -> Callable[[], None]:
    """To be run beside the scoring: SIGKILL for the engine's process once it has some batches behind it."""

    def watch() -> None:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            text = "".join(p.read_text() for p in folder.glob("part-*.journal") if p.is_file())
            if text.count('"end"') >= 2 and len(list(folder.glob("part-*.json"))) < PARTS:
                for process in psutil.Process().children(recursive=True):
                    if "ScoreShard" in " ".join(process.cmdline()):
                        os.kill(process.pid, signal.SIGKILL)
                        happened.append(process.pid)
                        return
            time.sleep(0.001)

    return watch


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("part-*.parquet")}


def test_a_pool_grows_while_parts_wait(local_ray: None) -> None:
    class Part:
        """Stands for an engine; a part takes it a second."""

        def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
            time.sleep(1.0)
            return {"process": os.getpid()}

    shards = ray.data.from_items([{"index": index} for index in range(16)], override_num_blocks=16)
    pool = engine_pool(shards, 1, 2)
    assert len({row["process"] for row in shards.map(Part, compute=pool, num_cpus=1).take_all()}) == 2


Undisturbed = tuple[RunConfig, dict[str, Manifest], list[RelationGroup]]


@pytest.fixture(scope="module")
def undisturbed(
    local_ray: None, poisoned_model: Path, grid_groups: Any, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    """A run whose scoring nothing disturbed, its manifests, and its groups: the last one is not in it."""
    groups: list[RelationGroup] = [replace(group, ref_logps=None) for group in grid_groups(PARTS * GROUPS + 2)]
    config = config_of(tmp_path_factory.mktemp("undisturbed"), poisoned_model)
    write_groups(config, groups[:-2], groups[-2:-1])
    found = run_scoring(config)
    assert (found["train"].rows, found["eval"].rows) == (PARTS * GROUPS, 1)
    return config, found, groups


def test_a_rerun_has_nothing_to_do(undisturbed: Undisturbed, capsys: pytest.CaptureFixture[str]) -> None:
    config, found, _ = undisturbed
    before = times(config.data_dir)
    # Of a run that was killed between a part and the end of its journal, or while it wrote the manifest.
    for name in ("part-00000.journal", ".manifest.json.node-7-0123456789ab.tmp"):
        (config.data_dir / "scores" / "ref_logps" / "train" / name).write_text("{}")
    capsys.readouterr()
    assert run_scoring(config) == found
    said = capsys.readouterr().out
    assert said.count("already there, skipped") == 4  # two splits of the column, two of the groups with it
    assert times(config.data_dir) == before
    assert [path for ending in ("*.journal", ".*.tmp") for path in config.data_dir.rglob(ending)] == []


def test_the_trainers_forward_pass_gives_the_same_columns(
    undisturbed: Undisturbed, poisoned_model: Path, tmp_path: Path
) -> None:
    calm, _, groups = undisturbed
    config = config_of(tmp_path, poisoned_model, ref_logps_by="trainer")
    write_groups(config, groups[: PARTS * 2], groups[-2:-1])
    found = run_scoring(config)
    assert (found["train"].rows, found["train"].rejected, found["eval"].rows) == (PARTS * 2, 0, 1)
    before, by_vllm = times(config.data_dir), {row["pair_id"]: row for row in iter_rows(calm.data_dir / "scored/train")}
    assert run_scoring(config) == found
    assert times(config.data_dir) == before
    for row in iter_rows(config.data_dir / "scored" / "train"):
        same = by_vllm[row["pair_id"]]
        assert {**row, "ref_logps": None} == {**same, "ref_logps": None}
        torch.testing.assert_close(torch.tensor(row["ref_logps"]), torch.tensor(same["ref_logps"]), rtol=0, atol=1e-4)


@pytest.mark.faults
def test_a_killed_engine_changes_no_score(undisturbed: Undisturbed, poisoned_model: Path, tmp_path: Path) -> None:
    _, expected, groups = undisturbed
    config = config_of(tmp_path, poisoned_model)
    write_groups(config, groups[:-2], groups[-2:-1])
    scores, killed = config.data_dir / "scores", list[int]()
    watcher = threading.Thread(target=kill_engine_once(scores / "ref_logps" / "train", killed), daemon=True)
    watcher.start()
    found = run_scoring(config)
    assert len(killed) == 1
    for split in ("train", "eval"):
        assert found[split].content_hash == expected[split].content_hash
    assert not list(config.data_dir.rglob("*.journal"))


@pytest.mark.faults
def test_a_group_that_breaks_engines_is_set_aside_and_another_scorer_adds_its_column(
    undisturbed: Undisturbed, poisoned_model: Path, tokenizer: Any, tmp_path: Path
) -> None:
    calm, expected, groups = undisturbed
    train, (sound, other) = groups[:-2], groups[-2:]
    broken = config_of(tmp_path / "broken", poisoned_model)
    write_groups(broken, train, [sound, replace(other, responses=(f"a {POISON} in the garden", other.responses[1]))])
    scores, found = broken.data_dir / "scores", run_scoring(broken)
    assert found["train"].content_hash == expected["train"].content_hash
    assert (found["eval"].rows, found["eval"].rejected) == (1, 1)
    rejected = (broken.data_dir / "scored" / "eval" / "rejected-00000.jsonl").read_text()
    assert other.pair_id in rejected
    assert '"stage":"score"' in rejected
    assert "failed on this group in 2 tries" in rejected
    (row,) = iter_rows(broken.data_dir / "scored" / "eval")
    (same,) = iter_rows(calm.data_dir / "scored" / "eval")
    assert row["pair_id"] == same["pair_id"]
    # Its batch was halved, so float32 sums of some 25 tokens go in another order.
    torch.testing.assert_close(torch.tensor(row["ref_logps"]), torch.tensor(same["ref_logps"]), rtol=0, atol=1e-4)
    before = times(broken.data_dir)

    # A second scorer adds its column. It reads with its own tokenizer and has a row for every token.
    reward = load_reward_model(poisoned_model, "float32", seed=1)
    reward.resize_token_embeddings(len(tokenizer) + 1)
    reward.save_pretrained(tmp_path / "rm")
    for file in poisoned_model.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "rm")
    shutil.copy(poisoned_model / "chat_template.jinja", tmp_path / "rm")
    both = config_of(tmp_path / "broken", poisoned_model, reward_model=str(tmp_path / "rm"))
    made = run_scoring(both)
    assert {p: t for p, t in before.items() if "ref_logps" in p.parts} == times(scores / "ref_logps")
    assert read_manifest(scores / "rewards" / "eval").rows == 2  # it has nothing against the group
    assert (made["eval"].rows, made["eval"].rejected) == (1, 1)
    for row in iter_rows(both.data_dir / "scored" / "train"):
        assert len(row["ref_logps"]) == len(row["rewards"]) == 6

    # Fewer columns, other columns, all again: joined anew from what is there.
    engines_work = times(scores)
    alone = run_scoring(
        config_of(tmp_path / "broken", poisoned_model, ref_logps=False, reward_model=str(tmp_path / "rm"))
    )
    assert (alone["eval"].rows, alone["eval"].rejected) == (2, 0)
    assert next(iter_rows(both.data_dir / "scored" / "train"))["ref_logps"] is None
    assert run_scoring(both) == made
    assert times(scores) == engines_work
