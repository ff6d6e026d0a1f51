"""Rewards of sequences: a reward model's scores, or a policy's implicit rewards against a reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mapl_ray.batches import EncodedGroup, encode_group
from mapl_ray.data.records import Rejection, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.items import FloatArray
from mapl_ray.scoring.options import TreeOptions

Float32Array = npt.NDArray[np.float32]


def implicit_rewards(
    logps_S: Float32Array, ref_logps_S: Float32Array, beta: float, lengths_S: Float32Array | None = None
) -> FloatArray:
    """Like `objective.dpo_rewards`, on arrays: beta * (logps - ref_logps), [S], computed in float32, as float64.

    With `lengths_S`, rewards are divided by the number of response tokens, as in length-normalized DPO.
    """
    rewards_S = np.float32(beta) * (logps_S - ref_logps_S)
    return (rewards_S if lengths_S is None else rewards_S / lengths_S).astype(np.float64)


def model_rewards(
    groups: Sequence[RelationGroup],
    model: Checkpoint,
    *,
    beta: float,
    micro_batch_size: int,
    max_sequence_tokens: int,
) -> list[tuple[float, ...]]:
    """r(x, y) of every sequence of every group in memory, in order, computed in this process in float32.

    Raises `UserError` for groups that are too long or, for DPO, without `ref_logps`.
    """
    scores = _scores(groups, model, micro_batch_size, max_sequence_tokens)
    if model.method == "rm":
        return scores
    rewards = []
    for group, logps in zip(groups, scores, strict=True):
        if group.ref_logps is None:
            raise UserError("the held-out groups have no ref_logps, which DPO needs. Run `mapl score`.")
        found = implicit_rewards(np.array(logps, np.float32), np.array(group.ref_logps, np.float32), beta)
        rewards.append(tuple(found.tolist()))
    return rewards


def reference_logps(
    groups: Sequence[RelationGroup], reference: Checkpoint, *, micro_batch_size: int, max_sequence_tokens: int
) -> list[tuple[float, ...]]:
    """log pi_ref(y|x) in nats of every sequence of every group, in order. Raises `UserError` for groups too long."""
    return _scores(groups, reference, micro_batch_size, max_sequence_tokens)


def _scores(
    groups: Sequence[RelationGroup], model: Checkpoint, micro_batch_size: int, max_sequence_tokens: int
) -> list[tuple[float, ...]]:
    from torch import cuda  # imported here because torch takes seconds to import

    from mapl_ray.scoring.trees import TreeScorer

    scorer = TreeScorer(
        TreeOptions(
            model=model.path,
            revision=model.revision,
            dtype="float32",
            bf16=False,
            max_tokens=max_sequence_tokens,
            batching="auto",
            attention="auto",
            row_tokens=None,
            groups_at_once=micro_batch_size,
            gpus=int(cuda.is_available()),
            head="reward" if model.method == "rm" else "logps",
        )
    )
    return scorer.score_trees([_encoded(group, scorer.tokenizer, max_sequence_tokens) for group in groups])


def _encoded(group: RelationGroup, tokenizer: object, max_sequence_tokens: int) -> EncodedGroup:
    encoded = encode_group(group, tokenizer, max_sequence_tokens)
    if isinstance(encoded, Rejection):
        raise UserError(f"pair {encoded.pair_id!r} of {encoded.source}: {encoded.reason}")
    return encoded
