"""Tree attention by FlexAttention: one kernel a layer, compiled once for all widths, that skips blocks nobody sees.

transformers has a FlexAttention of its own. It falls back to unfused attention, with scores of T by T, after eight
compiled variants, and does not know that T is a multiple of the block. This one raises instead of falling back,
compiles for any width at once, and says that no block is cut off. Rows are laid end to end before the call, so one row
or several are the same variant. Dimensions: B rows, T tokens of a row, N blocks of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mapl_ray.errors import RunError

FLEX = "tree_flex"
FLEX_BLOCK = 128  # FlexAttention's own block
BACKEND = "inductor"
VARIANTS = 32  # compiled ones, over gradient or none, windows, soft caps and head sizes: a model has four or fewer
_FEWEST_BLOCKS = 2  # torch compiles a size of 1 apart from all others
Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _tree_flex(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: BlockMask, scale: float, soft_cap: float | None
) -> torch.Tensor:
    # What the compiler can't see of a width that is not fixed: no kernel needs a bounds check.
    check: Callable[[bool], None] = torch._check
    check(query.shape[2] % FLEX_BLOCK == 0)

    def capped(score: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        assert soft_cap is not None
        return soft_cap * torch.tanh(score / soft_cap)

    outputs = flex_attention(
        query,
        key,
        value,
        score_mod=None if soft_cap is None else capped,
        block_mask=mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        kernel_options={"ROWS_GUARANTEED_SAFE": True},  # padding is a tree too: every token sees one at least
    )
    assert isinstance(outputs, torch.Tensor)  # without `return_aux`
    return outputs


@lru_cache
def _compiled(backend: str) -> Callable[..., torch.Tensor]:
    """For every width at once; where that is not possible it raises, and never runs unfused. Made when it is first
    used: the compiler takes seconds to import."""
    return torch.compile(_tree_flex, backend=backend, dynamic=True, fullgraph=True)


def tree_flex_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | BlockMask | None,
    scaling: float | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: [B, heads, T, size] each -> [B, T, heads, size].

    Other masks than `block_mask` makes (those of padded rows) go to `sdpa`.
    Raises `ValueError` for dropout or attention sinks, which FlexAttention does not have, and `RunError` where a
    model needs more than `VARIANTS` compiled variants.
    """
    if not isinstance(attention_mask, BlockMask):
        if softcap is not None:
            raise ValueError("sdpa has no soft cap: padded rows of this model need attention `eager`")
        outputs: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return outputs
    if options.get("dropout", 0.0) > 0.0 or options.get("s_aux") is not None:
        raise ValueError("FlexAttention has neither attention dropout nor attention sinks")
    rows, _, width, size = query.shape
    missing = attention_mask.shape[-1] - rows * width
    query, key, value = (pad(_one_row(x), (0, 0, 0, missing)) if missing else _one_row(x) for x in (query, key, value))
    for x in (query, key, value):
        torch._dynamo.mark_static(x, [0, 1, 3])  # else a number of blocks that equals one of heads is a variant
    scale = size**-0.5 if scaling is None else scaling
    try:
        # Scale and soft cap are constants of a kernel, not inputs.
        with torch._dynamo.config.patch(recompile_limit=VARIANTS, specialize_float=True):
            out = _compiled(BACKEND)(query, key, value, attention_mask, scale, softcap)
    except torch._dynamo.exc.FailOnRecompileLimitHit as error:
        raise RunError(
            f"train.attention=flex: FlexAttention needs more than {VARIANTS} compiled variants for this model. "
            "Set train.attention=varlen or train.attention=branches."
        ) from error
    return out.transpose(1, 2)[:, : rows * width].reshape(rows, width, -1, size), None


def _one_row(x: torch.Tensor) -> torch.Tensor:
    """[B, heads, T, size] -> [1, heads, B * T, size]."""
    return x if x.shape[0] == 1 else x.transpose(0, 1).flatten(1, 2)[None]


def block_mask(subtree_end: torch.Tensor, position_ids: torch.Tensor, window: int | None = None) -> BlockMask:
    """Who sees whom, for FlexAttention, of rows [B, T] laid end to end; T must be a multiple of `FLEX_BLOCK`.

    Which blocks are needed, and which need no look at their tokens, follows from the least and the greatest subtree
    end of a block of keys, so no T by T mask is ever made: a block of queries sees one of earlier keys iff the
    greatest end is behind its first query, and wholly iff the least end is behind its last.
    """
    end, positions = _end_to_end(subtree_end, position_ids)
    device, blocks = end.device, len(end) // FLEX_BLOCK
    ends_NB, positions_NB = end.view(blocks, FLEX_BLOCK), positions.view(blocks, FLEX_BLOCK)
    first_N = torch.arange(0, len(end), FLEX_BLOCK, device=device)
    earlier = first_N[:, None] > first_N[None, :]
    whole = earlier & (ends_NB.amin(1)[None, :] >= (first_N + FLEX_BLOCK)[:, None])
    needed = earlier & (ends_NB.amax(1)[None, :] > first_N[:, None])
    if window is not None:
        whole &= positions_NB.amax(1)[:, None] - positions_NB.amin(1)[None, :] < window
    needed |= torch.eye(blocks, dtype=torch.bool, device=device)
    some_counts, some_blocks = _listed(needed & ~whole)
    whole_counts, whole_blocks = _listed(whole)
    return BlockMask.from_kv_blocks(
        some_counts, some_blocks, whole_counts, whole_blocks, FLEX_BLOCK, _rule(end, positions, window)
    )


def _end_to_end(subtree_end: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ends and positions of all rows as one row, with a block of padding, a tree of its own, where there is but one."""
    rows, width = subtree_end.shape
    offsets = torch.arange(rows, device=subtree_end.device)[:, None] * width
    # Copies: the compiler distinguishes views of tensors of other shapes.
    end, positions = (subtree_end + offsets).flatten().clone(), position_ids.flatten().clone()
    if (missing := _FEWEST_BLOCKS * FLEX_BLOCK - len(end)) > 0:
        end, positions = pad(end, (0, missing), value=len(end) + missing), pad(positions, (0, missing))
    return end, positions


def _rule(end: torch.Tensor, positions: torch.Tensor, window: int | None) -> Rule:
    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < end[k])

    if window is None:
        return sees
    near = torch.full((), window, device=end.device)  # a tensor: another number is not another variant

    def sees_near(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < end[k]) & (positions[q] - positions[k] < near)

    return sees_near


def _listed(blocks_NN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers and indices of the set blocks a row of blocks, as FlexAttention wants them: int32, [1, 1, N(, N)]."""
    order = torch.argsort(blocks_NN.int(), dim=1, descending=True, stable=True)
    return blocks_NN.sum(1, dtype=torch.int32)[None, None].contiguous(), order.int()[None, None].contiguous()


AttentionInterface.register(FLEX, tree_flex_attention)
AttentionMaskInterface.register(FLEX, sdpa_mask)
