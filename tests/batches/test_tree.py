"""Prefix trees: order, positions, who sees whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapl_ray.batches import build_tree

SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=8), min_size=1, max_size=8)


def test_a_tree_by_hand() -> None:
    # 5 6 7      nodes 0 1 2     (depth-first, branches in sorted order)
    #   8 9      nodes 3 4       below node 0
    tree = build_tree([[5, 8, 9], [5, 6, 7]])
    assert tree.token_ids.tolist() == [5, 6, 7, 8, 9]
    assert tree.depths.tolist() == [0, 1, 2, 1, 2]
    assert tree.subtree_end.tolist() == [5, 3, 3, 5, 5]
    assert [path.tolist() for path in tree.paths] == [[0, 3, 4], [0, 1, 2]]


def test_empty_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        build_tree([[1], []])


@given(SEQUENCES)
def test_paths_spell_their_sequences_and_see_exactly_their_prefix(sequences: list[list[int]]) -> None:
    tree = build_tree(sequences)
    for sequence, path in zip(sequences, tree.paths, strict=True):
        assert [tree.token_ids[node] for node in path] == sequence
        assert [tree.depths[node] for node in path] == list(range(len(sequence)))
        last = path[-1]
        seen = [node for node in range(len(tree.token_ids)) if node <= last < tree.subtree_end[node]]
        assert seen == path.tolist()


@given(SEQUENCES)
def test_every_prefix_appears_once(sequences: list[list[int]]) -> None:
    prefixes = {tuple(s[: n + 1]) for s in sequences for n in range(len(s))}
    assert len(build_tree(sequences).token_ids) == len(prefixes)
