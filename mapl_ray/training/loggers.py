"""Metrics of a run: always `metrics.jsonl`, optional loggers, and progress output.

TensorBoard, Weights & Biases and MLflow are imported only if they are configured. Progress is a bar on a terminal, and
plain lines otherwise.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO
from uuid import uuid4

from tqdm import tqdm

from mapl_ray.config import Method, TrainConfig
from mapl_ray.data.records import LEVEL_FAMILIES
from mapl_ray.data.shards import json_lines, write_atomically, write_json
from mapl_ray.errors import UserError
from mapl_ray.progress import SILENCE_SECONDS, progress
from mapl_ray.versions import require

_PROJECT = "mapl"  # default of WANDB_PROJECT and MLFLOW_EXPERIMENT_NAME
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


class MetricLogger(Protocol):
    """A backend that logs metrics by step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log finite values after `step` steps."""
        ...

    def close(self, failed: bool) -> None:
        """End the log; `failed`: whether an error ended the run."""
        ...


def check_loggers(names: Iterable[str]) -> None:
    """Raise `UserError` if a logger's package is not installed, with the command to install it."""
    names = list(names)
    require(f"train.loggers={names}", [_PACKAGES[name] for name in names], "remove it from train.loggers")


def open_logger(name: str, output_dir: Path, resumed_step: int, settings: Mapping[str, Any]) -> MetricLogger:
    """Open a logger. A resumed run continues the same curves. `settings` are logged as the run's config.

    Raises `UserError` if it can't be opened (no login, no server, no permission to write).
    """
    makers: dict[str, Callable[[Path, int, Mapping[str, Any]], MetricLogger]] = {
        "tensorboard": _TensorBoard,
        "wandb": _WeightsAndBiases,
        "mlflow": _MLflow,
    }
    try:
        return makers[name](output_dir, resumed_step, settings)
    except Exception as error:  # each package has its own exceptions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"train.loggers: {name} could not be opened: {reason}. {_CURES[name]}") from None


_CURES = {
    "tensorboard": "Check output_dir.",
    "wandb": "Run `wandb login`, or set WANDB_MODE=offline in the environment.",
    "mlflow": "Check MLFLOW_TRACKING_URI in the environment.",
}


