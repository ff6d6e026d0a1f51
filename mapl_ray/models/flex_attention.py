"""Tree attention with FlexAttention: one kernel per layer, compiled once for all widths, which skips unseen blocks.

transformers has its own FlexAttention integration. After eight compiled variants it falls back to unfused attention
with T by T scores, and it does not use that T is a multiple of the block size. This one raises instead of falling back,
compiles once for all widths, and needs no bounds checks. Rows are concatenated before the call, so that the number of
rows does not lead to new variants. Dimensions: B rows, T tokens per row, N blocks of all rows.
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
FLEX_BLOCK = 128  # FlexAttention's default block size
BACKEND = "inductor"
VARIANTS = 32  # limit of compiled variants (gradient or none, windows, soft caps, head sizes); a model needs up to 4
_FEWEST_BLOCKS = 2  # torch compiles a separate variant for a size of 1
Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _tree_flex(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: BlockMask, scale: float, soft_cap: float | None
) -> torch.Tensor:
    # The compiler can't infer this for a dynamic width. With it, kernels need no bounds checks.
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
        kernel_options={"ROWS_GUARANTEED_SAFE": True},  # every token sees at least itself, as padding is a tree too
    )
    assert isinstance(outputs, torch.Tensor)  # without `return_aux`
    return outputs


@lru_cache
def _compiled(backend: str) -> Callable[..., torch.Tensor]:
    """Compile for all widths. Raises if that is not possible; never falls back to unfused attention. Called on first
    use, as importing the compiler takes seconds."""
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

    Masks that are not from `block_mask` (those of padded rows) are passed to `sdpa`.
    Raises `ValueError` for dropout or attention sinks, which FlexAttention does not support, and `RunError` if a model
    needs more than `VARIANTS` compiled variants.
    """
    if not isinstance(attention_mask, BlockMask):
        if softcap is not None:
            raise ValueError("sdpa does not support a soft cap: padded rows of this model need attention `eager`")
        outputs: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return outputs
    if options.get("dropout", 0.0) > 0.0 or options.get("s_aux") is not None:
        raise ValueError("FlexAttention supports neither attention dropout nor attention sinks")
    rows, _, width, size = query.shape
    missing = attention_mask.shape[-1] - rows * width
    query, key, value = (pad(_one_row(x), (0, 0, 0, missing)) if missing else _one_row(x) for x in (query, key, value))
    for x in (query, key, value):
        torch._dynamo.mark_static(x, [0, 1, 3])  # else equal numbers of blocks and heads would add a variant
    scale = size**-0.5 if scaling is None else scaling
    try:
        # Scale and soft cap are compiled into the kernel as constants.
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
    """FlexAttention mask of concatenated rows [B, T]. T must be a multiple of `FLEX_BLOCK`.

    The minimal and maximal subtree ends of each key block determine which blocks are needed and which are fully
    visible, so no T by T mask is built. A query block sees a block of earlier keys iff the maximal end is greater than
    the index of its first query, and sees all of it iff the minimal end is greater than the index of its last query.
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
    """Concatenate subtree ends and positions of all rows. A single block gets a second one of padding, as its own
    tree."""
    rows, width = subtree_end.shape
    offsets = torch.arange(rows, device=subtree_end.device)[:, None] * width
    # Copies, because the compiler would add variants for views of tensors with other shapes.
    end, positions = (subtree_end + offsets).flatten().clone(), position_ids.flatten().clone()
    if (missing := _FEWEST_BLOCKS * FLEX_BLOCK - len(end)) > 0:
        end, positions = pad(end, (0, missing), value=len(end) + missing), pad(positions, (0, missing))
    return end, positions


def _rule(end: torch.Tensor, positions: torch.Tensor, window: int | None) -> Rule:
    def sees(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < end[k])

    if window is None:
        return sees
    near = torch.full((), window, device=end.device)  # a tensor, so that the window's size does not add a variant

    def sees_near(b: torch.Tensor, h: torch.Tensor, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        return (k <= q) & (q < end[k]) & (positions[q] - positions[k] < near)

    return sees_near


def _listed(blocks_NN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Count and indices of the True blocks in each row of blocks, in FlexAttention's format: int32, [1, 1, N(, N)]."""
    order = torch.argsort(blocks_NN.int(), dim=1, descending=True, stable=True)
    return blocks_NN.sum(1, dtype=torch.int32)[None, None].contiguous(), order.int()[None, None].contiguous()


AttentionInterface.register(FLEX, tree_flex_attention)
AttentionMaskInterface.register(FLEX, sdpa_mask)
