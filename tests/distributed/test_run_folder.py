"""The same name with other settings: what the files show is said before Ray starts, and nothing is overwritten."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mapl_ray.cli import main
from mapl_ray.config import RunConfig
from mapl_ray.data.shards import read_manifest, write_json
from mapl_ray.distributed import pipeline
from mapl_ray.distributed.pipeline import _keep_other
from mapl_ray.distributed.resources import ALL_STAGES
from mapl_ray.distributed.run_folder import check_run_folder, leases
from mapl_ray.errors import UserError
from mapl_ray.evaluation import collect_provenance
from mapl_ray.lease import lease, lease_path
from mapl_ray.models import model_identity
from mapl_ray.training.checkpoint import begin_checkpoint, commit_checkpoint, written_files
from mapl_ray.training.resume import run_settings
from mapl_ray.unfinished import unfinished

Maker = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def ray_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands here must end before; a session may be there already, of other files."""

    def start(*_: object, **__: object) -> None:
        pytest.fail("Ray was asked for")

    monkeypatch.setattr(pipeline, "ray_session", start)


def leave_checkpoint(config: RunConfig, folder: str = "rm") -> Path:
    """As an unfinished run with this config does."""
    train = config.training("rm")
    settings = run_settings(
        train,
        "rm",
        model=model_identity(config.model.name_or_path),
        data=read_manifest(config.run_dir / "groups" / "train").content_hash,
        world_size=train.num_workers,
    )
    directory = config.run_dir / folder / "checkpoints"
    written = begin_checkpoint(directory, 3)
    (written / "state").write_text("weights")
    files = [written_files(written, [written / "state"])]
    return commit_checkpoint(written, 3, files=files, world_size=1, zero_stage=2, settings=settings)


def test_unfinished_training_of_other_settings_is_named_at_once(
    run_to_train: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_to_train(max_steps=9)
    leave_checkpoint(config)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    assert main(["train", "rm", "--config", str(file), "train.learning_rate=0.5"]) == 2
    error = capsys.readouterr().err
    assert "step-00000003 is of a run with other settings (train.learning_rate: 0.001 there, 0.5 now)" in error
    assert "Use another name" in error
    assert error.count("\n") == 1


def test_what_is_compared_before_the_data_is_made(run_to_train: Maker) -> None:
    config = run_to_train(max_steps=9)
    check_run_folder(config, ("train rm",), baseline=False)
    leave_checkpoint(config, "rm-baseline")
    check_run_folder(config, ("train rm",), baseline=False)
    stages = ("synthesize", "score", "train rm", "train dpo")
    with pytest.raises(UserError, match=r"rm-baseline.*lambda_intra: 1.0 there, 0.0 now"):
        check_run_folder(config, stages, baseline=False)
    with pytest.raises(UserError, match=r"rm-baseline.*lambda_intra: 1.0 there, 0.0 now"):
        check_run_folder(config, ("train rm",), baseline=True)
    (config.run_dir / "groups" / "train" / "manifest.json").unlink()
    with pytest.raises(UserError, match="unfinished"):
        check_run_folder(config, ("train rm",), baseline=False)
    (config.run_dir / "rm-baseline" / "result.json").write_text("{}")  # finished: it will be set aside
    check_run_folder(config, stages, baseline=False)


def test_a_second_run_is_refused_before_ray_starts(
    run_to_train: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_to_train(max_steps=9)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    with leases(config, ("train rm",), baseline=False):
        assert main(["train", "rm", "--config", str(file)]) == 2
        error = capsys.readouterr().err
        assert f"{config.run_dir}: another run of rm is at work there (process " in error
        assert "give this run another name" in error
        assert error.count("\n") == 1
        # What others write is free; a pipeline needs all of it.
        for stages, baseline in (
            (("train rm",), True),
            (("train dpo",), False),
            (("score",), False),
            (("tune",), False),
        ):
            with leases(config, stages, baseline=baseline):
                pass
        with pytest.raises(UserError, match="another run of rm"), leases(config, ALL_STAGES, baseline=False):
            pass
    with leases(config, ALL_STAGES, baseline=False):
        names = sorted(path.stem for path in (config.run_dir / ".leases").iterdir())
        assert names == ["dpo", "dpo-baseline", "evaluate", "rm", "rm-baseline", "score", "synthesize", "tune"]
    shared = config.model_copy(update={"name": "other", "data_run": "run"})
    with leases(config, ("score",), baseline=False):
        with pytest.raises(UserError, match="another run of score"), leases(shared, ("score",), baseline=False):
            pass
        with leases(shared, ("train rm",), baseline=False):
            pass


def test_what_killed_runs_left_half_written_is_removed(run_to_train: Maker) -> None:
    config = run_to_train(max_steps=9)
    mine = config.run_dir / "notes.tmp"
    fresh = unfinished(config.run_dir / "evaluation.json")
    old = [unfinished(config.run_dir / name) for name in ("model", "rm/result.json", "groups/train/manifest.json")]
    (config.run_dir / "rm").mkdir()
    old[0].mkdir()
    (old[0] / "config.json").write_text("{")
    for path in (mine, *old[1:]):
        path.write_text("{")
    for path in (mine, *old):
        os.utime(path, (1.0, 1.0))
    # Another stage's run is at work: what is half-written may be its own.
    with lease(lease_path(config.run_dir, "tune")), leases(config, ("train rm",), baseline=False):
        assert all(path.exists() for path in old)
    fresh.write_text("{")
    with leases(config, ("train rm",), baseline=False):
        assert [path for path in old if path.exists()] == []
        assert mine.exists()
        assert fresh.exists()


@pytest.mark.parametrize("name", ["rm", "groups/train", ".leases", "rm/checkpoints", "evaluation.json"])
def test_a_link_below_the_runs_folder_does_not_lead_out(
    run_to_train: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    config = run_to_train(max_steps=9)
    outside, link = tmp_path / "outside", config.run_dir / name
    outside.mkdir()
    (outside / "part-00007.parquet").write_text("somebody's")
    if link.exists():
        link.rename(tmp_path / "moved")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True)))
    for command in (["synthesize"], ["score"], ["train", "rm"], ["tune"], ["evaluate"]):
        assert main([*command, "--config", str(file), "scoring.max_model_len=256"]) == 2
        assert f"{link} is a link to {outside}, outside {config.run_dir}. Remove the link" in capsys.readouterr().err
    assert [path.name for path in outside.iterdir()] == ["part-00007.parquet"]


def test_other_results_are_kept_and_the_same_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"

    def results(**asked: int) -> Any:
        return {"provenance": collect_provenance(seed=0, settings=asked)}

    _keep_other(path, results(a=1))
    write_json(path, results(a=1))
    _keep_other(path, results(a=1))
    assert [file.name for file in tmp_path.iterdir()] == ["evaluation.json"]
    _keep_other(path, results(a=2))
    path.write_text(json.dumps({"provenance": {"seed": 0}}))  # of an earlier release, which did not say
    _keep_other(path, results(a=2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["evaluation.json.aside-1", "evaluation.json.aside-2"]
