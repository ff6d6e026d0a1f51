"""The arms of the experiment: what each one trains, and which question it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mapl_ray.config import LevelWeights, Method, SynthesisConfig

# Features at the beginning or end of a text, or visible in one token: a model this small can learn them.
FUNCTIONS = ("first_word", "colon_use", "comma_use", "quotation_mark_use", "digit_use", "list_use")
# Never trained on, to measure whether the trained functions generalize.
UNSEEN_FUNCTIONS = ("include_word", "forbid_word")
K: Mapping[int, float] = {1: 3.0, 2: 1.0}
# `first_word` fits nearly every pair, the others at most a third. As the only one of its family it would be half of all
# instructions without this weight.
FAMILY_WEIGHTS: Mapping[str, float] = {"start_end": 0.5}
LAMBDA = 3.0  # lambda_intra and lambda_inter


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One training setup. All arms start from the same warm-started weights."""

    name: str
    title: str
    question: str
    method: Method = "rm"
    lambda_intra: float = LAMBDA
    lambda_inter: float = LAMBDA
    layout: Literal["grid", "independent"] = "grid"
    k: Mapping[int, float] = field(default_factory=lambda: K)
    tokens_of: str | None = None  # train on as many tokens as this arm, instead of as many steps
    baseline: str = "baseline"  # the arm to compare with

    @property
    def weights(self) -> LevelWeights:
        return LevelWeights(lambda_intra=self.lambda_intra, lambda_inter=self.lambda_inter)

    @property
    def synthesis(self) -> SynthesisConfig:
        """The config of its training groups (before `for_training`)."""
        return synthesis_config(layout=self.layout, k=self.k)


def synthesis_config(
    functions: tuple[str, ...] = FUNCTIONS,
    layout: Literal["grid", "independent"] = "grid",
    k: Mapping[int, float] = K,
) -> SynthesisConfig:
    """A config that holds the last phrasing of every function out of training."""
    return SynthesisConfig(
        functions=functions,
        layout=layout,
        k_weights=dict(k),
        family_weights=dict(FAMILY_WEIGHTS) if "first_word" in functions else {},
        held_out_phrasings=True,
    )


ARMS: tuple[Arm, ...] = (
    Arm(
        name="baseline",
        title="baseline",
        question="plain Bradley-Terry on the same pairs, as many steps",
        lambda_intra=0.0,
        lambda_inter=0.0,
    ),
    Arm(name="mapl", title="MAPL", question="pref, intra and inter together"),
    Arm(
        name="baseline-tokens",
        title="baseline, equal tokens",
        question="plain Bradley-Terry, as many tokens as MAPL",
        lambda_intra=0.0,
        lambda_inter=0.0,
        tokens_of="mapl",
    ),
    Arm(name="no-intra", title="without intra", question="is inter enough?", lambda_intra=0.0),
    Arm(name="no-inter", title="without inter", question="is intra enough?", lambda_inter=0.0),
    Arm(name="independent", title="independent", question="prompts of their own a relation", layout="independent"),
    Arm(name="k1", title="k = 1", question="one instruction a prompt", k={1: 1.0}),
    Arm(name="k3", title="k = 3", question="three instructions a prompt", k={3: 1.0}),
    Arm(
        name="dpo-baseline",
        title="DPO",
        question="plain DPO on the same pairs, as many steps",
        method="dpo",
        lambda_intra=0.0,
        lambda_inter=0.0,
        baseline="dpo-baseline",
    ),
    Arm(
        name="dpo-mapl",
        title="DPO, MAPL",
        question="pref, intra and inter together",
        method="dpo",
        baseline="dpo-baseline",
    ),
)
BY_NAME: dict[str, Arm] = {arm.name: arm for arm in ARMS}
