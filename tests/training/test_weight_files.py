"""A result vouches for its weights: what is cut, emptied or changed is no finished run."""

import json
import os
import shutil
from pathlib import Path

import pytest

from mapl_ray.data.shards import fingerprint_of
from mapl_ray.training.best import Best, read_best
from mapl_ray.training.export import _at_once
from mapl_ray.training.result import TrainResult, WeightFile, finished_result, vouched_for, weight_damage


def result_of(weights: dict[str, WeightFile]) -> TrainResult:
    return TrainResult("rm", "f", 3, "model", {}, 1.0, 1.0, 1, 2, 10, 0, weights=weights)


@pytest.fixture
def output(tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of a finished run, with its best model."""
    for name in ("model", "best"):
        shutil.copytree(tiny_model, tmp_path / name)
    weights = vouched_for(tmp_path / "model")
    assert set(weights) == {"model.safetensors"}
    result_of(weights).write(tmp_path)
    Best("eval_loss", (-1.0,), 3, BEST_RUN).write(tmp_path)
    return tmp_path


BEST_SETTINGS = {"a": 1}
BEST_RUN = fingerprint_of(BEST_SETTINGS)


def damaged(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "gone":
        file.unlink()
    else:
        changed = {"empty": b"", "cut": content[:-1], "flipped": content[:-1] + bytes([content[-1] ^ 1])}
        file.write_bytes(changed[how])


def test_whole_weights_are_a_finished_run(output: Path) -> None:
    assert finished_result(output, "f") is not None
    assert finished_result(output, "g") is None
    assert read_best(output, "eval_loss", BEST_SETTINGS, 3) is not None
    (output / "model" / "README.md").write_text("edited by hand")
    assert finished_result(output, "f") is not None


@pytest.mark.parametrize(
    ("how", "told"),
    [("gone", "there are no weights"), ("empty", "is empty"), ("cut", " bytes of "), ("flipped", "is damaged")],
)
def test_damaged_weights_are_not(output: Path, how: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model", "best"):
        damaged(output / name / "model.safetensors", how)
    assert finished_result(output, "f") is None
    assert told in capsys.readouterr().out
    assert read_best(output, "eval_loss", BEST_SETTINGS, 3) is None


def test_a_result_of_an_earlier_release(output: Path) -> None:
    """It names no files: all that can be asked is that there is something in them."""
    path = output / "result.json"
    values = json.loads(path.read_text())
    del values["weights"]
    path.write_text(json.dumps(values))
    assert finished_result(output, "f") is not None
    damaged(output / "model" / "model.safetensors", "empty")
    assert finished_result(output, "f") is None
    assert weight_damage(output / "none", {}) == "config.json is missing"


def test_weights_and_folders_are_on_the_disk_before_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def name(path: object) -> str:
        return str(path).replace(str(tmp_path), "run")

    def synced(handle: int) -> None:
        steps.append(f"fsync {name(os.readlink(f'/proc/self/fd/{handle}'))}")
        fsync(handle)

    def renamed(source: str, target: str) -> None:
        steps.append(f"rename {name(source)} {name(target)}")
        rename(source, target)

    def replaced(source: str, target: str) -> None:
        steps.append(f"rename {name(source)} {name(target)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "replace", replaced)
    with _at_once(tmp_path / "model") as aside:
        (aside / "config.json").write_text("{}")
        (aside / "model.safetensors").write_bytes(b"weights")
    result_of(vouched_for(tmp_path / "model")).write(tmp_path)

    def place(start: str, end: str) -> int:
        return next(n for n, step in enumerate(steps) if step.startswith(start) and step.endswith(end))

    weights = place("fsync run/.model.", "/model.safetensors")
    moved, result = place("rename run/.model.", "run/model"), place("rename run/.result.json.", "run/result.json")
    assert weights < moved < result
    assert "fsync run" in steps[moved + 1 : result]  # the folder, after the rename in it
    assert steps[-1] == "fsync run"  # and after that of the result


def test_a_rank_loads_no_other_base_model_than_the_drivers(
    data: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mapl_ray.config import ModelConfig, TrainConfig
    from mapl_ray.errors import RunError
    from mapl_ray.training import loop

    monkeypatch.setattr(loop, "ensure_process_group", lambda: None)
    monkeypatch.setattr(loop, "set_up", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    with pytest.raises(RunError, match="the model differs from the one on the machine that started the run"):
        loop.train(
            TrainConfig.model_validate({"loggers": []}), "rm", model_path=str(tiny_model), model_config=ModelConfig(),
            train_dir=data / "train", eval_dir=None, output_dir=tmp_path / "rm", fingerprint="f", model_id="another",
        )  # fmt: skip
