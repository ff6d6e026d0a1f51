"""A whole run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from mapl_ray.config.data import DataConfig, SynthesisConfig
from mapl_ray.config.evaluation import EvaluationConfig
from mapl_ray.config.objective import Method
from mapl_ray.config.section import Section
from mapl_ray.config.stages import (
    ClusterConfig,
    ModelConfig,
    ScoringConfig,
    TrainConfig,
    TuneConfig,
)


class RunConfig(Section):
    """A whole run. Every stage reads the same file and writes below `output_dir/name`."""

    name: str = "mapl"
    output_dir: str = "runs"
    data_run: str | None = None  # the run (a name below output_dir) whose pairs, groups and scores this one takes
    seed: int = 0
    data: DataConfig = DataConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    model: ModelConfig = ModelConfig()
    scoring: ScoringConfig = ScoringConfig()
    train: TrainConfig = TrainConfig()
    rm: dict[str, Any] = Field(default_factory=dict)  # what the reward model does otherwise than `train`
    dpo: dict[str, Any] = Field(default_factory=dict)  # what DPO does otherwise than `train`
    tune: TuneConfig = TuneConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    cluster: ClusterConfig = ClusterConfig()

    @field_validator("name", "data_run")
    @classmethod
    def _confined(cls, value: str | None) -> str | None:
        # Ray Train joins the run name to its storage path unchecked: `../../x` would escape it.
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            raise ValueError(
                f"expected letters, digits, '.', '_' and '-', starting with a letter or digit; got {value!r}"
            )
        return value

    @property
    def run_dir(self) -> Path:
        """Absolute: workers start in other folders than the driver."""
        return (Path(self.output_dir) / self.name).resolve()

    @property
    def data_dir(self) -> Path:
        """Where pairs, groups and scores are: this run's folder, or that of `data_run`."""
        return (Path(self.output_dir) / (self.data_run or self.name)).resolve()

    def training(self, method: Method) -> TrainConfig:
        """The `train` section with the method's own values laid over it. Refuses options of the other method."""
        merged = self.train.model_dump(exclude_defaults=True)  # messages show what was set
        _merge(merged, self.rm if method == "rm" else self.dpo)
        return TrainConfig.model_validate(merged, context={"method": method})


def _merge(base: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value
