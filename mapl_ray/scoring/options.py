"""What an engine is started with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mapl_ray.config import ScoringConfig


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """One vLLM engine; the same values on every actor, so that scores do not depend on who computed them."""

    model: str
    revision: str | None
    dtype: Literal["float32", "bfloat16"]
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
        """Processes that hold a share of the model each."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @classmethod
    def of(
        cls,
        config: ScoringConfig,
        model: str,
        revision: str | None,
        dtype: Literal["float32", "bfloat16"],
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
