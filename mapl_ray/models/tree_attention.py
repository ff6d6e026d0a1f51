"""Tree attention through transformers' own interface: a ready mask goes in where a padding mask would.

transformers hands a four-dimensional mask on as it is: a dense boolean one to SDPA, a `BlockMask` to FlexAttention,
which skips the blocks that no branch needs. Dimensions: B rows, T tokens.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from mapl_ray.batches import Batch
from mapl_ray.errors import UserError

FLEX_BLOCK = 128  # FlexAttention's block; rows padded to it never need another kernel


def attention_implementation(device_type: str) -> str:
    """What to load models with: FlexAttention has no backward pass on a CPU."""
    return "flex_attention" if device_type == "cuda" else "sdpa"


def attention_mask_of(batch: Batch, implementation: str) -> torch.Tensor | BlockMask | None:
    """The mask for a model loaded with `implementation`: [B, T] for padded rows, four-dimensional for trees."""
    if batch.subtree_end is None:
        return batch.attention_mask
    if implementation == "flex_attention":
        return _block_mask(batch.subtree_end)
    return dense_mask(batch.subtree_end)


def dense_mask(subtree_end: torch.Tensor) -> torch.Tensor:
    """Boolean [B, 1, T, T]: token q sees token k iff k <= q < subtree_end[k]."""
    positions_T = torch.arange(subtree_end.shape[1], device=subtree_end.device)
    query, key = positions_T[:, None], positions_T[None, :]
    return ((key <= query) & (query < subtree_end[:, None, :]))[:, None]


def _block_mask(subtree_end: torch.Tensor) -> BlockMask:
    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < subtree_end[b, k])

    rows, width = subtree_end.shape
    return create_block_mask(sees, rows, None, width, width, device=str(subtree_end.device), BLOCK_SIZE=FLEX_BLOCK)


def check_tree_support(model: Any, max_sequence_tokens: int) -> None:
    """Refuse models for which one row of a prefix tree is not the same as its sequences one by one.

    That holds where a token's place enters through `position_ids` and what it sees through the mask alone; not for
    recurrent layers, nor where a layer cuts a window of its own. Raises `UserError` with the cure.
    """
    config = model.config.get_text_config()
    cure = f"Set train.batching=padded for {config.model_type}."
    if getattr(model, "_is_stateful", False):
        raise UserError(
            f"{config.model_type}: recurrent layers carry state along a row, so it can't hold a tree. {cure}"
        )
    takes_positions = "position_ids" in inspect.signature(model.base_model.forward).parameters
    if not (getattr(model, "_supports_sdpa", False) and takes_positions):
        raise UserError(f"{config.model_type}: takes no attention mask and position_ids of its own. {cure}")
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds - {"full_attention", "sliding_attention"}:
        raise UserError(f"{config.model_type}: layers of kind {sorted(kinds)} can't take a tree mask. {cure}")
    if window is not None and window < max_sequence_tokens:
        raise UserError(
            f"{config.model_type}: a sliding window of {window} tokens is below "
            f"train.max_sequence_tokens={max_sequence_tokens}. {cure}"
        )
