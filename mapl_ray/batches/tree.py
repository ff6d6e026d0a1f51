"""The prefix tree of a group: every token of a shared prefix appears once.

Nodes stand in depth-first order, so the descendants of node k are exactly the nodes k+1 .. subtree_end[k]-1 and the
whole attention rule is one comparison: token q sees token k iff k <= q < subtree_end[k].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """A trie over token ids. All lists of nodes have length N and depth-first order."""

    token_ids: tuple[int, ...]
    depths: tuple[int, ...]  # position of the token in every sequence through it
    subtree_end: tuple[int, ...]  # index after the last descendant
    paths: tuple[tuple[int, ...], ...]  # one a sequence, in the caller's order: its nodes from the root on


def build_tree(sequences: Sequence[Sequence[int]]) -> PrefixTree:
    """Merge token sequences into a prefix tree. Several roots are fine (sequences without a common first token).

    Raises `ValueError` for an empty sequence.
    """
    if any(len(sequence) == 0 for sequence in sequences):
        raise ValueError("a sequence without tokens has no place in a prefix tree")
    token_ids: list[int] = []
    depths: list[int] = []
    subtree_end: list[int] = []
    paths: list[tuple[int, ...]] = [()] * len(sequences)
    path: list[int] = []
    previous: Sequence[int] = ()
    # In sorted order the longest prefix shared with any earlier sequence is the one shared with the last.
    for index in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        sequence = sequences[index]
        shared = _common_prefix(previous, sequence)
        for node in path[shared:]:
            subtree_end[node] = len(token_ids)
        del path[shared:]
        for depth in range(shared, len(sequence)):
            path.append(len(token_ids))
            token_ids.append(sequence[depth])
            depths.append(depth)
            subtree_end.append(0)
        paths[index] = tuple(path)
        previous = sequence
    for node in path:
        subtree_end[node] = len(token_ids)
    return PrefixTree(tuple(token_ids), tuple(depths), tuple(subtree_end), tuple(paths))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length
