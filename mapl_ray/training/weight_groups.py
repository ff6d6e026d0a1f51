"""Groups of ranks that together hold a second copy of ZeRO-3's weights: ZeRO++ hpZ (Wang et al. 2023, section 3.2).

DeepSpeed creates the second copy when it partitions a model, and drops that of trained weights after each optimizer
step. A step's first gather of a weight spans all ranks; later ones in the step span only the group.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from typing import Any

import torch.distributed as dist

from mapl_ray.errors import UserError

_KEY = "train.zero_hpz_partition_size"
_made_for: tuple[dist.ProcessGroup | None, int] = (None, 1)  # the ranks, and the size of their groups


def use_weight_groups(size: int) -> None:
    """Use groups of `size` ranks (1: no second copy) for models that are partitioned from now on.

    Every rank must call it. Raises `UserError` on all ranks if their number is not divisible by `size`, or if a group
    would span nodes, as its gathers would then go between nodes, as without a second copy.
    """
    global _made_for
    if size > 1:
        _check(size)
    now = (dist.group.WORLD, size)
    if now != _made_for:  # existing groups are of an earlier training in this process, with another size
        _deepspeed_groups()._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
        _made_for = now


@cache
def _deepspeed_groups() -> Any:
    """Patch DeepSpeed so that it creates the groups only once, and return its module `groups`.

    DeepSpeed 0.19.8 creates them for every model that it partitions, and fails an assertion if they exist: for a frozen
    reference, in the next training of a process, and if a model without SDPA is created again.
    """
    from deepspeed.utils import groups

    create = groups._create_zero_param_parallel_group

    def create_once(size: int) -> None:
        if groups._get_zero_param_intra_parallel_group() is None:
            create(size)

    groups._create_zero_param_parallel_group = create_once
    return groups


def _check(size: int) -> None:
    ranks = dist.get_world_size()
    if ranks % size:
        raise UserError(f"{_KEY}={size}: {ranks} worker(s) run, not a multiple of it. Start a multiple of it.")
    # Ray Train sets the first, torchrun the second.
    mine = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or socket.gethostname()
    check_nodes(size, _gathered(mine))


def check_nodes(size: int, nodes: list[str]) -> None:
    """Raise `UserError` if a group of `size` consecutive ranks spans nodes. `nodes`: node of each rank, in order."""
    for first in range(0, len(nodes), size):
        of_group = list(dict.fromkeys(nodes[first : first + size]))
        if len(of_group) > 1:
            counts = ", ".join(f"{nodes.count(node)} on {node}" for node in dict.fromkeys(nodes))
            raise UserError(
                f"{_KEY}={size}: ranks {first} to {first + size - 1} run on nodes {' and '.join(of_group)}; expected a "
                f"divisor of the number of workers on every node ({counts}). Set such a number, or 1."
            )


def _gathered(value: str) -> list[str]:
    """Gather every rank's value over gloo, as NCCL would need the device, which is set later."""
    group = dist.new_group(backend="gloo")
    values: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(values, value, group=group)
    dist.destroy_process_group(group)
    return values
