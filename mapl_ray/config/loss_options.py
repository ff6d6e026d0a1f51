"""Variants of the loss. The defaults give the loss of docs/method.md; docs/training.md has the formulas."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from mapl_ray.config.field_types import Section

Method = Literal["rm", "dpo"]
"""What is trained: a reward model (`rm`) or a DPO policy (`dpo`)."""
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
# Options that apply to only one method.
_OF_METHOD: dict[str, Method] = {
    "loss": "dpo",
    "length_normalised": "dpo",
    "nll_weight": "dpo",
    "center_rewards_coefficient": "rm",
}
_NAMES = {"rm": "reward models", "dpo": "DPO"}


class ObjectiveConfig(Section):
    """The loss of a margin, and additional loss terms."""

    # `logistic`, or for DPO `ipo` (Azar et al. 2023, equation 17, with tau = beta).
    loss: Literal["logistic", "ipo"] = "logistic"
    # Assumed fraction of wrong labels (conservative DPO, Mitchell 2023).
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=0.5)
    # Levels that label smoothing applies to. Labels of intra and inter are verified by checkers.
    label_smoothing_levels: tuple[Literal["pref", "intra", "inter"], ...] = Field(default=("pref",), min_length=1)
    # Scale of the column `margin`, subtracted in pref relations (Touvron et al. 2023; DPO: Amini et al. 2024).
    margin_scale: Weight = 0.0
    # DPO: divide rewards by the number of response tokens (Lambert et al. 2024, length-normalized DPO).
    length_normalised: bool = False
    # DPO: weight of the negative log-likelihood per token of the chosen response (Pang et al. 2024).
    nll_weight: Weight = 0.0
    # Reward models: weight of the mean of (r_w + r_l)^2 (Eisenstein et al. 2023).
    center_rewards_coefficient: Weight = 0.0

    def refusal(self, method: Method) -> str | None:
        """Why these options don't apply to a method, and what to do; None if they apply."""
        for name, owner in _OF_METHOD.items():
            if owner != method and (value := getattr(self, name)) != type(self).model_fields[name].default:
                return f"{name}={value} is for {_NAMES[owner]}: set {owner}.objective.{name}, not train.objective"
        return None

    @model_validator(mode="after")
    def _consistent(self, info: ValidationInfo) -> Self:
        if self.loss == "ipo":
            for name in ("label_smoothing", "margin_scale"):
                if value := getattr(self, name):
                    raise ValueError(f"{name}={value} needs loss=logistic: loss=ipo has its own target")
        # The method is known when the sections of a run are merged (`RunConfig.training`).
        method = (info.context or {}).get("method")
        if method is not None and (reason := self.refusal(method)) is not None:
            raise ValueError(reason)
        return self
