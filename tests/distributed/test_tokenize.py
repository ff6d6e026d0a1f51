"""Token ids that are kept between trainings: made once, the same losses, and never those of something else."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reliability.disk import enlarge, no_mount, small_disk
from mapl_ray.batches import TokenIds
from mapl_ray.config import Method, RunConfig
from mapl_ray.data.records import GROUP_SCHEMA, RelationGroup
from mapl_ray.data.shards import commit, iter_rows, read_manifest, write_part
from mapl_ray.distributed.tokenize import run_tokenization, with_kept_tokens
from mapl_ray.distributed.train import run_training
from mapl_ray.distributed.training_job import TrainingJob
from mapl_ray.errors import RunError

pytestmark = pytest.mark.ray
Make = Callable[..., RunConfig]


def job_of(config: RunConfig) -> TrainingJob:
    return TrainingJob.of(config, "rm", config.training("rm"), config.model.name_or_path, config.run_dir / "rm", "f")


def losses(config: RunConfig, method: Method, name: str, **train: Any) -> list[float]:
    """Train and return the loss of every step."""
    output = config.run_dir / name
    settings = config.training(method).model_copy(update=train)
    run_training(config, method, train_config=settings, model_path=config.model.name_or_path, output=output)
    return [json.loads(line)["loss"] for line in (output / "metrics.jsonl").read_text().splitlines()]


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_ids_are_those_of_the_tokenizer_and_are_made_again_where_something_else_decides_them(
    local_ray: None,
    run_to_train: Make,
    tiny_model: Path,
    tmp_path: Path,
    tokenizer: Any,
    grid_groups: Callable[[int], list[RelationGroup]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = run_to_train(max_steps=1, keep_token_ids=True)
    folder, groups = config.data_dir / "groups" / "train", grid_groups(16)
    kept = run_tokenization(config.data_dir, job_of(config))
    assert "token ids of 16 groups: 1 parts made" in printed(capsys)
    rows = list(iter_rows(kept.of("train").folder))
    assert rows == [TokenIds.of(group, tokenizer).to_row(group.pair_id) for group in groups]
    assert run_tokenization(config.data_dir, job_of(config)) == kept
    assert "already there" in printed(capsys)

    # The same pairs with another text.
    groups[3] = replace(groups[3], responses=("another text", groups[3].responses[1]))
    part = write_part(folder, 0, [group.to_row() for group in groups], [], GROUP_SCHEMA, "g")
    commit(folder, "synthesize", "g", [part])
    assert run_tokenization(config.data_dir, job_of(config)) == kept
    assert "1 parts made" in printed(capsys)
    changed = list(iter_rows(kept.of("train").folder))
    assert [index for index in range(16) if changed[index] != rows[index]] == [3]
    assert read_manifest(kept.of("train").folder).fingerprint == kept.of("train").fingerprint(read_manifest(folder))

    # A model with another chat template has ids of its own.
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    template = other / "chat_template.jinja"
    template.write_text("Sir or Madam: " + template.read_text())
    job = TrainingJob.of(config, "rm", config.training("rm"), str(other), config.run_dir / "rm", "f")
    theirs = run_tokenization(config.data_dir, job)
    assert theirs.folder != kept.folder
    assert theirs.recipe != kept.recipe
    assert list(iter_rows(theirs.of("train").folder)) != changed


@pytest.mark.parametrize("keep", [True, False])
def test_what_a_training_is_given(
    run_to_train: Make, keep: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_to_train(max_steps=1, keep_token_ids=keep)
    job = job_of(config)
    monkeypatch.setattr("os.access", lambda path, mode: False)  # another user's data
    assert with_kept_tokens(config, [job, job]) == [job, job]
    assert ("can't be written to" in printed(capsys)) == keep


@pytest.mark.skipif(bool(no_mount()), reason=no_mount() or "can be done")
def test_a_disk_without_room(local_ray: None, run_to_train: Make, tmp_path: Path) -> None:
    config = run_to_train(max_steps=1, keep_token_ids=True)
    job, disk = job_of(config), tmp_path / "disk"
    with small_disk(disk, 8):
        with pytest.raises(RunError, match=r"no space is left .*Or keep no token ids: train.keep_token_ids=false"):
            run_tokenization(disk, job)
        enlarge(disk)
        kept = run_tokenization(disk, job)
        assert read_manifest(kept.of("train").folder).rows == 16


@pytest.mark.long
def test_two_trainings_share_ids_and_learn_what_they_learn_without(
    local_ray: None, run_to_train: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_to_train(max_steps=4)
    without = losses(config, "rm", "without")
    assert "token ids" not in printed(capsys)
    assert not (config.data_dir / "tokens").exists()
    with_ids = losses(config, "rm", "with", keep_token_ids=True)
    assert "token ids of 16 groups: 1 parts made" in printed(capsys)
    assert len(without) == 4
    assert with_ids == without
    assert len(losses(config, "dpo", "dpo", keep_token_ids=True)) == 4
    assert "already there" in printed(capsys)
