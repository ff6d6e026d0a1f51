"""Sizes of the experiment: for two hours on two CPU cores, for a GPU, and for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

ScaleName = Literal["cpu", "gpu", "micro"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """All sizes of the experiment, the same for every arm."""

    # Pairs, in tokens as `pairs.length` counts them
    max_prompt_tokens: int = 50
    max_response_tokens: int = 24
    max_pairs: int | None = None
    eval_fraction: float = 0.2
    eval_groups: int = 600  # maximum number of held-out groups in the main set
    extra_groups: int = 250  # the same for each set with three instructions or with unseen functions
    curve_groups: int = 160  # groups of the main set that the learning curves use
    # Model
    vocab_size: int = 2048
    hidden_size: int = 64
    intermediate_size: int = 128
    num_layers: int = 2
    num_heads: int = 4
    initializer_range: float = 0.1
    max_sequence_tokens: int = 512
    # Warm start, in sequences
    warm_steps: int = 1000
    warm_sequences_per_step: int = 16
    warm_learning_rate: float = 3e-3
    # Training, in groups
    groups_per_step: int = 16
    steps: int = 500
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    dpo_steps: int = 200
    dpo_learning_rate: float = 1e-3
    evaluations: int = 7  # points of the learning curve
    bootstrap_samples: int = 1000
    minutes: float = 65.0  # approximate total time

    def within(self, minutes: float) -> Scale:
        """The scale with the number of steps changed so that the experiment takes about `minutes`."""
        share = minutes / self.minutes
        return replace(
            self,
            warm_steps=max(1, round(self.warm_steps * share)),
            steps=max(1, round(self.steps * share)),
            dpo_steps=max(1, round(self.dpo_steps * share)),
            minutes=minutes,
        )


SCALES: dict[str, Scale] = {
    "cpu": Scale(),
    # Full responses and a model with 19 million parameters. Not run yet.
    "gpu": Scale(
        max_prompt_tokens=200,
        max_response_tokens=400,
        eval_groups=2000,
        extra_groups=1000,
        curve_groups=400,
        vocab_size=8192,
        hidden_size=384,
        intermediate_size=1024,
        num_layers=8,
        num_heads=6,
        initializer_range=0.02,
        max_sequence_tokens=2048,
        warm_steps=6000,
        warm_sequences_per_step=64,
        warm_learning_rate=1e-3,
        groups_per_step=32,
        steps=4000,
        learning_rate=5e-4,
        dpo_steps=2000,
        dpo_learning_rate=2e-4,
        minutes=120.0,
    ),
    "micro": Scale(
        max_pairs=60,
        eval_groups=10,
        extra_groups=4,
        curve_groups=6,
        vocab_size=400,
        hidden_size=16,
        intermediate_size=32,
        num_layers=1,
        num_heads=2,
        warm_steps=2,
        warm_sequences_per_step=4,
        groups_per_step=4,
        steps=2,
        dpo_steps=2,
        evaluations=1,
        bootstrap_samples=50,
        minutes=0.1,
    ),
}
