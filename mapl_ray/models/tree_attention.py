"""Tree attention through transformers' own interface: a ready mask goes in where a padding mask would.

transformers hands a four-dimensional mask on as it is, so each way of attention takes its own form of one rule: token
q sees token k iff k <= q < subtree_end[k], and, in a layer with a window, position q - position k < window: what a
window means along a sequence, wherever its tokens stand in the row.

| `train.attention` | implementation | for |
|---|---|---|
| `flex` | `tree_flex`: FlexAttention, skips blocks that no branch needs | CUDA; `auto` there |
| `varlen` | `tree_varlen`: FlashAttention, branches against their paths | CUDA, bfloat16, no soft cap |
| `dense` | `sdpa` (`eager` with a soft cap): a mask of T by T | short rows, any device |
| `branches` | `tree_branches`: a call of `sdpa` a branch | any device, no soft cap |
| | `tree_parts`: as few calls of `sdpa` as are cheapest | CPUs; `auto` there |

Dimensions: B rows, T tokens.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask

from mapl_ray.batches import Batch
from mapl_ray.config import Attention
from mapl_ray.errors import UserError
from mapl_ray.models.flex_attention import FLEX, FLEX_BLOCK, block_mask
from mapl_ray.models.part_attention import BRANCHES, PARTS, subtree_mask
from mapl_ray.models.sequence_parallel import local_attention
from mapl_ray.models.varlen_attention import VARLEN

Mask = torch.Tensor | BlockMask


def plain_attention(config: Any) -> str:
    """What to load models with, for padded rows: `sdpa` drops Gemma 2's soft cap."""
    return "eager" if _soft_cap(config) is not None else "sdpa"


def tree_attention(attention: Attention, device_type: str, config: Any) -> str:
    """The implementation that `train.attention` names, for a device ("cpu", "cuda").

    Raises `UserError` where the device or the model can't have it.
    """
    if attention == "dense" or (attention == "auto" and device_type != "cuda" and _soft_cap(config) is not None):
        return plain_attention(config)
    if attention == "auto":
        return FLEX if device_type == "cuda" else PARTS
    if attention in ("flex", "varlen") and device_type != "cuda":
        raise UserError(f"train.attention={attention} needs a CUDA GPU, and training runs on {device_type}. Use auto.")
    if attention != "flex" and _soft_cap(config) is not None:
        kind = config.get_text_config().model_type
        raise UserError(f"train.attention={attention}: it has no soft cap, which {kind} needs. Use auto or dense.")
    return {"flex": FLEX, "varlen": VARLEN, "branches": BRANCHES}[attention]


def attention_mask_of(batch: Batch, model: Any) -> Mask | dict[str, Mask] | None:
    """The mask for a model: [B, T] for padded rows; four-dimensional for trees, one per kind of layer if needed."""
    if batch.subtree_end is None:
        return batch.attention_mask
    end, position_ids, implementation = batch.subtree_end, batch.position_ids, local_attention(model)

    def mask(window: int | None) -> Mask:
        if implementation in (PARTS, BRANCHES, VARLEN):
            return subtree_mask(end, window)
        if implementation == FLEX:
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
    return None if local_attention(model) in ("sdpa", "eager") else sys.maxsize


def row_multiple(model: Any) -> int:
    """What `collate` takes for `pad_to_multiple_of`."""
    return FLEX_BLOCK if local_attention(model) == FLEX else 1


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


def _soft_cap(config: Any) -> float | None:
    cap: float | None = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return cap
