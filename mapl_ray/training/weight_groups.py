"""Groups of ranks that hold a second copy of ZeRO-3's weights together: ZeRO++'s hpZ (Wang et al. 2023, section 3.2).

DeepSpeed makes the second copy where it partitions a model, and drops that of trained weights after each optimizer
step. The step's first gather of a weight spans all ranks; later ones, until the next step, span the group alone.
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
    """Have the models that are partitioned from now on keep their second copy in groups of `size` ranks (1: none).

    Every rank must call it. Raises `UserError` on all of them where groups of that size do not divide the ranks, or one
    would span nodes: its gathers would go between nodes, as they do without a second copy.
    """
    global _made_for
    if size > 1:
        _check(size)
    now = (dist.group.WORLD, size)
    if now != _made_for:  # what is there is of an earlier training in this process, with another size
        _deepspeed_groups()._ZERO_PARAM_INTRA_PARALLEL_GROUP = None
        _made_for = now


@cache
def _deepspeed_groups() -> Any:
    """DeepSpeed's groups, which are created once.

    DeepSpeed 0.19.8 creates them with every model that it partitions and fails an assertion where they are there: at a
    frozen reference, at the next training of a process, and where a model without SDPA is built a second time.
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
        raise UserError(f"{_KEY}={size}: {ranks} worker(s) run, which it does not divide. Start a multiple of it.")
    # Ray Train sets the first, torchrun the second.
    mine = os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or socket.gethostname()
    check_nodes(size, _gathered(mine))


def check_nodes(size: int, nodes: list[str]) -> None:
    """Raises `UserError` where a group of `size` neighbours spans nodes; `nodes`: each rank's node, in order."""
    for first in range(0, len(nodes), size):
        of_group = list(dict.fromkeys(nodes[first : first + size]))
        if len(of_group) > 1:
            counts = ", ".join(f"{nodes.count(node)} on {node}" for node in dict.fromkeys(nodes))
            raise UserError(
                f"{_KEY}={size}: ranks {first} to {first + size - 1} run on nodes {' and '.join(of_group)}; expected a "
                f"divisor of the workers of every node ({counts}). Set such a number, or 1."
            )


def _gathered(value: str) -> list[str]:
    """Every rank's value, over gloo: NCCL would need the device, which is set later."""
    group = dist.new_group(backend="gloo")
    values: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(values, value, group=group)
    dist.destroy_process_group(group)
    return values
