"""The description of one training that the driver sends to the workers, and the files for signals between them."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mapl_ray.awaited import has_appeared
from mapl_ray.config import Method, ModelConfig, RunConfig, TrainConfig
from mapl_ray.data.kept_tokens import KeptTokens
from mapl_ray.data.shards import read_manifest, write_json
from mapl_ray.errors import RunError, UserError

if TYPE_CHECKING:
    from mapl_ray.training.result import TrainResult


def _token() -> str:
    return uuid.uuid4().hex[:12]


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Arguments of every worker of one training. All folders are on storage that the workers share."""

    method: Method
    train: TrainConfig  # with the content of the DeepSpeed file instead of its path
    model: ModelConfig
    model_path: str
    model_id: str  # `models.model_identity`
    train_dir: Path
    eval_dir: Path | None
    output: Path
    fingerprint: str  # of a run with this config, data and model
    export: bool = True
    objective: dict[str, float] | None = None  # trials: weights of the level accuracies, reported with the metrics
    tokens: KeptTokens | None = None  # of both splits; None: groups are tokenized during training
    stop_after: int | None = None  # steps
    done: Path | None = None  # trials: file that records the number of finished steps
    token: str = field(default_factory=_token)  # unique per start of the command

    @classmethod
    def of(
        cls, config: RunConfig, method: Method, train: TrainConfig, model_path: str, output: Path, fingerprint: str
    ) -> TrainingJob:
        """A job that trains on the run's groups. Raises `UserError` if the DeepSpeed file can't be read."""
        from mapl_ray.models import model_identity
        from mapl_ray.training.engine_config import inlined

        train_dir, eval_dir = data_dirs(config)
        return cls(
            method=method,
            train=inlined(train),
            model=config.model,
            model_path=model_path,
            model_id=model_identity(model_path, config.model.revision),
            train_dir=train_dir,
            eval_dir=eval_dir,
            output=output,
            fingerprint=fingerprint,
        )

    @property
    def groups(self) -> dict[str, Path]:
        """Folders of the groups by split, without `eval` if no group is held out."""
        return {"train": self.train_dir, **({} if self.eval_dir is None else {"eval": self.eval_dir})}

    def finished(self) -> TrainResult | None:
        """The result of a run with this fingerprint; None if there is none."""
        from mapl_ray.training.result import finished_result

        return finished_result(self.output, self.fingerprint)

    def mark(self, what: str) -> Path:
        """Path of an empty file that signals `stop`, `grow` or `running`."""
        return self.output / f"{what}-{self.token}"

    @property
    def failure_file(self) -> Path:
        """File where a worker writes a fatal error. The next attempt then ends at once."""
        return self.output / f"failure-{self.token}.json"

    def has_failed(self) -> bool:
        """Whether a worker has left an error."""
        return has_appeared(self.failure_file)

    def write_failure(self, error: UserError | RunError) -> None:
        """Write the error for the driver and for later attempts."""
        write_json(self.failure_file, {"kind": type(error).__name__, "text": str(error)})

    def read_failure(self) -> UserError | RunError | None:
        """The error that a worker left; None if there is none."""
        if not self.has_failed():
            return None
        failure = json.loads(self.failure_file.read_text(encoding="utf-8"))
        return UserError(failure["text"]) if failure["kind"] == "UserError" else RunError(failure["text"])


def data_dirs(config: RunConfig) -> tuple[Path, Path | None]:
    """Folders of the train and held-out groups; None for the second if no group is held out."""
    train, held_out = (groups_to_train(config, split) for split in ("train", "eval"))
    return train, held_out if read_manifest(held_out).rows else None


def groups_to_train(config: RunConfig, split: str) -> Path:
    """Folder of a split's groups: the scored ones if they exist, else the synthesized ones."""
    scored = config.data_dir / "scored" / split
    return scored if (scored / "manifest.json").is_file() else config.data_dir / "groups" / split
