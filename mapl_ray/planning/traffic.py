"""Bytes that a training worker sends in a step, by the number of workers that its collectives span.

For DeepSpeed 0.19.8: tests/training/test_traffic.py counts the bytes on gloo ranks at every stage. For n bytes on N
ranks, each rank sends 2 n (N - 1) / N in a ring all-reduce, and half of that in any other collective.
"""

from __future__ import annotations

import math

from mapl_ray.config import Method, TrainConfig
from mapl_ray.planning.shape import ModelShape

Spans = dict[int, float]  # workers that take part in a collective -> bytes that each of them sends


def step_traffic(
    shape: ModelShape, train: TrainConfig, method: Method, workers: int, zero_stage: int, tokens: float
) -> Spans:
    """All bytes that a worker sends in a step. `tokens`: per group."""
    spans, ranks = sent_bytes(shape, train, method, workers, zero_stage), shared_by(train, workers)
    if ranks > 1:
        spans[ranks] = spans.get(ranks, 0.0) + exchanged_bytes(shape, train, workers, tokens)
    return spans


def sent_bytes(shape: ModelShape, train: TrainConfig, method: Method, workers: int, zero_stage: int) -> Spans:
    """Bytes for gradients and weights (Rajbhandari et al. 2020, section 7).

    Gradients are reduced in float32 (`communication_data_type`): at stages 0 and 1 all-reduced once per step, at stages
    2 and 3 reduced to the rank that keeps them after every micro-batch. Weights are gathered once per step at stages 1
    and 2, and in every pass at stage 3: forward and backward of each micro-batch, and the reference's forward pass.
    Weights that stay gathered at stage 3 (below `stage3_param_persistence_threshold`) are counted like the others.

    With a second copy of the weights (`train.zero_hpz_partition_size`), only a step's first gather of a trained weight
    spans all workers (of an adapter's weight the first two, as measured). Other gathers span the group that holds the
    copy. Copies of frozen weights are kept.
    """
    if workers == 1:
        return {}
    trained, each = shape.trained(train.lora), train.gradient_accumulation_steps
    size, share = (2.0 if train.in_bf16 else 4.0), (workers - 1) / workers
    reduced, gathered = 4.0 * trained, size * trained
    if zero_stage < 3:
        volume = {0: 2 * reduced, 1: 2 * reduced + gathered, 2: each * reduced + gathered}[zero_stage]
        return {workers: volume * share}
    whole = size * (shape.parameters if train.lora is None else shape.parameters + trained)
    passes = 3 if method == "dpo" and train.reference == "adapter" else 2
    frozen = size * shape.parameters if method == "dpo" and train.reference == "frozen" else 0.0
    every = each * (passes * whole + frozen)
    group = hpz_group(train, workers)
    if group in (1, workers):
        return {workers: (each * reduced + every) * share}
    wide = gathered if train.lora is None else 2 * gathered
    return {workers: (each * reduced + wide) * share, group: (every - wide) * (group - 1) / group}


def hpz_group(train: TrainConfig, workers: int) -> int:
    """Number of workers that together hold a second copy of the weights; 1: there is none.

    A plan may have another number of workers than the config, so the size is reduced to a divisor of it.
    """
    return math.gcd(train.zero_hpz_partition_size, workers)


def shared_by(train: TrainConfig, workers: int) -> int:
    """Number of workers that share the tokens of a row."""
    return min(train.sequence_parallel_size, workers)


def exchanged_bytes(shape: ModelShape, train: TrainConfig, workers: int, tokens: float) -> float:
    """Bytes for attention over shared rows (`train.sequence_parallel_size`).

    All-to-alls of queries, keys, values and outputs of a worker's tokens, forward and backward, and forward once more
    with gradient checkpointing. All but the worker's own share is sent to others. `tokens`: per group.
    """
    size, ranks = (2.0 if train.in_bf16 else 4.0), shared_by(train, workers)
    own = tokens * train.micro_batch_size * train.gradient_accumulation_steps / ranks
    passes = 3 if train.gradient_checkpointing else 2
    width = 2 * (shape.attention + shape.key_value)
    return passes * shape.layers * width * size * own * (ranks - 1) / ranks
