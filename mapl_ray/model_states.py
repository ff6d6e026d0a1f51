"""Estimate the memory of model and optimizer states by ZeRO stage (Rajbhandari et al. 2020, section 3).

Activations are extra and depend on batch and kernels: `planning/memory.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from mapl_ray.config import RunConfig


def state_bytes(parameters: float, zero_stage: int, num_workers: int, *, bf16: bool) -> float:
    """Bytes on one worker for weights, gradients and Adam's states.

    Bytes per parameter with bf16: 2 for weights, 4 for gradients (summed in float32), 12 for the float32 copy and two
    moments. Without bf16: 4 + 4 + 8, and from stage 1 another 4, because ZeRO also copies float32 weights. Stage 1
    partitions the optimizer states over the workers, stage 2 also the gradients, stage 3 also the weights. Below
    stage 2 bf16 adds 2 for bfloat16 gradients of the backward pass. Tensors in a DeepSpeed 0.19.8 process agree.
    """
    weights, gradients = (2.0 if bf16 else 4.0), (6.0 if bf16 and zero_stage < 2 else 4.0)
    optimizer = 12.0 if bf16 or zero_stage >= 1 else 8.0
    optimizer /= num_workers if zero_stage >= 1 else 1
    gradients /= num_workers if zero_stage >= 2 else 1
    weights /= num_workers if zero_stage >= 3 else 1
    return parameters * (weights + gradients + optimizer)


def second_copy_bytes(parameters: float, partition_size: int, *, bf16: bool) -> float:
    """Bytes on one worker for its share of the second copy of the weights that `partition_size` workers hold together
    (ZeRO++ hpZ, Wang et al. 2023, section 3.2). With `partition_size` 1 there is no second copy."""
    return 0.0 if partition_size == 1 else parameters * (2.0 if bf16 else 4.0) / partition_size


def parameter_count(config: RunConfig) -> tuple[float, str] | None:
    """Number of parameters and its source; None if unknown."""
    name = config.model.name_or_path
    if name == "tiny":
        return float(config.model.tiny.most_parameters), "at most, from model.tiny"
    path = Path(name) / "config.json"
    if path.is_file():
        counted = _from_config(path)
        return None if counted is None else (counted, f"from {path}")
    match = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([BbMm])(?![A-Za-z0-9])", re.sub(r"[-_/]", " ", name))
    if match is None:
        return None
    return float(match[1]) * (1e9 if match[2] in "Bb" else 1e6), f"read from the name {name!r}, not measured"


def _from_config(path: Path) -> float | None:
    """Parameter count of a decoder with gated MLP and grouped-query attention (Llama, Qwen2, Mistral)."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        hidden, layers = int(values["hidden_size"]), int(values["num_hidden_layers"])
        heads, vocab = int(values["num_attention_heads"]), int(values["vocab_size"])
        mlp = int(values["intermediate_size"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    head = int(values.get("head_dim") or hidden // heads)
    key_value = head * int(values.get("num_key_value_heads") or heads)
    attention = 2 * hidden * head * heads + 2 * hidden * key_value
    embeddings = vocab * hidden * (1 if values.get("tie_word_embeddings") else 2)
    return float(embeddings + layers * (attention + 3 * hidden * mlp + 2 * hidden) + hidden)
