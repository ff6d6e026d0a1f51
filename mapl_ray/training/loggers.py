"""Where curves go: TensorBoard, Weights & Biases, MLflow. Each is imported only when it is asked for."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from mapl_ray.errors import UserError
from mapl_ray.optional import require
from mapl_ray.shards import write_json

_PROJECT = "mapl"  # where WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME do not name another
_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


class MetricLogger(Protocol):
    """One place that takes numbers by step."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Finite numbers after `step` steps."""
        ...

    def close(self, failed: bool) -> None:
        """The end; `failed` where an error ended the run."""
        ...


def check_loggers(names: Iterable[str]) -> None:
    """Raises `UserError` naming the packages that are missing here and how to install them."""
    names = list(names)
    require(f"train.loggers={names}", [_PACKAGES[name] for name in names], "take it out of train.loggers")


def open_logger(name: str, output_dir: Path, resumed_step: int, settings: Mapping[str, Any]) -> MetricLogger:
    """A logger of this run; a resumed one goes on in the same curves. `settings` are shown beside them.

    Raises `UserError` where it can't be opened (no login, no server, no right to write).
    """
    makers: dict[str, Callable[[Path, int, Mapping[str, Any]], MetricLogger]] = {
        "tensorboard": _TensorBoard,
        "wandb": _WeightsAndBiases,
        "mlflow": _MLflow,
    }
    try:
        return makers[name](output_dir, resumed_step, settings)
    except Exception as error:  # each package has its own kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"train.loggers: {name} could not be opened: {reason}. {_CURES[name]}") from None


_CURES = {
    "tensorboard": "Look at output_dir.",
    "wandb": "Run `wandb login`, or set WANDB_MODE=offline in the environment.",
    "mlflow": "Look at MLFLOW_TRACKING_URI in the environment.",
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
    """A run of the project WANDB_PROJECT; its files, also those of an offline run, are in `output_dir/wandb`.

    Steps that it has already are not taken again: after a resume the first values stand.
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
            settings=wandb.Settings(console="off"),  # what is printed stays where it is
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class _MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME, in `output_dir/mlflow.db` or where MLFLOW_TRACKING_URI says."""

    def __init__(self, output_dir: Path, resumed_step: int, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        # Not mlflow's own default: a worker's current folder is deleted with its cluster.
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
    """`demo/rm` for runs/demo/rm."""
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
