"""Where a run's numbers go, and what is seen of it."""

import contextlib
import fcntl
import importlib.util
import json
import multiprocessing
import os
import pty
import resource
import struct
import termios
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mapl_ray.config import TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.training.loggers import MetricWriters, ProgressDisplay, check_loggers

METRICS = {"loss": 2.5, "rewards/accuracies/pref": 0.75, "tokens_per_second": 120.4, "groups_per_second": 3.25}


def needs(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed here")


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(folder: Path, loggers: list[str], steps: range, resumed: int = 0) -> None:
    config = TrainConfig.model_validate({"loggers": loggers})
    with MetricWriters(folder, resumed, 5, config, "rm") as writers:
        for step in steps:
            writers.write(step, {**METRICS, "loss": float(step), "grad_norm": float("nan")}, show=step == 2)


def test_lines_and_tensorboard_take_up_where_a_checkpoint_was(tmp_path: Path) -> None:
    run(tmp_path, ["tensorboard"], range(1, 5))
    run(tmp_path, ["tensorboard"], range(3, 6), resumed=2)  # steps 3 and 4 again
    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5]
    assert rows(tmp_path)[0] == {"step": 1, **METRICS, "loss": 1.0}  # NaN is no JSON
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("train/loss")] == [(n, n) for n in range(1, 6)]
    assert len(board.Scalars("rewards/accuracies/pref")) == 5


def test_damaged_lines_are_dropped_and_a_full_disk_loses_none(tmp_path: Path) -> None:
    run(tmp_path, [], range(1, 101))
    file = tmp_path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:50], b"\xff\xfe\n", b"[1]\n", b'{"step": "x"}\n', *lines[50:], b'{"step": 10']))
    before = file.read_bytes()

    def resume() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))
        with contextlib.suppress(OSError):
            run(tmp_path, [], range(0), resumed=100)

    child = multiprocessing.get_context("fork").Process(target=resume)  # with no room for half of the file
    child.start()
    child.join()
    assert file.read_bytes() == before
    run(tmp_path, [], range(0), resumed=100)
    assert file.read_bytes() == b"".join(lines)


def test_lines_alone(tmp_path: Path) -> None:
    run(tmp_path, [], range(1, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    assert len(rows(tmp_path)) == 2


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed here")
def test_a_missing_package_is_told_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"train.loggers=.*not installed here: wandb. Run `pip install wandb`"):
        check_loggers(["tensorboard", "wandb"])


def test_a_logger_that_fails_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainConfig.model_validate({"loggers": ["tensorboard"]})
    with MetricWriters(tmp_path, 0, 5, config, "rm") as writers:
        writers.write(1, METRICS)
        writers.write(2**70, METRICS)  # more than its files can hold
        writers.write(3, METRICS)
    assert len(rows(tmp_path)) == 3
    assert "tensorboard failed and is disabled" in capsys.readouterr().out


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run(tmp_path, ["wandb"], range(1, 4))
    (log,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    identity = json.loads((tmp_path / "loggers.json").read_text())["wandb"]
    assert identity in log.name
    assert b"rewards/accuracies/pref" in log.read_bytes()
    run(tmp_path, ["wandb"], range(3, 6), resumed=2)
    assert json.loads((tmp_path / "loggers.json").read_text())["wandb"] == identity


def test_mlflow_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from mlflow.tracking import MlflowClient

    run(tmp_path, ["mlflow"], range(1, 4))
    run(tmp_path, ["mlflow"], range(4, 6), resumed=3)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    identity = json.loads((tmp_path / "loggers.json").read_text())["mlflow"]
    history = client.get_metric_history(identity, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(n, n) for n in range(1, 6)]
    of_run = client.get_run(identity)
    assert of_run.info.status == "FINISHED"
    assert of_run.data.params["weights.lambda_intra"] == "1.0"


def test_a_log_gets_plain_lines_with_the_time_left(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    with path.open("w") as stream:
        display = ProgressDisplay(10, 0, stream)
        display.update(1, METRICS, show=False)
        display.update(2, METRICS, show=True)
        display.update(10, METRICS, show=True)
        display.close()
    text = "  loss 2.500  pref 0.750  120 tokens/s  3.2 groups/s"
    assert path.read_text() == f"  step 2/10{text}  00:00 left\n  step 10/10{text}\n"


def test_a_terminal_gets_a_bar() -> None:
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    with os.fdopen(writer, "w") as terminal:
        display = ProgressDisplay(10, 4, terminal)
        display.update(5, METRICS, show=True)
        display.close()
    shown = b""
    with contextlib.suppress(OSError):  # raised once the closed terminal has been read to its end
        while piece := os.read(reader, 65536):
            shown += piece
    os.close(reader)
    text = shown.decode()
    assert "  step 5/10  loss 2.500" in text
    assert "5/10" in text.rsplit("train:", 1)[1]
    assert "3.2 groups/s" in text
    assert "left" not in text  # the bar has it
