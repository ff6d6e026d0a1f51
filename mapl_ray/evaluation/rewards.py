"""Rewards of a trained model on groups, computed as in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mapl_ray.batches import EncodedGroup, collate, encode_group
from mapl_ray.config import Method
from mapl_ray.errors import UserError
from mapl_ray.models import PolicyLogps, RewardScores, load_policy, load_reward_model, load_tokenizer
from mapl_ray.objective import dpo_rewards
from mapl_ray.records import Rejection, RelationGroup


def model_rewards(
    groups: Sequence[RelationGroup],
    method: Method,
    model_dir: str,
    *,
    beta: float,
    micro_batch_size: int,
    max_sequence_tokens: int,
    length_normalised: bool = False,
) -> list[tuple[float, ...]]:
    """r(x, y) of every sequence of every group, in order. For DPO r = beta * (logps - ref_logps), a token where so set.

    Raises `UserError` for groups that are too long or, for DPO, without `ref_logps`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(model_dir)
    # float32, whatever the weights were trained in: near ties must not be decided by rounding.
    module = (
        RewardScores(load_reward_model(model_dir, "float32", device=device))
        if method == "rm"
        else PolicyLogps(load_policy(model_dir, "float32", device=device))
    )
    module.to(device).eval()
    rewards: list[tuple[float, ...]] = []
    encoded = [_encoded(group, tokenizer, max_sequence_tokens) for group in groups]
    with torch.no_grad():
        for some in _chunks(encoded, micro_batch_size):
            batch = collate(some, "padded", tokenizer.pad_token_id).to(device)
            rewards_S = module(batch)
            if method == "dpo":
                if batch.ref_logps_S is None:
                    raise UserError("the held-out groups have no ref_logps, which DPO needs. Run `mapl score`.")
                lengths_S = batch.response_lengths() if length_normalised else None
                rewards_S = dpo_rewards(rewards_S, batch.ref_logps_S, beta, lengths_S)
            values = iter(rewards_S.tolist())
            rewards += [tuple(next(values) for _ in group.sequences) for group in some]
    return rewards


def fitting_groups(
    groups: Sequence[RelationGroup], model_dir: str, max_sequence_tokens: int
) -> tuple[list[RelationGroup], list[Rejection]]:
    """The groups short enough for the model, so that all models are measured on the same ones."""
    tokenizer = load_tokenizer(model_dir)
    fitting, too_long = [], []
    for group in groups:
        encoded = encode_group(group, tokenizer, max_sequence_tokens)
        if isinstance(encoded, Rejection):
            too_long.append(encoded)
        else:
            fitting.append(group)
    return fitting, too_long


def _encoded(group: RelationGroup, tokenizer: object, max_sequence_tokens: int) -> EncodedGroup:
    encoded = encode_group(group, tokenizer, max_sequence_tokens)
    if isinstance(encoded, Rejection):
        raise UserError(f"group {encoded.pair_id}: {encoded.reason}")
    return encoded


def _chunks(groups: list[EncodedGroup], size: int) -> Iterator[list[EncodedGroup]]:
    for start in range(0, len(groups), size):
        yield groups[start : start + size]
