"""Tree attention through transformers' own interface: a ready mask goes in where a padding mask would.

transformers hands a four-dimensional mask on as it is: a dense one to `sdpa` (boolean) and `eager` (added to scores), a
`BlockMask` to FlexAttention, which skips the blocks that no branch needs, and the short form of `branch_attention`.
One rule is behind all of them: token q sees token k iff k <= q < subtree_end[k], and, in a layer with a window,
position q - position k < window: what a window means along a sequence, wherever its tokens stand in the row.
Dimensions: B rows, T tokens, N blocks of a row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask

from mapl_ray.batches import Batch
from mapl_ray.models.branch_attention import BRANCHES, branch_mask

FLEX_BLOCK = 128  # FlexAttention's block; rows padded to it never need another kernel
Mask = torch.Tensor | BlockMask


def attention_implementation(device_type: str, config: Any) -> str:
    """What to load models with: FlexAttention has no backward pass on a CPU, and `sdpa` drops Gemma 2's soft cap."""
    if device_type == "cuda":
        return "flex_attention"
    return "eager" if getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None else "sdpa"


def attention_mask_of(batch: Batch, model: Any) -> Mask | dict[str, Mask] | None:
    """The mask for a model: [B, T] for padded rows; for trees four-dimensional, one a kind of layer if they differ."""
    if batch.subtree_end is None:
        return batch.attention_mask
    end, position_ids, implementation = batch.subtree_end, batch.position_ids, model.config._attn_implementation

    def mask(window: int | None) -> Mask:
        if implementation == BRANCHES:
            return branch_mask(end, window)
        if implementation == "flex_attention":
            return block_mask(end, position_ids, window)
        seen = dense_mask(end, position_ids, window)
        if implementation == "sdpa":
            return seen
        dtype = model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=end.device).masked_fill(~seen, torch.finfo(dtype).min)

    config = model.config.get_text_config()
    kinds, window = layer_kinds(config), window_of(config)
    if window is None or int(position_ids.max()) < window:
        return mask(None)
    if getattr(config, "layer_types", None) is None:
        return mask(window)
    return {kind: mask(window if kind == "sliding_attention" else None) for kind in kinds | {"full_attention"}}


def row_budget(model: Any) -> int | None:
    """What `collate` takes for `row_tokens` by default: one row, without padding, unless the mask is a dense one."""
    return None if model.config._attn_implementation in ("sdpa", "eager") else sys.maxsize


def layer_kinds(config: Any) -> set[str]:
    """`full_attention`, `sliding_attention`, or whatever else transformers names."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds)
    return {"full_attention"} if getattr(config, "sliding_window", None) is None else {"sliding_attention"}


def window_of(config: Any) -> int | None:
    """Tokens that a layer with a window sees, itself included; None where no layer has one."""
    window: int | None = getattr(config, "sliding_window", None)
    return window if "sliding_attention" in layer_kinds(config) else None


def dense_mask(subtree_end: torch.Tensor, position_ids: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Boolean [B, 1, T, T]: who sees whom."""
    places_T = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    query, key = places_T[:, None], places_T[None, :]
    seen = (key <= query) & (query < subtree_end[:, None, :])
    if window is not None:
        seen &= position_ids[:, :, None] - position_ids[:, None, :] < window
    return seen[:, None]


def block_mask(subtree_end: torch.Tensor, position_ids: torch.Tensor, window: int | None = None) -> BlockMask:
    """The same for FlexAttention; T must be a multiple of `FLEX_BLOCK`.

    Which blocks are needed, and which need no look at their tokens, follows from the least and the greatest subtree
    end of a block of keys, so no T by T mask is ever made: a block of queries sees one of earlier keys iff the
    greatest end is behind its first query, and wholly iff the least end is behind its last.
    """
    rows, width = subtree_end.shape
    ends_BN = subtree_end.view(rows, width // FLEX_BLOCK, FLEX_BLOCK)
    positions_BN = position_ids.view(rows, width // FLEX_BLOCK, FLEX_BLOCK)
    first_N = torch.arange(0, width, FLEX_BLOCK, device=subtree_end.device)
    earlier = first_N[:, None] > first_N[None, :]
    whole = earlier & (ends_BN.amin(2)[:, None, :] >= (first_N + FLEX_BLOCK)[:, None])
    needed = earlier & (ends_BN.amax(2)[:, None, :] > first_N[:, None])
    if window is not None:
        whole &= positions_BN.amax(2)[:, :, None] - positions_BN.amin(2)[:, None, :] < window
    needed |= torch.eye(len(first_N), dtype=torch.bool, device=subtree_end.device)
    partial_counts, partial = _listed(needed & ~whole)
    whole_counts, wholes = _listed(whole)
    return BlockMask.from_kv_blocks(
        partial_counts, partial, whole_counts, wholes, FLEX_BLOCK, _rule(subtree_end, position_ids, window)
    )


def _rule(
    subtree_end: torch.Tensor, position_ids: torch.Tensor, window: int | None
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    near = 0 if window is None else window

    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < subtree_end[b, k])

    def sees_near(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return sees(b, h, q, k) & (position_ids[b, q] - position_ids[b, k] < near)

    return sees if window is None else sees_near


def _listed(blocks_BNN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers and indices of the set blocks a row of blocks, as FlexAttention wants them: int32, [B, 1, N(, N)]."""
    order = torch.argsort(blocks_BNN.int(), dim=2, descending=True, stable=True)
    return blocks_BNN.sum(2, dtype=torch.int32)[:, None].contiguous(), order.int()[:, None].contiguous()
