"""One rule, four masks: dense, added, by blocks, a branch at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

from mapl_ray.batches import EncodedGroup, build_tree, collate
from mapl_ray.models.branch_attention import Branch, branch_attention, branch_mask, branches_of
from mapl_ray.models.tree_attention import FLEX_BLOCK, block_mask, dense_mask
from mapl_ray.records import Sequence

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=6)


def test_branches_by_hand() -> None:
    # 5 6 7 (nodes 0 1 2), 8 9 (3 4) below node 0, and another tree 3 4 (5 6)
    assert branches_of(np.array([5, 3, 3, 5, 5, 7, 7])) == [
        Branch(0, 1, ()),
        Branch(1, 3, (0,)),
        Branch(3, 5, (0,)),
        Branch(5, 7, ()),
    ]


def test_window_is_along_the_branch() -> None:
    """5 6 7, and 8 below 5: a window of 2 tokens lets node 3 (8, position 1) see 5, three places before it."""
    end, positions = torch.tensor([[4, 3, 3, 4]]), torch.tensor([[0, 1, 2, 1]])
    seen = dense_mask(end, positions, window=2)[0, 0].int().tolist()
    assert seen == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]]


@settings(max_examples=30, deadline=None)
@given(st.lists(SEQUENCES, min_size=1, max_size=3), st.sampled_from([None, 1, 3, 100]))
def test_branches_attend_as_the_dense_mask_says(forest: list[list[list[int]]], window: int | None) -> None:
    trees = [build_tree(sequences) for sequences in forest]
    offsets = np.cumsum([0, *(len(tree.token_ids) for tree in trees)])[:-1].tolist()
    end = torch.tensor([[offset + e for offset, tree in zip(offsets, trees, strict=True) for e in tree.subtree_end]])
    positions = torch.tensor([[depth for tree in trees for depth in tree.depths]])
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, end.shape[1], 4, requires_grad=True) for _ in range(3))
    expected = scaled_dot_product_attention(query, key, value, dense_mask(end, positions, window)).transpose(1, 2)
    given_, _ = branch_attention(torch.nn.Module(), query, key, value, branch_mask(end, window))
    torch.testing.assert_close(given_, expected, rtol=0, atol=1e-5)
    weights = torch.randn(expected.shape)
    a, b = (torch.autograd.grad((out * weights).sum(), (query, key, value)) for out in (expected, given_))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("window", [None, 40, 200])
@pytest.mark.parametrize("row_tokens", [None, 10**6])
def test_blocks_are_those_of_the_rule(row_tokens: int | None, window: int | None) -> None:
    """Block lists made from subtree ends, against torch's own from the whole mask."""
    cells = tuple(Sequence(0, answer, ()) for answer in (0, 1))
    lengths = [(300, 500), (5, 400), (700, 20), (1, 1)]
    groups = [
        EncodedGroup(
            "g", (tuple(range(prompt)),), (tuple(range(1000, 1000 + n)), tuple(range(2000, 2000 + n))), cells, ()
        )
        for prompt, n in lengths
    ]
    batch = collate(groups, "tree", 0, FLEX_BLOCK, row_tokens)
    assert batch.subtree_end is not None
    rows, width = batch.input_ids.shape
    made = block_mask(batch.subtree_end, batch.position_ids, window)
    wanted = create_block_mask(made.mask_mod, rows, None, width, width, device="cpu", BLOCK_SIZE=FLEX_BLOCK)
    seen = torch.vmap(
        lambda b: made.mask_mod(b, torch.tensor(0), *torch.meshgrid(*[torch.arange(width)] * 2, indexing="ij"))
    )(torch.arange(rows))
    assert torch.equal(seen[:, None], dense_mask(batch.subtree_end, batch.position_ids, window))
    needed, needed_wanted = (mask.to_dense() != 0 for mask in (made, wanted))
    whole, whole_wanted = (full_blocks(mask) for mask in (made, wanted))
    assert whole_wanted.any() or window is not None
    assert torch.equal(whole, whole_wanted)
    # A window leaves out blocks that are too far away; they are looked at here and found empty.
    assert torch.equal(needed, needed_wanted) if window is None else (needed | ~needed_wanted).all()


def full_blocks(mask: object) -> torch.Tensor:
    counts, indices = mask.full_kv_num_blocks, mask.full_kv_indices  # type: ignore[attr-defined]
    blocks = torch.zeros(indices.shape, dtype=torch.bool)
    used = torch.arange(indices.shape[-1]) < counts[..., None]
    return blocks.scatter(-1, indices.long(), used)
