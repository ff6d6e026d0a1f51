"""Sequence parallelism with DeepSpeed Ulysses (Jacobs et al. 2023): ranks share the tokens of a row.

All layers except attention run on a rank's T / N tokens of each row. For attention, an all-to-all gives every rank all
T tokens of heads / N heads, and a second one restores the layout. So the tree mask, which needs the whole row, is the
same as on a single rank. The outputs (log-probabilities, rewards) are summed over ranks, so all ranks have the same
loss.

Dimensions: B rows, T tokens per row, N ranks that share it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mapl_ray.errors import UserError
from mapl_ray.models.kinds import check_shareable

_SUFFIX = "_over_ranks"
Local = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# Computes attention of [B, T / N, heads, size] each with a local one of [B, T, heads / N, size] each. Keeps the shape.
Exchange = Callable[[Local, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class SequenceGroup:
    """The ranks that share a batch."""

    group: dist.ProcessGroup
    exchange: Exchange

    @property
    def size(self) -> int:
        """Number of ranks, N."""
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """This process's rank in the group."""
        return dist.get_rank(self.group)

    def total(self, part: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, bitwise equal on all of them.

        Gradients flow only to the rank's own part, because all ranks compute the same loss from the sum.
        """
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.detach().contiguous(), group=self.group)
        parts[self.rank] = part
        return torch.stack(parts).sum(0)


def share_sequences(model: Any, group: SequenceGroup) -> None:
    """Make the attention of a model (after `prepare_for_trees`) span the tokens of all ranks in the group.

    Raises `UserError` if the numbers of heads are not divisible by the number of ranks, or if the model needs whole
    rows outside of attention.
    """
    config, inner = model.config.get_text_config(), model.config._attn_implementation
    check_shareable(config, group.size, config.model_type)
    if inner not in ALL_ATTENTION_FUNCTIONS:
        raise UserError(
            f"train.sequence_parallel_size={group.size}: attention {inner!r} of {config.model_type} can't be "
            "shared by ranks. Set it to 1, or train on GPUs with train.attention=flex."
        )
    name = inner + _SUFFIX
    attention = partial(_shared_attention, inner=ALL_ATTENTION_FUNCTIONS[inner], exchange=group.exchange)
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def local_attention(model: Any) -> str:
    """Name of the attention implementation that each rank runs, with or without sequence parallelism."""
    name: str = model.config._attn_implementation
    return name.removesuffix(_SUFFIX)


def _shared_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    inner: Callable[..., tuple[torch.Tensor, Any]],
    exchange: Exchange,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: [B, heads, T / N, size] each -> [B, T / N, heads, size]. The mask is for T."""

    def local(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heads_first = (x.transpose(1, 2) for x in (query, key, value))
        return inner(module, *heads_first, attention_mask, **options)[0]

    return exchange(local, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)), None
