"""Groups of ranks that share the tokens of a batch, and DeepSpeed's all-to-all between them."""

from __future__ import annotations

import torch
import torch.distributed as dist

from mapl_ray.errors import UserError
from mapl_ray.models.sequence_parallel import Local, SequenceGroup
from mapl_ray.training.deepspeed_engine import ensure_process_group, world_size
from mapl_ray.training.engine_config import COLLECTIVE_TIMEOUT


def sequence_group(size: int) -> SequenceGroup | None:
    """Create groups of `size` consecutive ranks and return this rank's; None if `size` is 1. Call it on every rank.

    Launchers number ranks node by node, so the ranks of a group are on one node if `size` allows it.
    Raises `UserError` if the number of ranks is not divisible by `size`.
    """
    if size == 1:
        return None
    from deepspeed.sequence.layer import DistributedAttention

    ensure_process_group()
    ranks = world_size()
    if ranks % size:
        raise UserError(
            f"train.sequence_parallel_size={size}: {ranks} worker(s) run, not a multiple of it. Start a multiple of it."
        )
    timeout = COLLECTIVE_TIMEOUT if dist.get_backend() == "nccl" else None
    groups = [dist.new_group(list(range(first, first + size)), timeout=timeout) for first in range(0, ranks, size)]
    group = groups[dist.get_rank() // size]
    attention = DistributedAttention(_attend, group, scatter_idx=2, gather_idx=1)

    def exchange(local: Local, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = attention(query, key, value, 0, None, local)
        return outputs

    return SequenceGroup(group, exchange)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, local: Local) -> torch.Tensor:
    return local(query, key, value)
