"""The prefix tree of a group: every token of a shared prefix appears once.

Nodes are in depth-first order, so the descendants of node k are the nodes k+1 .. subtree_end[k]-1, and the attention
rule is one comparison: token q sees token k iff k <= q < subtree_end[k].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class PrefixTree:
    """A trie over token ids. Arrays over nodes have length N and are in depth-first order."""

    token_ids: IntArray
    depths: IntArray  # position of the token in its sequences
    subtree_end: IntArray  # index after the last descendant
    paths: tuple[IntArray, ...]  # nodes of each sequence from the root on, in the order of the input sequences


def build_tree(sequences: Sequence[Sequence[int]]) -> PrefixTree:
    """Merge token sequences into a prefix tree. It has several roots if the first tokens differ.

    Raises `ValueError` for an empty sequence.
    """
    if any(len(sequence) == 0 for sequence in sequences):
        raise ValueError("a prefix tree can't contain a sequence without tokens")
    arrays = [np.array(sequence, dtype=np.int64) for sequence in sequences]
    subtree_end = np.zeros(sum(map(len, arrays)), dtype=np.int64)
    paths = [np.zeros(0, dtype=np.int64)] * len(arrays)
    new_ids, new_depths, size = [], [], 0
    path = previous = np.zeros(0, dtype=np.int64)
    # In sorted order, the longest prefix shared with any earlier sequence is shared with the previous one.
    for index in sorted(range(len(sequences)), key=lambda i: tuple(sequences[i])):
        sequence = arrays[index]
        shared = _common_prefix(previous, sequence)
        subtree_end[path[shared:]] = size
        added = len(sequence) - shared
        new_ids.append(sequence[shared:])
        new_depths.append(np.arange(shared, len(sequence)))
        paths[index] = path = np.concatenate([path[:shared], np.arange(size, size + added)])
        size, previous = size + added, sequence
    subtree_end[path] = size
    return PrefixTree(np.concatenate(new_ids), np.concatenate(new_depths), subtree_end[:size], tuple(paths))


def _common_prefix(a: IntArray, b: IntArray) -> int:
    length = min(len(a), len(b))
    differences = np.flatnonzero(a[:length] != b[:length])
    return int(differences[0]) if len(differences) else length
