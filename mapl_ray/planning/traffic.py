"""Bytes that a training worker sends in a step, for gradients and weights.

Rajbhandari et al. 2020, section 7, as DeepSpeed 0.19.8 does it: tests/training/test_traffic.py counts them on two ranks
at every ZeRO stage.
"""

from __future__ import annotations

from mapl_ray.config import TrainConfig
from mapl_ray.planning.shape import ModelShape


def sent_bytes(shape: ModelShape, train: TrainConfig, workers: int, zero_stage: int) -> float:
    """By ring collectives: of n bytes on N ranks an all-reduce sends 2 n (N - 1) / N, any other one half of that.

    Gradients are reduced in float32 (`communication_data_type`): all-reduced once a step at stages 0 and 1, to the rank
    that keeps them after every micro-batch at stages 2 and 3. From stage 1 on the weights are gathered: once a step, at
    stage 3 twice a micro-batch, for the forward and the backward pass. Weights that stay gathered at stage 3 (below
    `stage3_param_persistence_threshold`) are counted as the others.
    """
    if workers == 1:
        return 0.0
    size = 2.0 if train.bf16 else 4.0
    trained = shape.trained(train.lora)
    reduced, gathered, each = 4.0 * trained, size * trained, train.gradient_accumulation_steps
    volume = {
        0: 2 * reduced,
        1: 2 * reduced + gathered,
        2: each * reduced + gathered,
        3: each * (reduced + 2 * size * shape.parameters),
    }[zero_stage]
    return volume * (workers - 1) / workers
