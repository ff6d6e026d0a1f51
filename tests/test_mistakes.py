"""What users get wrong, through the command line: one clear message, exit code 2, and nothing half-written left."""

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mapl_ray.cli import main
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import commit, write_part
from tests.shared_ray import CPUS

Told = Callable[..., str]
WORKERS_LINE = re.compile(r"(\x1b\[\d+m)?\(")  # Ray shows it at any time: the cluster has served other tests
PAIR = {"prompt": "Why is the sky blue?", "chosen": "Sunlight scatters in the air.", "rejected": "It just is."}


def give_groups(folder: Path, groups: list[RelationGroup]) -> Path:
    """A finished data set of one part; the part's file."""
    part = write_part(folder, 0, [group.to_row() for group in groups], [], GROUP_SCHEMA, "f")
    commit(folder, "synthesize", "f", [part])
    return folder / part.file


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """`told(words...)` runs a command that must end with 2 and returns its one line."""

    def run(*words: str) -> str:
        code = main([*words, "name=run", f"output_dir={tmp_path / 'runs'}"])
        error = "".join(line for line in capsys.readouterr().err.splitlines(True) if not WORKERS_LINE.match(line))
        assert code == 2, error
        assert error.startswith("mapl: error: ")
        assert "Traceback" not in error
        assert error.count("\n") == 1, error
        # A reader of the run trusts manifests and results alone: there is none.
        left = [*(tmp_path / "runs").rglob("manifest.json"), *(tmp_path / "runs").rglob("result.json")]
        assert [path for path in left if "given" not in path.parts] == []
        return error

    return run


def test_unknown_config_key(told: Told) -> None:
    message = told("synthesize", "synthesis.max_instruction=3")
    assert "unknown key 'synthesis.max_instruction'" in message
    assert "max_instructions" in message  # the cure: the keys there are


def test_missing_config_file(told: Told, tmp_path: Path) -> None:
    assert "no such config file" in told("pipeline", "--config", str(tmp_path / "none.yaml"))


def test_missing_data_file(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    message = told("pipeline", "--data", str(path))
    assert str(path) in message
    assert "no such file" in message


@pytest.mark.ray
def test_empty_data_set(local_ray: None, told: Told, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    message = told("synthesize", "--data", str(tmp_path / "empty.jsonl"))
    assert "empty.jsonl" in message
    assert "holds no rows" in message


@pytest.mark.ray
def test_half_written_parquet(local_ray: None, told: Told, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist([PAIR] * 50), whole)
    whole.write_bytes(whole.read_bytes()[:-20])
    message = told("synthesize", "--data", str(whole))
    assert str(whole) in message
    assert "truncated" in message


def test_half_written_groups(told: Told, tmp_path: Path, grid_groups: Callable[[int], list[RelationGroup]]) -> None:
    file = give_groups(tmp_path / "runs" / "given" / "groups" / "train", grid_groups(3))
    file.write_bytes(file.read_bytes()[:200])
    message = told("export", "--format", "trl", "--output", str(tmp_path / "out.jsonl"), "data_run=given")
    assert str(file) in message
    assert "Run the stage again" in message
    assert not (tmp_path / "out.jsonl").exists()


def test_model_directory_without_a_tokenizer(told: Told, tiny_model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    message = told("pipeline", "--model", str(bare))
    assert str(bare) in message
    assert "no tokenizer" in message


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
@pytest.mark.parametrize("stage", [("train", "dpo"), ("tune",), ("pipeline",)])
def test_a_logger_that_is_not_installed(told: Told, stage: tuple[str, ...]) -> None:
    """Before the cluster starts, and before the stages that come first."""
    message = told(*stage, "train.loggers=[tensorboard, wandb]")
    assert "not installed here: wandb" in message
    assert "pip install wandb" in message


def test_an_option_of_the_other_method(told: Told) -> None:
    assert "set dpo.objective.nll_weight" in told("train", "dpo", "train.objective.nll_weight=0.1")


@pytest.mark.ray
def test_more_workers_than_the_cluster_holds(
    local_ray: None, told: Told, tmp_path: Path, grid_groups: Callable[[int], list[RelationGroup]]
) -> None:
    for split in ("train", "eval"):
        give_groups(tmp_path / "runs" / "given" / "groups" / split, grid_groups(3))
    message = told("train", "rm", "train.num_workers=64", "data_run=given")
    assert "train rm needs 64 x (1 CPU + 0 GPU)" in message
    assert f"{CPUS} CPU" in message
    assert "Lower train.num_workers" in message


@pytest.mark.parametrize("command", ["export --format trl --output x.jsonl", "score", "train rm", "train dpo", "tune"])
def test_nothing_to_work_on(told: Told, command: str) -> None:
    assert "does not exist. Run the stage that makes it" in told(*command.split())


def test_no_trained_model_to_evaluate(told: Told) -> None:
    assert "no trained model to evaluate. Run `mapl train rm`" in told("evaluate")


def test_no_trained_model_to_report_on(told: Told) -> None:
    assert "no such run directory" in told("report")


@pytest.mark.ray
@pytest.mark.long
def test_a_loss_that_is_not_finite_is_a_failure(
    local_ray: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tiny_model: Path,
    grid_groups: Callable[[int], list[RelationGroup]],
) -> None:
    """Exit code 1, for it happens in mid-run; nothing there that a reader would take for a model."""
    run = tmp_path / "runs" / "run"
    rows = [group.to_row() | {"ref_logps": [float("nan")] * 6} for group in grid_groups(4)]
    for split in ("train", "eval"):
        commit(
            run / "groups" / split, "score", "f", [write_part(run / "groups" / split, 0, rows, [], GROUP_SCHEMA, "f")]
        )
    words = [f"output_dir={tmp_path / 'runs'}", "name=run", f"model.name_or_path={tiny_model}"]
    sizes = ["train.max_sequence_tokens=256", "train.max_failures=0"]
    assert main(["train", "dpo", *words, *sizes]) == 1
    error = capsys.readouterr().err
    assert "mapl: failed: step 1: the loss is not finite" in error
    assert not (run / "dpo" / "model").exists()
    assert not (run / "dpo" / "result.json").exists()
    assert json.loads((run / "groups" / "train" / "manifest.json").read_text())["rows"] == 4  # the data is untouched
