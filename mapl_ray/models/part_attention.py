"""Tree attention by parts of trees: exact, on any device, with `sdpa` kernels.

Attention runs once for every part of a row (`mapl_ray.models.tree_parts`); all other layers run on the whole row.
`tree_parts` splits a row by cost, which is fastest on a CPU. `tree_branches` splits at every branching, which computes
the fewest scores. Both are attention implementations of transformers. Their mask has two numbers per token, not one per
pair of tokens: int64 [B, 1, 2, T], the token's subtree end and the window. Any other mask is passed to `sdpa`.
Dimensions: B rows, T tokens, L tokens of a part, K keys of a part.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mapl_ray.models.tree_parts import CALL_COST, IntArray, TreePart, parts_of, seen_within

PARTS = "tree_parts"
BRANCHES = "tree_branches"
_NO_WINDOW = 2**62


class Call(NamedTuple):
    """One attention call: a part, and its additive mask [1, 1, L, K] or None for the causal kernel."""

    part: TreePart
    mask: torch.Tensor | None


def subtree_mask(subtree_end: torch.Tensor, window: int | None) -> torch.Tensor:
    """Build the mask of these implementations: int64 [B, 1, 2, T]."""
    windows = torch.full_like(subtree_end, _NO_WINDOW if window is None else window)
    return torch.stack([subtree_end, windows], dim=1)[:, None]


def part_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    call_cost: int = CALL_COST,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: [B, heads, T, size] each -> [B, T, heads, size]."""
    if attention_mask is None or attention_mask.dtype != torch.int64:
        outputs: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return outputs
    rows = []
    for row, numbers in enumerate(_on_host(attention_mask)):
        one = slice(row, row + 1)
        calls = _calls(numbers, query.dtype, query.device, call_cost)
        rows.append(_row(module, query[one], key[one], value[one], calls, options))
    return (rows[0] if len(rows) == 1 else torch.cat(rows)), None


def subtree_ends_of(mask: torch.Tensor) -> list[tuple[IntArray, int | None]]:
    """Inverse of `subtree_mask`: subtree ends [T] and window of each row. A mask is copied to the CPU once, for all
    layers of a forward pass."""
    return [_unpacked(numbers) for numbers in _on_host(mask)]


_ON_HOST = WeakTensorKeyDictionary()


def _on_host(mask: torch.Tensor) -> list[bytes]:
    if mask not in _ON_HOST:
        _ON_HOST[mask] = [row.tobytes() for row in mask[:, 0].cpu().numpy()]
    found: list[bytes] = _ON_HOST[mask]
    return found


def _unpacked(numbers: bytes) -> tuple[IntArray, int | None]:
    subtree_end, windows = np.frombuffer(numbers, dtype=np.int64).reshape(2, -1)
    return subtree_end, None if windows[0] == _NO_WINDOW else int(windows[0])


@lru_cache(maxsize=16)  # rows of a micro-batch times kinds of layers
def _calls(numbers: bytes, dtype: torch.dtype, device: torch.device, call_cost: int) -> list[Call]:
    subtree_end, window = _unpacked(numbers)
    calls = []
    for part in parts_of(subtree_end, call_cost):
        if part.causal and (window is None or part.before + part.length <= window):
            calls.append(Call(part, None))
            continue
        seen = torch.from_numpy(seen_within(part, subtree_end, window)).to(device)
        mask = torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, float("-inf"))
        calls.append(Call(part, mask[None, None]))
    return calls


def _row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    calls: list[Call],
    options: dict[str, Any],
) -> torch.Tensor:
    lengths = [part.length for part, _ in calls]
    # Split once: the backward pass of a split is one copy, but that of a slice is a sum of the row's size per slice.
    queries, keys, values = (torch.split(x, lengths, dim=2) for x in (query, key, value))
    outputs = []
    for number, (part, mask) in enumerate(calls):
        path = [*part.above, number]
        query_L = _joined(queries, path if mask is None else [number])
        out, _ = sdpa_attention_forward(module, query_L, _joined(keys, path), _joined(values, path), mask, **options)
        outputs.append(out[:, part.before :] if mask is None else out)
    return torch.cat(outputs, dim=1)


def _joined(parts: tuple[torch.Tensor, ...], path: list[int]) -> torch.Tensor:
    return parts[path[0]] if len(path) == 1 else torch.cat([parts[i] for i in path], dim=2)


AttentionInterface.register(PARTS, part_attention)
AttentionInterface.register(BRANCHES, partial(part_attention, call_cost=0))
for _name in (PARTS, BRANCHES):
    AttentionMaskInterface.register(_name, sdpa_mask)
