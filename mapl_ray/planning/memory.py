"""Peak memory of a training worker: model states by ZeRO stage, activations, logits, buffers.

States follow Rajbhandari et al. 2020, section 3 (`model_states.py`). Activations are what a Llama layer keeps for its
backward pass, as in Korthikanti et al. 2022, section 4, with a gated MLP and attention that does not keep its scores.
tests/planning/test_memory.py compares the sum with real processes: within a factor of 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapl_ray.config import Method, TrainConfig
from mapl_ray.model_states import second_copy_bytes, state_bytes
from mapl_ray.planning.shape import ModelShape
from mapl_ray.planning.traffic import hpz_group

_BUCKET = 5e7  # elements; `training/engine_config.py`
PIECE = 1024  # predicted tokens whose logits are in memory at once; as in `models/heads.py`, which imports torch
# Bytes of a 4-bit weight, with its doubly quantized scales (Dettmers et al. 2023, section 3).
_NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8
_LIVE = 1e9  # elements; DeepSpeed's stage3_max_live_parameters


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one worker in bytes."""

    states: float
    activations: float
    logits: float
    buffers: float
    second_copy: float  # second copy of weights, under ZeRO-3 with `train.zero_hpz_partition_size`
    host: float  # states and second copies that are offloaded to main memory

    @property
    def total(self) -> float:
        """Total on the device."""
        return self.states + self.activations + self.logits + self.buffers + self.second_copy


def training_memory(
    shape: ModelShape,
    config: TrainConfig,
    method: Method,
    workers: int,
    *,
    tokens: float,
    edges: float,
    zero_stage: int,
) -> Memory:
    """Estimate the peak of a step. `tokens`, `edges`: tokens and predicted tokens of a micro-batch."""
    size, stage = (2.0 if config.in_bf16 else 4.0), zero_stage
    trained = shape.trained(config.lora)
    share = workers if stage >= 3 else 1
    states = state_bytes(trained, stage, workers, bf16=config.in_bf16)
    host = 0.0
    if config.offload != "none":
        host = trained * (12.0 if config.in_bf16 or stage >= 1 else 8.0) / (workers if stage >= 1 else 1)
    if config.offload == "optimizer+parameters":
        host += trained * size / share
    frozen, base = 0.0, 0.0  # parameters, bytes
    if config.lora is not None:
        frozen, base = shape.parameters, shape.parameters * size
        if config.lora.quantize is not None:
            # Embeddings and the head are not quantized.
            base -= (shape.parameters - shape.embeddings * (1 if shape.tied else 2)) * (size - _NF4)
    if method == "dpo" and config.reference == "frozen":
        frozen, base = frozen + shape.parameters, base + shape.parameters * size
    group = hpz_group(config, workers) if stage >= 3 else 1
    copy = second_copy_bytes(trained + frozen, group, bf16=config.in_bf16)
    on_host = copy if config.offload == "optimizer+parameters" else 0.0  # where the first copy is
    return Memory(
        states=states - host + base / share,
        activations=_activations(shape, config, size) * tokens,
        logits=min(edges, PIECE) * shape.vocabulary * (16.0 if config.in_bf16 else 12.0) if method == "dpo" else 0.0,
        buffers=_buffers(shape, config, trained, frozen, stage, workers),
        second_copy=copy - on_host,
        host=host + on_host,
    )


def _activations(shape: ModelShape, config: TrainConfig, size: float) -> float:
    """Activation bytes per token. A layer keeps the inputs of both norms and their scaled values (float32), the inputs
    of projections and attention (queries, keys, values, result), and the MLP's gate, activation, up projection and
    product."""
    norms = 2 * (4.0 + size) * shape.hidden + 2 * size * shape.hidden
    attention = size * (2 * shape.attention + 2 * shape.key_value) * 1.5  # rotated copies of queries and keys
    layer = norms + attention + size * 4 * shape.mlp
    if config.gradient_checkpointing:
        return shape.layers * size * shape.hidden + layer
    return shape.layers * layer


def _buffers(shape: ModelShape, config: TrainConfig, trained: float, frozen: float, stage: int, workers: int) -> float:
    """DeepSpeed's buffers in addition to the states: flat buckets of collectives, and under ZeRO-3 gathered weights, up
    to a billion elements.

    With `train.overlap_comm`, ZeRO 1 and 2 fill a second bucket while the first is reduced. ZeRO-3 always has one.
    """
    if workers == 1 or stage == 0:
        return 0.0
    size = 2.0 if config.in_bf16 else 4.0
    buffers = min(trained, _BUCKET) * (4.0 + size)
    if stage < 3 and config.overlaps(stage):
        buffers += min(trained, _BUCKET) * (4.0 if stage == 1 else size)
    if stage >= 3:
        buffers += min(shape.parameters + frozen, _LIVE) * size
    return buffers
