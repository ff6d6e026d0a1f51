"""Models, scoring, training, tuning, evaluation, cluster."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from mapl_ray.config.section import Section
from mapl_ray.records import LEVEL_FAMILIES

Method = Literal["rm", "dpo"]


class TinyModelConfig(Section):
    """A small Llama with a byte-level BPE tokenizer, built from the run's own texts: no hub needed."""

    vocab_size: int = Field(default=2000, ge=300)
    hidden_size: int = Field(default=128, ge=8)
    num_layers: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    max_position_embeddings: int = Field(default=4096, ge=64)

    @model_validator(mode="after")
    def _head_size(self) -> Self:
        # vLLM's CPU attention has kernels for heads of 32, 64, 96, ... alone.
        if self.hidden_size % (32 * self.num_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} and num_heads={self.num_heads}: "
                f"expected a multiple of 32 * num_heads = {32 * self.num_heads}"
            )
        return self


class ModelConfig(Section):
    """The base model: a local directory, a hub name, or a tiny one built on the spot (`name_or_path: tiny`)."""

    name_or_path: str = "tiny"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    tiny: TinyModelConfig = TinyModelConfig()


class ScoringConfig(Section):
    """vLLM actors: which columns to fill, and what one engine takes."""

    ref_logps: bool = True  # log-probabilities of every sequence under the policy
    reward_model: str | None = None  # fill `rewards` with this model
    num_engines: int = Field(default=1, ge=1)
    tensor_parallel_size: int = Field(default=1, ge=1)
    cpus_per_engine: int = Field(default=1, ge=1)
    gpus_per_engine: int = Field(default=0, ge=0)
    kv_cache_gib: int = Field(default=1, ge=1)  # CPU engines
    gpu_memory_utilization: float = Field(default=0.85, gt=0.0, le=1.0)
    max_model_len: int = Field(default=4096, ge=16)
    batch_groups: int = Field(default=64, ge=1)  # groups handed to the engine at once


class LevelWeights(Section):
    """Weights of the levels: the loss is `L_pref + lambda_intra * L_intra + lambda_inter * L_inter`."""

    lambda_intra: float = Field(default=1.0, ge=0.0)
    lambda_inter: float = Field(default=1.0, ge=0.0)

    def of(self, family: str) -> float:
        """The weight of a level family (`pref`, `intra`, `inter`)."""
        return {"pref": 1.0, "intra": self.lambda_intra, "inter": self.lambda_inter}[family]


class TrainConfig(Section):
    """One training run, reward model or DPO. Sizes are in groups: one original pair is one group."""

    weights: LevelWeights = LevelWeights()
    beta: float = Field(default=0.1, gt=0.0)  # DPO
    learning_rate: float = Field(default=5e-6, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    warmup_ratio: float = Field(default=0.05, ge=0.0, lt=1.0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    micro_batch_size: int = Field(default=4, ge=1)  # groups on one worker at once
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    batching: Literal["tree", "padded"] = "tree"
    # Token budget of a row of trees; None: all of a micro-batch (with a dense mask: the longest tree's tokens).
    row_tokens: int | None = Field(default=None, ge=1)
    max_sequence_tokens: int = Field(default=2048, ge=16)
    truncate_prompt: Literal["refuse", "left"] = "refuse"  # groups above it: left out, or prompts cut on the left
    zero_stage: Literal[0, 1, 2, 3] = 2
    bf16: bool = False
    gradient_checkpointing: bool = False
    num_workers: int = Field(default=1, ge=1)
    cpus_per_worker: float = Field(default=1.0, gt=0.0)
    gpus_per_worker: float = Field(default=0.0, ge=0.0)
    eval_every_steps: int = Field(default=50, ge=1)
    checkpoint_every_steps: int = Field(default=50, ge=1)
    checkpoints_to_keep: int = Field(default=2, ge=1)
    max_failures: int = Field(default=1, ge=0)  # restarts after a worker dies; a non-finite loss never restarts
    seed: int = 0


class TuneConfig(Section):
    """A Ray Tune search of the loss weights."""

    method: Method = "rm"
    num_trials: int = Field(default=4, ge=1)
    max_concurrent_trials: int = Field(default=1, ge=1)
    lambda_intra: tuple[float, float] = (0.1, 2.0)  # drawn log-uniformly
    lambda_inter: tuple[float, float] = (0.1, 2.0)
    beta: tuple[float, float] | None = None  # DPO only
    max_steps: int = Field(default=50, ge=1)  # of one trial
    eval_every_steps: int = Field(default=10, ge=1)
    grace_period_steps: int = Field(default=10, ge=1)  # ASHA stops no trial before
    # The weighted mean of these level accuracies is maximised.
    objective: dict[str, float] = Field(default={"pref": 1.0, "intra": 0.5, "inter": 0.5})
    seed: int = 0

    @field_validator("objective")
    @classmethod
    def _levels(cls, value: dict[str, float]) -> dict[str, float]:
        if not value or set(value) - set(LEVEL_FAMILIES) or min(value.values()) < 0 or sum(value.values()) <= 0:
            raise ValueError(f"expected non-negative weights of {', '.join(LEVEL_FAMILIES)}, at least one above 0")
        return value

    @field_validator("lambda_intra", "lambda_inter", "beta")
    @classmethod
    def _bounds(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0.0 < value[0] <= value[1]:
            raise ValueError(f"expected [low, high] with 0 < low <= high, got {list(value)}")
        return value


class EvaluationConfig(Section):
    """Evaluation of the trained models on the held-out groups."""

    baseline: bool = True  # train and evaluate the plain baseline too (lambda_intra = lambda_inter = 0)
    micro_batch_size: int = Field(default=4, ge=1)
    bootstrap_samples: int = Field(default=1000, ge=0)  # for 95 % intervals, resampled by prompt
    cpus: float = Field(default=1.0, gt=0.0)
    gpus: float = Field(default=0.0, ge=0.0)


class ClusterConfig(Section):
    """Where Ray runs. Without an address, a private single-machine cluster is started and stopped."""

    address: str | None = None  # None: this machine; `auto`: the cluster this process is on; else host:port
    num_cpus: int | None = Field(default=None, ge=1)  # logical CPUs of a private cluster; None: as many as there are
    synthesis_workers: int | None = Field(default=None, ge=1)  # None: as many as there are CPUs
