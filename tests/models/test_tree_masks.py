"""One rule, five forms: dense, added to scores, by blocks, a part of a tree at a time, branches against paths."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

from mapl_ray.batches import EncodedGroup, build_tree, collate
from mapl_ray.data.records import Sequence
from mapl_ray.models.flex_attention import FLEX_BLOCK, block_mask
from mapl_ray.models.part_attention import part_attention, subtree_mask
from mapl_ray.models.tree_attention import dense_mask
from mapl_ray.models.tree_parts import TreePart, branches_of, parts_of
from mapl_ray.models.varlen_attention import varlen_index

Forest = list[list[list[int]]]
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=6)
FORESTS = st.lists(SEQUENCES, min_size=1, max_size=3)
WINDOWS = st.sampled_from([None, 1, 3, 100])


def row_of(forest: Forest) -> tuple[torch.Tensor, torch.Tensor]:
    """Ends of subtrees and positions of trees in one row, [1, T] each."""
    trees = [build_tree(sequences) for sequences in forest]
    offsets = np.cumsum([0, *(len(tree.token_ids) for tree in trees)])[:-1].tolist()
    end = [offset + e for offset, tree in zip(offsets, trees, strict=True) for e in tree.subtree_end]
    return torch.tensor([end]), torch.tensor([[depth for tree in trees for depth in tree.depths]])


def test_branches_by_hand() -> None:
    # 5 6 7 (nodes 0 1 2), 8 9 (3 4) below node 0, and another tree 3 4 (5 6)
    assert branches_of(np.array([5, 3, 3, 5, 5, 7, 7])) == [
        TreePart(0, 1, (), 0, True),
        TreePart(1, 3, (0,), 1, True),
        TreePart(3, 5, (0,), 1, True),
        TreePart(5, 7, (), 0, True),
    ]


def test_a_subtree_is_one_part_where_its_calls_cost_more_than_its_scores() -> None:
    """The tree above: its branches cost 1 + 6 + 6 scores in three calls, as one part 5 * 5 in one.

    Below the root the causal kernel over 3 tokens, 3 * 4 / 2 scores, is as cheap as a mask of 2 * 3.
    """
    end = np.array([5, 3, 3, 5, 5, 7, 7])
    assert parts_of(end, call_cost=5) == branches_of(end)  # 13 + 3*5 < 25 + 5
    assert parts_of(end, call_cost=7) == [
        TreePart(0, 5, (), 0, False),
        TreePart(5, 7, (), 0, True),
    ]  # 13 + 3*7 > 25 + 7


def test_window_is_along_the_branch() -> None:
    """5 6 7, and 8 below 5: a window of 2 tokens lets node 3 (8, position 1) see 5, three places before it."""
    end, positions = torch.tensor([[4, 3, 3, 4]]), torch.tensor([[0, 1, 2, 1]])
    seen = dense_mask(end, positions, window=2)[0, 0].int().tolist()
    assert seen == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]]


@settings(max_examples=30, deadline=None)
@given(FORESTS, WINDOWS, st.sampled_from([0, 10, 40, 1000]))
def test_parts_attend_as_the_dense_mask_says(forest: Forest, window: int | None, call_cost: int) -> None:
    end, positions = row_of(forest)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, end.shape[1], 4, requires_grad=True) for _ in range(3))
    expected = scaled_dot_product_attention(query, key, value, dense_mask(end, positions, window)).transpose(1, 2)
    given_, _ = part_attention(torch.nn.Module(), query, key, value, subtree_mask(end, window), call_cost)
    torch.testing.assert_close(given_, expected, rtol=0, atol=1e-5)
    weights = torch.randn(expected.shape)
    a, b = (torch.autograd.grad((out * weights).sum(), (query, key, value)) for out in (expected, given_))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(FORESTS, FORESTS, WINDOWS)
def test_varlen_index_says_what_the_dense_mask_says(forest: Forest, other: Forest, window: int | None) -> None:
    """Two rows, a loop in place of the kernel: causal from the last query and key of a branch backwards."""
    rows = [row_of(forest), row_of(other)]
    width = max(end.shape[1] for end, _ in rows)
    # Padding is one more tree, a chain to the row's end.
    ends = [torch.cat([end[0], torch.full((width - end.shape[1],), width)]) for end, _ in rows]
    chains = [torch.cat([positions[0], torch.arange(width - positions.shape[1])]) for _, positions in rows]
    expected = dense_mask(torch.stack(ends), torch.stack(chains), window)[:, 0]
    index = varlen_index([end.numpy() for end in ends])
    seen = torch.zeros(2 * width, 2 * width, dtype=torch.bool)
    starts = zip(index.query_starts, index.query_starts[1:], index.key_starts, index.key_starts[1:], strict=False)
    for query, query_end, key, key_end in starts:
        for back in range(query_end - query):  # from the last query, which sees the last key
            first = key if window is None else max(key, key_end - back - window)
            seen[query_end - 1 - back, index.key_K[first : key_end - back]] = True
    assert torch.equal(seen, torch.block_diag(*expected.int()).bool())
    assert index.longest == (np.diff(index.query_starts).max(), np.diff(index.key_starts).max())


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
    width = batch.input_ids.numel()
    made = block_mask(batch.subtree_end, batch.position_ids, window)
    wanted = create_block_mask(made.mask_mod, 1, None, width, width, device="cpu", BLOCK_SIZE=FLEX_BLOCK)
    places = torch.meshgrid(*[torch.arange(width)] * 2, indexing="ij")
    seen = made.mask_mod(torch.tensor(0), torch.tensor(0), *places)
    dense = dense_mask(batch.subtree_end, batch.position_ids, window)[:, 0]
    assert torch.equal(seen, torch.block_diag(*dense.int()).bool())  # rows end to end
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
