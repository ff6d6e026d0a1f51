"""Sequence parallelism by DeepSpeed Ulysses (Jacobs et al. 2023): ranks share the tokens of a row.

Every layer runs on a rank's own T / N tokens of each row, but attention: there two all-to-alls give every rank all T
tokens of heads / N heads, and back. So the tree's mask, which needs the whole row, is that of one rank. What a rank's
tokens give (log-probabilities, rewards) is summed over the ranks at the end, and the loss is the same on all of them.

Dimensions: B rows, T tokens of a row, N ranks that share it.
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
# Attention of [B, T / N, heads, size] each, by a local one of [B, T, heads / N, size] each; same shapes come back.
Exchange = Callable[[Local, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class SequenceGroup:
    """The ranks that share a batch."""

    group: dist.ProcessGroup
    exchange: Exchange

    @property
    def size(self) -> int:
        """N."""
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """This process's place among them."""
        return dist.get_rank(self.group)

    def total(self, part: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, the same to the bit on all of them.

        Gradients go to the rank's own part: the loss that follows is one loss, which every rank has, not one per rank.
        """
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.detach().contiguous(), group=self.group)
        parts[self.rank] = part
        return torch.stack(parts).sum(0)


def share_sequences(model: Any, group: SequenceGroup) -> None:
    """Give a model that is ready for trees (`prepare_for_trees`) attention over the group's tokens.

    Raises `UserError` for a model whose heads can't be divided, or that must see whole rows elsewhere.
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
    """The attention that a rank computes: the model's own, also where its tokens come from several ranks."""
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
    """transformers' attention interface: [B, heads, T / N, size] each -> [B, T / N, heads, size]; the mask is of T."""

    def local(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        heads_first = (x.transpose(1, 2) for x in (query, key, value))
        return inner(module, *heads_first, attention_mask, **options)[0]

    return exchange(local, query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)), None
