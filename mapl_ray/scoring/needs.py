"""Estimate the memory that an engine needs from the model's config, before anything starts.

KV cache of a token = 2 (keys, values) * layers * key-value heads * head size * bytes of a value
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mapl_ray.config import RunConfig, ScoringConfig, TinyModelConfig
from mapl_ray.errors import UserError
from mapl_ray.model_copies import known_model
from mapl_ray.preferences import is_uri

GIB = 2.0**30
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Memory of one process with Python, torch and vLLM on a CPU, without a model.
PROCESS_GIB = 1.0
_SPLITS = ("num_attention_heads", "num_key_value_heads", "intermediate_size", "num_hidden_layers")


@dataclass(frozen=True, slots=True)
class EngineNeeds:
    """Needs of one model in one engine, over all ranks. Sizes are in bytes; None if the config does not give them."""

    model: str
    weights: float | None
    kv_token: float | None
    longest: int | None  # the model's maximum sequence length, in tokens
    by_vllm: bool = True  # False: the trainer's forward pass, which has no KV cache and is not split
    splits: Mapping[str, int] = field(default_factory=dict)  # sizes that parallelism splits, by name in the config

    def kv_token_of_a_rank(self, config: ScoringConfig) -> float:
        """Bytes of KV cache per token on one rank; tensor parallelism splits heads, pipeline parallelism splits layers.

        If there are fewer key-value heads than ranks, they are replicated.
        """
        tensor = min(config.tensor_parallel_size, self.splits.get("num_key_value_heads", config.tensor_parallel_size))
        return (self.kv_token or 0.0) / (tensor * config.pipeline_parallel_size)

    def memory_gib(self, config: ScoringConfig) -> float:
        """Main memory of one CPU engine, in GiB: processes, KV cache, weights."""
        if not self.by_vllm:
            return PROCESS_GIB + (self.weights or 0.0) / GIB
        ranks = config.tensor_parallel_size * config.pipeline_parallel_size
        return ranks * (PROCESS_GIB + config.kv_cache_gib) + (self.weights or 0.0) / GIB


def engine_needs(config: RunConfig) -> list[EngineNeeds]:
    """Needs of every model in `scoring`, without network requests. Unknown sizes are None."""
    scoring = config.scoring
    of_trainer = config.model.dtype_where(config.training("dpo").in_bf16)
    by_vllm = scoring.ref_logps_by == "vllm"
    names = [(scoring.ref_model or config.model.name_or_path, by_vllm)] if scoring.ref_logps else []
    judge = config.model.name_or_path if scoring.judge.model == "policy" else scoring.judge.model
    others = (scoring.reward_model, judge, scoring.pair_reward_model)
    names += [(name, True) for name in others if name is not None]
    return [
        replace(_tiny(config.model.tiny, dtype) if name == "tiny" else _of_directory(name, dtype), by_vllm=by)
        for name, by in dict.fromkeys(names)
        for dtype in [config.engine_dtype if by else of_trainer]
    ]


def weight_bytes(name: str, dtype: str) -> float | None:
    """Bytes of a model's weights in `dtype`, without network requests; None if its files are not on this machine."""
    return _of_directory(name, dtype).weights


def evaluation_gib(config: RunConfig) -> float:
    """Main memory of one CPU actor of an evaluation, in GiB: Python, torch, and the largest model in float32."""
    given = config.evaluation
    names = [*(given.models or (config.model.name_or_path,)), *([given.reference] if given.reference else [])]
    tiny = _tiny(config.model.tiny, "float32").weights
    weights = [tiny if name == "tiny" else weight_bytes(name, "float32") for name in names]
    return PROCESS_GIB + max(one or 0.0 for one in weights) / GIB


def check_engine(config: RunConfig) -> None:
    """Raise `UserError` for a length above the limit of model or KV cache, and for sizes that can't be split."""
    length, gib = config.scoring.max_model_len, config.scoring.kv_cache_gib
    for needs in engine_needs(config):
        if needs.by_vllm:
            _check_parallel(needs, config.scoring)
        if needs.longest is not None and length > needs.longest:
            raise UserError(
                f"scoring.max_model_len={length}: {needs.model} takes {needs.longest} tokens "
                "(max_position_embeddings). Lower it; longer sequences are rejected and counted."
            )
        wanted = needs.kv_token_of_a_rank(config.scoring) * length / GIB
        # The KV cache of a GPU engine depends on gpu_memory_utilization and on the GPU, which is not known here.
        if needs.by_vllm and not config.scoring.gpus_per_engine and wanted > gib:
            raise UserError(
                f"scoring.kv_cache_gib={gib}: one sequence of scoring.max_model_len={length} tokens needs "
                f"{wanted:.1f} GiB of KV cache in {needs.model}. Raise kv_cache_gib, or lower max_model_len."
            )


def _check_parallel(needs: EngineNeeds, config: ScoringConfig) -> None:
    tensor, pipeline = config.tensor_parallel_size, config.pipeline_parallel_size
    for name, number in needs.splits.items():
        if name == "num_hidden_layers":
            wrong = pipeline > number
            what = f"scoring.pipeline_parallel_size={pipeline}: {needs.model} has {number} layers ({name})"
        else:
            # There may also be fewer key-value heads than ranks; each is then replicated.
            wrong = number % tensor != 0 and not (name == "num_key_value_heads" and tensor % number == 0)
            what = f"scoring.tensor_parallel_size={tensor}: {needs.model} has {name}={number}, not a multiple of it"
        if wrong:
            raise UserError(f"{what}. Use a size that fits, and more engines (scoring.num_engines) instead.")


def _tiny(tiny: TinyModelConfig, dtype: str) -> EngineNeeds:
    kv_token = 2.0 * tiny.num_layers * tiny.hidden_size * _BYTES[dtype]
    splits = {"num_attention_heads": tiny.num_heads, "num_hidden_layers": tiny.num_layers}
    weights = float(tiny.most_parameters * _BYTES[dtype])
    return EngineNeeds("tiny", weights, kv_token, tiny.max_position_embeddings, splits=splits)


def _of_directory(name: str, dtype: str) -> EngineNeeds:
    remote = known_model(name) if is_uri(name) else None
    folder = Path(name).expanduser() if remote is None else remote.folder
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return EngineNeeds(name, None, None, None)
    stored = values.get("dtype") or values.get("torch_dtype")
    here = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    weights = here if remote is None else remote.weight_bytes
    known = weights > 0 and stored in _BYTES
    return EngineNeeds(
        name,
        weights * _BYTES[dtype] / _BYTES[stored] if known else None,
        _kv_token(values, dtype),
        _longest(values),
        splits={key: values[key] for key in _SPLITS if isinstance(values.get(key), int)},
    )


def _kv_token(values: dict[str, Any], dtype: str) -> float | None:
    try:
        heads = int(values["num_attention_heads"])
        head = int(values.get("head_dim") or int(values["hidden_size"]) // heads)
        key_value = int(values.get("num_key_value_heads") or heads)
        return 2.0 * int(values["num_hidden_layers"]) * key_value * head * _BYTES[dtype]
    except (KeyError, TypeError, ValueError):
        return None


def _longest(values: dict[str, Any]) -> int | None:
    """The maximum sequence length; None if positions are scaled, because vLLM then derives a longer one itself."""
    scaling = values.get("rope_scaling") or values.get("rope_parameters") or {}
    plain = scaling.get("rope_type", scaling.get("type", "default")) == "default"
    longest = values.get("max_position_embeddings")
    return longest if plain and isinstance(longest, int) else None
