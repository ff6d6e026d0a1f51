"""What to say when a loss or a gradient is not finite. Dimensions: L level families, M measures."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mapl_ray.batches import Batch
from mapl_ray.errors import RunError
from mapl_ray.records import LEVEL_FAMILIES
from mapl_ray.training.deepspeed_engine import Engine, NonFiniteGradientError

_NAMED = 16  # groups in a message


def check_loss(
    engine: Engine, sums_LM: torch.Tensor, step: int, batches: Sequence[Batch], margins: Sequence[torch.Tensor]
) -> None:
    """Raise `RunError` on every rank where the sums over ranks of a step are not finite.

    Args:
        sums_LM: `level_sums` of the whole step, the same on all ranks.
        step: steps done before this one.
        margins: the signed sums of each batch of this rank.
    """
    wrong_L = ~torch.isfinite(sums_LM).all(dim=1)
    if not wrong_L.any():
        return
    levels = [level for level, wrong in zip(LEVEL_FAMILIES, wrong_L.tolist(), strict=True) if wrong]
    mine = [b for b, m in zip(batches, margins, strict=True) if not torch.isfinite(m).all()]
    raise RunError(
        f"step {step + 1}: the loss is not finite at level {', '.join(levels)}; the weights were not changed. "
        f"Groups of the micro-batches concerned: {_groups(engine, mine)}. "
        "Lower train.learning_rate, or look at these groups' ref_logps."
    )


def checked_step(engine: Engine, step: int, batches: Sequence[Batch]) -> None:
    """`Engine.step` after the last micro-batch; raises `RunError` on every rank for a gradient that is not finite."""
    try:
        engine.step()
    except NonFiniteGradientError:
        counts_L = engine.sum_over_ranks(torch.stack([b.relations.counts() for b in batches]).sum(0))
        levels = [level for level, count in zip(LEVEL_FAMILIES, counts_L.tolist(), strict=True) if count]
        raise RunError(
            f"step {step + 1}: the loss is finite and its gradient is not (levels in this step: {', '.join(levels)}); "
            f"the weights were not changed. Groups of this step: {_groups(engine, batches)}. "
            "Lower train.learning_rate, or look at the weights and at these groups."
        ) from None


def _groups(engine: Engine, batches: Sequence[Batch]) -> str:
    """Ids over all ranks; every rank must call it."""
    ranks = engine.gather([pair_id for batch in batches for pair_id in batch.pair_ids])
    ids = list(dict.fromkeys(pair_id for rank in ranks for pair_id in rank))
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{', '.join(ids[:_NAMED])}{more}"
