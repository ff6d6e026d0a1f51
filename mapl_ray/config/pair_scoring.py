"""Config of the judge and the reward model that score the original pairs before synthesis."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from mapl_ray.config.field_types import Section
from mapl_ray.config.path_text import PathText


class JudgeConfig(Section):
    """A causal LM that answers the questions of soft instruction functions about both responses of a pair."""

    # Judge: a directory, a hub name, or `policy` for the run's base model. null: no judge.
    model: PathText | None = None
    revision: str | None = None  # Revision of a hub model; not for `policy`.
    functions: tuple[str, ...] | None = None  # Soft instruction functions to judge. null: all that `synthesis` allows.

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.model is None and (self.functions is not None or self.revision is not None):
            raise ValueError("functions or revision without model: set model to a judge or to `policy`")
        if self.model == "policy" and self.revision is not None:
            raise ValueError(f"revision={self.revision!r} with model='policy': set model.revision of the run instead")
        return self


class PairMarginConfig(Section):
    """Uses of the margin r(x, chosen) - r(x, rejected) under `scoring.pair_reward_model`."""

    fill_margin: bool = False  # Write the margin to the column `margin`, replacing its values.
    # Drop pairs with a smaller margin. null: keep all.
    min_margin: float | None = Field(default=None, allow_inf_nan=False)

    @property
    def used(self) -> bool:
        """Whether any option uses the margin."""
        return self.fill_margin or self.min_margin is not None
