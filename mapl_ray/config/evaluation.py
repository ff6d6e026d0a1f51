"""Config of the evaluation: models, data sets and measures."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from mapl_ray.config.field_types import Section
from mapl_ray.config.path_text import PathText

SetFormat = Literal[
    "auto",
    "pairs",
    "hh",
    "rewardbench",
    "rm-bench",
    "llmbar",
    "ifeval",
    "rewardbench-2",
    "judgebench",
    "if-rewardbench",
]


class EvaluationSet(Section):
    """A public set in its own format. IFBench uses the format of IFEval."""

    TEXT_FIELD: ClassVar[str] = "path"  # a string instead of a section sets this field
    path: PathText  # File, folder, URI or hub name.
    format: SetFormat = "auto"  # Format of the set. auto: detected from the columns.
    columns: dict[str, str] = Field(default_factory=dict)  # Column names of the set, as in `{prompt: Question}`.
    split: str = "train"  # Split of a Hugging Face data set; files have none.
    revision: str | None = None  # Revision of a hub data set.
    limit: int | None = Field(default=None, ge=1)  # Read the first n rows only.


class EvaluationConfig(Section):
    """Evaluation of trained models on the held-out groups and on public sets."""

    baseline: bool = True  # Also train and evaluate the plain baseline (lambda_intra = lambda_inter = 0).
    # Model directories or hub names (owner/name@revision) to evaluate. Empty: the models that the run trained.
    models: tuple[PathText, ...] = ()
    reference: PathText | None = None  # Reference policy for implicit rewards if no ref_logps are stored.
    # Public sets to evaluate on: name to section, or name to path.
    sets: dict[str, EvaluationSet] = Field(default_factory=dict)
    invariance: bool = False  # Also score the held-out groups with their instructions reordered and rephrased.
    # Number of held-out prompts with instructions that every policy and the model before DPO answer. 0: none.
    own_prompts: int = Field(default=0, ge=0)
    # Maximum length of an answer to a prompt of own_prompts or IFEval, in tokens. Decoding is greedy.
    max_new_tokens: int = Field(default=1024, ge=1)
    micro_batch_size: int = Field(default=4, ge=1)  # Groups in one forward pass.
    # Bootstrap samples for the 95 % confidence intervals, drawn by prompt.
    bootstrap_samples: int = Field(default=1000, ge=0)
    # [min, max] number of actors that compute rewards; autoscaled. null: from 1 to the number of models.
    concurrency: tuple[int, int] | None = None
    cpus: float = Field(default=1.0, gt=0.0)  # CPUs reserved for each actor.
    gpus: float = Field(default=0.0, ge=0.0, le=1.0)  # GPUs reserved for each actor. 0: evaluation on CPUs.

    def actors(self, models: int) -> tuple[int, int]:
        """Minimum and maximum number of actors for a number of models."""
        return self.concurrency or (1, max(1, models))

    @field_validator("concurrency")
    @classmethod
    def _rising(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and not 1 <= value[0] <= value[1]:
            raise ValueError(f"{list(value)}: expected [min, max] with 1 <= min <= max")
        return value

    @field_validator("sets", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name in value:
            # Result files are named after the set.
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", str(name)):
                raise ValueError(
                    f"name {name!r}: expected letters, digits, '_' and '-', starting with a letter or digit"
                )
        field = EvaluationSet.TEXT_FIELD
        return {name: {field: given} if isinstance(given, str) else given for name, given in value.items()}

    @field_validator("models")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name in value if not name.strip() or value.count(name) > 1]:
            raise ValueError(f"{twice[0]!r}: expected non-empty names, each listed once")
        return value
