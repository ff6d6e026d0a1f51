"""Tree attention a branch at a time: exact, and without a mask as large as the row is long, squared.

A row of trees falls into branches: runs of tokens each of which is the only child of the one before. A branch's queries
see the branches above it and, causally, themselves. So every layer but attention runs over the row as it is, and
attention over one path at a time, with the causal kernel that skips half of the work wherever that is the cheaper way.

Registered as an attention implementation of transformers, it stands in for `sdpa` where there is no FlexAttention.
What goes in where a mask would is two numbers a token instead of one a pair of tokens: [B, 1, 2, T], int64, the end of
its subtree and the window. Other masks go to `sdpa` as they are. Dimensions: B rows, T tokens, L tokens of a branch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BRANCHES = "tree_branches"
NO_WINDOW = 2**62


class Branch(NamedTuple):
    """Tokens `start .. end-1` of a row, and the branches above them, from the root on."""

    start: int
    end: int
    above: tuple[int, ...]


def branches_of(subtree_end: npt.NDArray[np.int64]) -> list[Branch]:
    """The branches of one row [T], in its order.

    A token's subtree ends where that of the token before ends if and only if it is the only child of that token.
    """
    starts = [0, *(np.flatnonzero(np.diff(subtree_end)) + 1).tolist(), len(subtree_end)]
    branches: list[Branch] = []
    above: list[int] = []
    for number, (start, end) in enumerate(pairwise(starts)):
        while above and subtree_end[branches[above[-1]].start] <= start:
            above.pop()
        branches.append(Branch(start, end, tuple(above)))
        above.append(number)
    return branches


def branch_mask(subtree_end: torch.Tensor, window: int | None) -> torch.Tensor:
    """What `branch_attention` takes for a mask: int64 [B, 1, 2, T]."""
    windows = torch.full_like(subtree_end, NO_WINDOW if window is None else window)
    return torch.stack([subtree_end, windows], dim=1)[:, None]


def branch_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: [B, heads, T, size] each -> [B, T, heads, size]."""
    if attention_mask is None or attention_mask.dtype != torch.int64:
        outputs: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **options
        )
        return outputs
    rows = []
    for row, (subtree_end, windows) in enumerate(attention_mask[:, 0].cpu().numpy()):
        one = slice(row, row + 1)
        branches, window = branches_of(subtree_end), int(windows[0])
        rows.append(_row(module, query[one], key[one], value[one], branches, window, options))
    return (rows[0] if len(rows) == 1 else torch.cat(rows)), None


def _row(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    branches: list[Branch],
    window: int,
    options: dict[str, Any],
) -> torch.Tensor:
    lengths = [branch.end - branch.start for branch in branches]
    # Split once: the backward pass of a split is one copy, that of many slices a row-sized sum each.
    queries, keys, values = (torch.split(x, lengths, dim=2) for x in (query, key, value))
    outputs = []
    for number, branch in enumerate(branches):
        path = [*branch.above, number]
        before, length = sum(lengths[i] for i in branch.above), lengths[number]
        key_P, value_P = _joined(keys, path), _joined(values, path)
        if before < length and before + length <= window:
            # The causal kernel does half of (before + length)^2, a mask length * (before + length).
            out, _ = sdpa_attention_forward(module, _joined(queries, path), key_P, value_P, None, **options)
            out = out[:, before:]
        else:
            mask = _path_mask(before, length, window, query.device)
            out, _ = sdpa_attention_forward(module, queries[number], key_P, value_P, mask, **options)
        outputs.append(out)
    return torch.cat(outputs, dim=1)


def _joined(parts: tuple[torch.Tensor, ...], path: list[int]) -> torch.Tensor:
    return parts[path[0]] if len(path) == 1 else torch.cat([parts[i] for i in path], dim=2)


def _path_mask(before: int, length: int, window: int, device: torch.device) -> torch.Tensor:
    """Boolean [1, 1, L, before + L]: causal, and no further back than the window."""
    query = torch.arange(before, before + length, device=device)[:, None]
    distance = query - torch.arange(before + length, device=device)[None, :]
    return ((distance >= 0) & (distance < window))[None, None]


AttentionInterface.register(BRANCHES, branch_attention)
AttentionMaskInterface.register(BRANCHES, sdpa_mask)
