"""Rewards of a trained model on groups, computed as in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from mapl_ray.batches import Batch, EncodedGroup, collate, encode_group, read_at
from mapl_ray.data.records import Rejection, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model, load_tokenizer
from mapl_ray.objective import dpo_rewards
from mapl_ray.progress import progress


def model_rewards(
    groups: Sequence[RelationGroup],
    model: Checkpoint,
    *,
    beta: float,
    micro_batch_size: int,
    max_sequence_tokens: int,
    length_normalised: bool = False,
) -> list[tuple[float, ...]]:
    """r(x, y) of every sequence of every group, in order. For DPO r = beta * (logps - ref_logps), a token where so set.

    Raises `UserError` for groups that are too long or, for DPO, without `ref_logps`.
    """

    def rewards_of(batch: Batch, scores_S: torch.Tensor) -> torch.Tensor:
        if model.method == "rm":
            return scores_S
        if batch.ref_logps_S is None:
            raise UserError("the held-out groups have no ref_logps, which DPO needs. Run `mapl score`.")
        lengths_S = batch.response_lengths() if length_normalised else None
        return dpo_rewards(scores_S, batch.ref_logps_S, beta, lengths_S)

    rewards: list[tuple[float, ...]] = []
    for some, batch, scores_S in _scored(groups, model, micro_batch_size, max_sequence_tokens):
        values = iter(rewards_of(batch, scores_S).tolist())
        rewards += [tuple(next(values) for _ in group.sequences) for group in some]
    return rewards


def reference_logps(
    groups: Sequence[RelationGroup], reference: Checkpoint, *, micro_batch_size: int, max_sequence_tokens: int
) -> list[tuple[float, ...]]:
    """log pi_ref(y|x) in nats of every sequence of every group, in order. Raises `UserError` for too long groups."""
    logps: list[tuple[float, ...]] = []
    for some, _, logps_S in _scored(groups, reference, micro_batch_size, max_sequence_tokens):
        values = iter(logps_S.tolist())
        logps += [tuple(next(values) for _ in group.sequences) for group in some]
    return logps


def _scored(
    groups: Sequence[RelationGroup], model: Checkpoint, micro_batch_size: int, max_sequence_tokens: int
) -> Iterator[tuple[list[EncodedGroup], Batch, torch.Tensor]]:
    """Groups batch by batch, with what the model gives their sequences: its head's value, or logps."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(model.path, model.revision)
    # float32, whatever the weights were trained in: near ties must not be decided by rounding.
    module = (
        RewardScores(load_reward_model(model.path, "float32", model.revision, device))
        if model.method == "rm"
        else PolicyLogps(load_policy(model.path, "float32", model.revision, device))
    )
    module.to(device).eval()
    encoded = [_encoded(group, tokenizer, max_sequence_tokens) for group in groups]
    if model.method == "rm":
        encoded = [_as_trained(group, module.model.config.pad_token_id) for group in encoded]
    with progress(f"evaluate {model.name}", len(encoded), "groups") as work:
        for start in range(0, len(encoded), micro_batch_size):
            some = encoded[start : start + micro_batch_size]
            batch = collate(some, "padded", tokenizer.pad_token_id).to(device)
            with torch.no_grad():
                scores_S = module(batch)
            yield some, batch, scores_S
            work.advance(len(some))


def _encoded(group: RelationGroup, tokenizer: object, max_sequence_tokens: int) -> EncodedGroup:
    encoded = encode_group(group, tokenizer, max_sequence_tokens)
    if isinstance(encoded, Rejection):
        raise UserError(f"pair {encoded.pair_id!r} of {encoded.source}: {encoded.reason}")
    return encoded


def _as_trained(group: EncodedGroup, pad_token_id: int | None) -> EncodedGroup:
    """With responses that end at the token which the reward model was trained to be read at."""
    return replace(group, response_ids=tuple(tuple(read_at(ids, pad_token_id)) for ids in group.response_ids))
