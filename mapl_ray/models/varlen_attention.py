"""Tree attention with FlashAttention's variable-length kernel: one call per layer, without a compiler.

Each branch of a row is a sequence of queries, and its keys are the tokens of its whole path. With fewer queries than
keys, the kernel aligns its causal mask at the last query and the last key, which is what a branch needs. Keys and
values are gathered by one index, so they take two to three times their memory. For CUDA and bfloat16, without a soft
cap. Uses the mask of `part_attention.subtree_mask`. Dimensions: B rows, T tokens, K keys of all paths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mapl_ray.models.part_attention import subtree_ends_of
from mapl_ray.models.tree_parts import IntArray, branches_of

VARLEN = "tree_varlen"


class VarlenIndex(NamedTuple):
    """Index arguments of the kernel, for the concatenation of all rows."""

    key_K: IntArray  # flat index of each key's token
    query_starts: IntArray  # [branches + 1], cumulative
    key_starts: IntArray  # [branches + 1], cumulative

    @property
    def longest(self) -> tuple[int, int]:
        """Largest number of queries and of keys of a branch."""
        return int(np.diff(self.query_starts).max()), int(np.diff(self.key_starts).max())


def varlen_index(subtree_ends: list[IntArray]) -> VarlenIndex:
    """Build the index from the subtree ends of each row, [T] each."""
    keys, query_lengths, key_lengths, offset = [], [0], [0], 0
    for subtree_end in subtree_ends:
        branches = branches_of(subtree_end)
        spans = [np.arange(offset + branch.start, offset + branch.end) for branch in branches]
        for number, branch in enumerate(branches):
            keys += [spans[i] for i in (*branch.above, number)]
            query_lengths.append(branch.length)
            key_lengths.append(branch.before + branch.length)
        offset += len(subtree_end)
    return VarlenIndex(np.concatenate(keys), np.cumsum(query_lengths), np.cumsum(key_lengths))


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: [B, heads, T, size] each -> [B, T, heads, size]."""
    if attention_mask is None or attention_mask.dtype != torch.int64:
        outputs: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return outputs
    from torch.nn.attention.varlen import varlen_attn  # imports the compiler, which is not needed on CPUs

    key_K, query_starts, key_starts, longest, window = _on_device(attention_mask)
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)]  # [B * T, heads, size]
    out = varlen_attn(
        flat[0],
        flat[1][key_K],
        flat[2][key_K],
        query_starts,
        key_starts,
        *longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(out, torch.Tensor)  # without `return_aux`
    return out.reshape(query.shape[0], query.shape[2], *out.shape[1:]), None


class _OnDevice(NamedTuple):
    key_K: torch.Tensor
    query_starts: torch.Tensor
    key_starts: torch.Tensor
    longest: tuple[int, int]
    window: int | None


_MADE = WeakTensorKeyDictionary()  # cache by mask, which all layers of a forward pass share


def _on_device(mask: torch.Tensor) -> _OnDevice:
    if mask not in _MADE:
        rows = subtree_ends_of(mask)
        index = varlen_index([subtree_end for subtree_end, _ in rows])
        _MADE[mask] = _OnDevice(
            torch.from_numpy(index.key_K).to(mask.device),
            torch.from_numpy(index.query_starts.astype(np.int32)).to(mask.device),
            torch.from_numpy(index.key_starts.astype(np.int32)).to(mask.device),
            index.longest,
            window=rows[0][1],
        )
    found: _OnDevice = _MADE[mask]
    return found


AttentionInterface.register(VARLEN, varlen_attention)
AttentionMaskInterface.register(VARLEN, sdpa_mask)
