"""Tree attention through transformers' attention interface, with custom masks in place of the padding mask.

transformers passes a four-dimensional mask on unchanged, so each implementation has its own form of the same rule:
token q sees token k iff k <= q < subtree_end[k] and, in a layer with a sliding window, position q - position k <
window. So a window counts along a sequence, independent of where its tokens are in the row.

| `train.attention` | implementation | for |
|---|---|---|
| `flex` | `tree_flex`: FlexAttention, skips blocks that no branch needs | CUDA; `auto` there |
| `varlen` | `tree_varlen`: FlashAttention, each branch with its path as keys | CUDA, bfloat16, no soft cap |
| `dense` | `sdpa` (`eager` with a soft cap): a T by T mask | short rows, any device |
| `branches` | `tree_branches`: one `sdpa` call per branch | any device, no soft cap |
| | `tree_parts`: `sdpa` calls per part, split for lowest cost | CPUs; `auto` there |

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
    """Attention implementation for padded rows: `sdpa`, or `eager` for models with a soft cap (Gemma 2)."""
    return "eager" if _soft_cap(config) is not None else "sdpa"


def tree_attention(attention: Attention, device_type: str, config: Any) -> str:
    """Attention implementation for a value of `train.attention` on a device ("cpu", "cuda").

    Raises `UserError` if the device or the model does not support it.
    """
    if attention == "dense" or (attention == "auto" and device_type != "cuda" and _soft_cap(config) is not None):
        return plain_attention(config)
    if attention == "auto":
        return FLEX if device_type == "cuda" else PARTS
    if attention in ("flex", "varlen") and device_type != "cuda":
        raise UserError(f"train.attention={attention} needs a CUDA GPU, but training runs on {device_type}. Use auto.")
    if attention != "flex" and _soft_cap(config) is not None:
        kind = config.get_text_config().model_type
        raise UserError(f"train.attention={attention}: no support for the soft cap of {kind}. Use auto or dense.")
    return {"flex": FLEX, "varlen": VARLEN, "branches": BRANCHES}[attention]


def attention_mask_of(batch: Batch, model: Any) -> Mask | dict[str, Mask] | None:
    """Build the model's mask: [B, T] for padded rows; four-dimensional for trees, one per kind of layer if needed."""
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
    """Default of `row_tokens` in `collate`: unlimited (one row without padding), or None for dense masks."""
    return None if local_attention(model) in ("sdpa", "eager") else sys.maxsize


def row_multiple(model: Any) -> int:
    """Value of `pad_to_multiple_of` in `collate`."""
    return FLEX_BLOCK if local_attention(model) == FLEX else 1


def layer_kinds(config: Any) -> set[str]:
    """Kinds of attention layers: `full_attention`, `sliding_attention`, or other kinds that transformers defines."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return set(kinds)
    return {"full_attention"} if getattr(config, "sliding_window", None) is None else {"sliding_attention"}


def window_of(config: Any) -> int | None:
    """Number of tokens in the sliding window, including the token itself; None if no layer has a window."""
    window: int | None = getattr(config, "sliding_window", None)
    return window if "sliding_attention" in layer_kinds(config) else None


def dense_mask(subtree_end: torch.Tensor, position_ids: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Build a dense mask, bool [B, 1, T, T]: True where query q (dimension 2) sees key k (dimension 3)."""
    places_T = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    query, key = places_T[:, None], places_T[None, :]
    seen = (key <= query) & (query < subtree_end[:, None, :])
    if window is not None:
        seen &= position_ids[:, :, None] - position_ids[:, None, :] < window
    return seen[:, None]


def _soft_cap(config: Any) -> float | None:
    cap: float | None = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return cap
