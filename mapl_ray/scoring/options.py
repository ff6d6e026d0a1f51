"""Options of a vLLM engine, and of the trainer's forward pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mapl_ray.config import Attention, Dtype, Method, RunConfig, ScoringConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of one vLLM engine. They are the same on every actor, so that scores do not depend on the actor."""

    model: str
    revision: str | None
    dtype: Dtype
    max_model_len: int
    tensor_parallel_size: int
    gpus: int  # 0: the CPU build
    gpu_memory_utilization: float
    kv_cache_gib: int  # CPU build
    seed: int = 0
    pipeline_parallel_size: int = 1
    prefix_caching: bool = True
    chunked_prefill: bool | None = None
    max_num_batched_tokens: int | None = None
    lora: str | None = None

    @property
    def ranks(self) -> int:
        """Number of processes that share the model."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @classmethod
    def of(
        cls,
        config: ScoringConfig,
        model: str,
        revision: str | None,
        dtype: Dtype,
        seed: int,
        lora: str | None = None,
    ) -> EngineOptions:
        """Options for one of the models that `scoring` uses."""
        return cls(
            model=model,
            revision=revision,
            dtype=dtype,
            max_model_len=config.max_model_len,
            tensor_parallel_size=config.tensor_parallel_size,
            gpus=config.gpus_per_engine,
            gpu_memory_utilization=config.gpu_memory_utilization,
            kv_cache_gib=config.kv_cache_gib,
            seed=seed,
            pipeline_parallel_size=config.pipeline_parallel_size,
            prefix_caching=config.prefix_caching,
            chunked_prefill=config.chunked_prefill,
            max_num_batched_tokens=config.max_num_batched_tokens,
            lora=lora,
        )


@dataclass(frozen=True, slots=True)
class TreeOptions:
    """Options of the trainer's forward pass. Those that affect rounding are the same as in `mapl train dpo`."""

    model: str
    revision: str | None
    dtype: Dtype  # dtype in which weights are loaded
    bf16: bool  # `train.bf16`: parameters are cast to bfloat16
    max_tokens: int
    batching: Literal["tree", "padded", "auto"]  # auto: trees if the model supports them
    attention: Attention
    row_tokens: int | None
    groups_at_once: int
    gpus: int  # 0: on CPUs
    lora: str | None = None
    head: Literal["logps", "reward"] = "logps"  # logps of a policy, or the reward of a reward model
    float32_head: bool = False  # with `bf16`: the output layer stays in float32

    @classmethod
    def of(cls, config: RunConfig, model: str, revision: str | None, lora: str | None = None) -> TreeOptions:
        """The options of DPO training in this run."""
        train, (_, _, _, gpus) = config.training("dpo"), config.scoring.trainer_actors
        return cls(
            model=model,
            revision=revision,
            dtype=config.model.dtype_where(train.in_bf16),
            bf16=train.in_bf16,
            max_tokens=config.scoring.max_model_len,
            batching=train.batching,
            attention=_attention(train, gpus),
            row_tokens=train.row_tokens,
            groups_at_once=train.micro_batch_size,
            gpus=gpus,
            lora=lora,
        )

    @classmethod
    def of_evaluation(
        cls, config: RunConfig, model: str, revision: str | None, method: Method, max_tokens: int
    ) -> TreeOptions:
        """The options for evaluating a model: float32 on CPUs; on GPUs a bfloat16 body and a float32 head."""
        train, gpus = config.training(method), math.ceil(config.evaluation.gpus)
        return cls(
            model=model,
            revision=revision,
            dtype="float32",
            bf16=gpus > 0,
            max_tokens=max_tokens,
            batching="padded" if train.batching == "padded" else "auto",
            attention=_attention(train, gpus),
            row_tokens=train.row_tokens,
            groups_at_once=config.evaluation.micro_batch_size,
            gpus=gpus,
            head="reward" if method == "rm" else "logps",
            float32_head=gpus > 0,
        )

    @property
    def recipe(self) -> dict[str, object]:
        """Everything except the model that decides the scores. Batch and device only change last digits."""
        computed = "bfloat16" if self.bf16 else self.dtype
        values: dict[str, object] = {"by": "trainer", "computed": computed, "batching": self.batching}
        if self.head != "logps" or self.float32_head:
            values |= {"head": self.head, "float32_head": self.float32_head}
        return {**values, "attention": self.attention}


def _attention(train: TrainConfig, gpus: int) -> Attention:
    """The training's attention; `auto` if only one of training and scoring has GPUs, which some kernels need."""
    return "auto" if bool(gpus) != bool(train.gpus_per_worker) else train.attention
