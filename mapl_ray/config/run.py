"""The config of a whole run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from mapl_ray.config.data import DataConfig, SynthesisConfig
from mapl_ray.config.evaluation import EvaluationConfig
from mapl_ray.config.field_types import LaidOver, Section
from mapl_ray.config.loss_options import Method
from mapl_ray.config.path_text import PathText
from mapl_ray.config.stages import (
    ClusterConfig,
    Dtype,
    ModelConfig,
    ScoringConfig,
    TrainConfig,
)
from mapl_ray.config.tune import TuneConfig
from mapl_ray.errors import UserError


class RunConfig(Section):
    """A whole run. Every stage reads the same file and writes below `output_dir/name`."""

    name: str = "mapl"  # Name of the run: letters, digits, '.', '_', '-'. Files go to output_dir/name.
    output_dir: PathText = "runs"  # Folder of all runs, on storage that all nodes share; not a URI.
    # Another run below output_dir whose pairs, groups and scores are used. null: those of this run.
    data_run: str | None = None
    seed: int = 0  # Seed of synthesis and of sampling from several sources.
    data: DataConfig = DataConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    model: ModelConfig = ModelConfig()
    scoring: ScoringConfig = ScoringConfig()
    train: TrainConfig = TrainConfig()
    # Values that override `train` for reward models.
    rm: Annotated[dict[str, Any], LaidOver(TrainConfig)] = Field(default_factory=dict)
    # Values that override `train` for DPO.
    dpo: Annotated[dict[str, Any], LaidOver(TrainConfig)] = Field(default_factory=dict)
    tune: TuneConfig = TuneConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("name", "data_run")
    @classmethod
    def _confined(cls, value: str | None) -> str | None:
        # Ray Train joins the run name to its storage path without a check: `../../x` would escape it.
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError(
                f"expected letters, digits, '.', '_' and '-', starting with a letter or digit; got {value!r}"
            )
        return value

    @field_validator("output_dir")
    @classmethod
    def _folder(cls, value: str) -> str:
        if "://" in value or "\0" in value:
            raise ValueError("expected a folder on storage that all nodes mount, not a URI")
        return value

    @property
    def run_dir(self) -> Path:
        """The run's folder. Raises `UserError` if it is a link out of `output_dir`.

        The path is absolute because workers start in other folders than the driver.
        """
        return self._below_root(self.name)

    @property
    def data_dir(self) -> Path:
        """The folder of pairs, groups and scores: this run's or that of `data_run`. Raises as `run_dir` does."""
        return self._below_root(self.data_run or self.name)

    def _below_root(self, name: str) -> Path:
        root = Path(self.output_dir).resolve()
        path = (root / name).resolve()
        if path.parent != root:  # a link, which anybody with access to the shared storage could have created
            raise UserError(
                f"{root / name} is a link to {path}, outside output_dir. Remove the link, or set output_dir to the "
                "folder that should hold the run."
            )
        return path

    @property
    def engine_dtype(self) -> Dtype:
        """The dtype in which vLLM loads weights."""
        return self.model.dtype_where(self.scoring.gpus_per_engine > 0)

    def training(self, method: Method) -> TrainConfig:
        """The `train` section overridden by the method's section, with `bf16` set to true or false.

        Raises `ValidationError` for options of the other method.
        """
        merged = self.train.model_dump(exclude_defaults=True)  # so that messages show only what was set
        _merge(merged, self.rm if method == "rm" else self.dpo)
        config = TrainConfig.model_validate(merged, context={"method": method})
        return config.model_copy(update={"bf16": config.in_bf16})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
