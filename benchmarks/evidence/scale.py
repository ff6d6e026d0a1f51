"""Sizes of the experiment: what fits two hours of two CPU cores, what a GPU would take, what a test takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

ScaleName = Literal["cpu", "gpu", "micro"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Everything that has a size; the arms say what differs between them."""

    # Pairs, in tokens as `pairs.length` counts them
    max_prompt_tokens: int = 50
    max_response_tokens: int = 24
    max_pairs: int | None = None
    eval_fraction: float = 0.2
    eval_groups: int = 600  # held-out groups that everything is measured on, at most
    extra_groups: int = 250  # of those with three instructions, and of those with functions never trained on
    curve_groups: int = 160  # the first of them, for the learning curves
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
    evaluations: int = 7  # on the curve
    bootstrap_samples: int = 1000
    minutes: float = 65.0  # what the whole takes, about

    def within(self, minutes: float) -> Scale:
        """The same with more or fewer steps, so that the whole takes about so long."""
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
    # Whole responses and a model of 19 million parameters. Not run yet.
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