class _TensorBoard:
    """Event files in `output_dir/tensorboard`."""

    def __init__(self, output_dir: Path, resumed_step: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(output_dir / "tensorboard"), purge_step=resumed_step + 1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._board.add_scalar(name if "/" in name else f"train/{name}", value, step)

    def close(self, failed: bool) -> None:
        self._board.close()


class _WeightsAndBiases:
    """A run of the project WANDB_PROJECT, with files (also for offline runs) in `output_dir/wandb`.

    W&B ignores steps that it already has, so after a resume the earlier values of repeated steps remain.
    """

    def __init__(self, output_dir: Path, resumed_step: int, settings: Mapping[str, Any]) -> None:
        import wandb

        known = _known_id(output_dir, "wandb") if resumed_step else None
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=_run_name(output_dir),
            id=known or _keep_id(output_dir, "wandb", uuid4().hex),
            resume="allow",
            dir=str(output_dir),
            config=dict(settings),
            settings=wandb.Settings(console="off"),  # don't capture the console output
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME, at MLFLOW_TRACKING_URI or in `output_dir/mlflow.db`."""

    def __init__(self, output_dir: Path, resumed_step: int, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        # Not MLflow's default, the current folder: a worker's one is deleted with its cluster.
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(output_dir / 'mlflow.db').resolve()}"
        self._client = MlflowClient(uri)
        known = _known_id(output_dir, "mlflow") if resumed_step else None
        if known is not None:
            self._client.update_run(known, status="RUNNING")
            self._id = known
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        self._id = _keep_id(
            output_dir, "mlflow", self._client.create_run(experiment, run_name=_run_name(output_dir)).info.run_id
        )
        self._client.log_batch(self._id, params=[Param(key, str(value)) for key, value in _flat(settings)])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[self._metric(k, v, now, step) for k, v in metrics.items()])

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")


def _run_name(output_dir: Path) -> str:
    """Name of the run: `demo/rm` for runs/demo/rm."""
    return "/".join(output_dir.resolve().parts[-2:])


def _ids(output_dir: Path) -> dict[str, str]:
    try:
        found = json.loads((output_dir / "loggers.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _known_id(output_dir: Path, name: str) -> str | None:
    return _ids(output_dir).get(name)


def _keep_id(output_dir: Path, name: str, value: str) -> str:
    write_json(output_dir / "loggers.json", {**_ids(output_dir), name: value})
    return value


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


class MetricWriters:
    """Writes metrics to all outputs, one row per call. On resume, rows after the checkpoint's step are dropped."""

    def __init__(
        self, output_dir: Path, resumed_step: int, total_steps: int, config: TrainConfig, method: Method
    ) -> None:
        """Open all outputs. Raises `UserError` for a logger that can't be opened."""
        self._path = output_dir / "metrics.jsonl"
        output_dir.mkdir(parents=True, exist_ok=True)
        kept = _rows_until(self._path, resumed_step) if resumed_step else []
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_atomically(self._path, lambda aside: aside.write_text(text, encoding="utf-8"))  # the disk may be full
        self._lines = self._path.open("a", encoding="utf-8")
        settings = {"method": method, **config.model_dump(mode="json")}
        self._loggers: dict[str, MetricLogger] = {
            name: open_logger(name, output_dir, resumed_step, settings) for name in config.loggers
        }
        self._display = ProgressDisplay(total_steps, resumed_step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._display.close()
        self._lines.close()
        self._each(lambda logger: logger.close(failed=kind is not None))

    def write(self, step: int, metrics: Mapping[str, float], show: bool = False) -> None:
        """Log metrics after `step` steps; `show` also prints a line."""
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._lines.write(json.dumps({"step": step, **finite}) + "\n")
        self._lines.flush()
        self._each(lambda logger: logger.log(step, finite))
        self._display.update(step, metrics, show)

    def _each(self, act: Callable[[MetricLogger], None]) -> None:
        """Call `act` on all loggers, and drop those that fail: an unreachable server must not end a long run."""
        for name, logger in list(self._loggers.items()):
            try:
                act(logger)
            except Exception as error:  # each package has its own exceptions
                del self._loggers[name]
                print(f"  {name} failed and is disabled; metrics.jsonl has all metrics: {error}", flush=True)


def _rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    rows = (row for row in json_lines(path) if row is not None)
    return [row for row in rows if isinstance(row.get("step"), int | float) and row["step"] <= step]


class ProgressDisplay:
    """Progress output: steps done, groups per second and time left."""

    def __init__(self, total_steps: int, done: int, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._total, self._first, self._began = total_steps, done, time.monotonic()
        self._shown = self._began
        self._waiting = ExitStack()  # prints lines during long steps
        self._activity = self._waiting.enter_context(progress("train"))
        self._bar = (
            tqdm(total=total_steps, initial=done, desc="  train", unit="step", file=self._stream, dynamic_ncols=True)
            if self._stream.isatty()
            else None
        )

    def update(self, step: int, metrics: Mapping[str, float], show: bool) -> None:
        """Update after `step` steps. `show` prints a line; without a terminal, so does a longer time without output."""
        self._activity.what = f"step {step + 1}/{self._total}"
        if self._bar is not None:
            self._bar.set_postfix_str(_speed(metrics), refresh=False)
            self._bar.update(step - self._bar.n)
        now = time.monotonic()
        if show or (self._bar is None and now - self._shown > SILENCE_SECONDS):
            line = f"  step {step}/{self._total}  {line_of(metrics)}"
            if self._bar is not None:
                self._bar.write(line, file=self._stream)
            else:
                print(f"{line}{self._left(step)}", file=self._stream, flush=True)
            self._shown = now

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
        self._waiting.close()

    def _left(self, step: int) -> str:
        if step >= self._total or step <= self._first:
            return ""
        seconds = (time.monotonic() - self._began) / (step - self._first) * (self._total - step)
        return f"  {tqdm.format_interval(seconds)} left"


def line_of(metrics: Mapping[str, float]) -> str:
    """Format the main metrics as one line, with held-out ones if there are any."""
    held_out = "eval/loss" in metrics
    prefix = "eval/" if held_out else ""
    words = [f"loss {metrics['loss']:.3f}"] if "loss" in metrics else []
    words += [f"held-out: loss {metrics['eval/loss']:.3f}"] if held_out else []
    for level in LEVEL_FAMILIES:
        if (name := f"{prefix}rewards/accuracies/{level}") in metrics:
            words.append(f"{level} {metrics[name]:.3f}")
    words += [f"{metrics['tokens_per_second']:.0f} tokens/s"] if "tokens_per_second" in metrics else []
    words += [speed] if (speed := _speed(metrics)) else []
    return "  ".join(words)


def _speed(metrics: Mapping[str, float]) -> str:
    return f"{metrics['groups_per_second']:.1f} groups/s" if "groups_per_second" in metrics else ""
