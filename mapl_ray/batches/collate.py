"""Encoded groups -> one batch of tensors, as prefix trees or as padded sequences.

Dimensions: B rows, T tokens of a row, S sequences, R relations, E edges (a response token to predict, from the
token before it), M memberships of an edge in a sequence. Flat indices run over B*T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Literal, NamedTuple

import torch

from mapl_ray.batches.encode import EncodedGroup
from mapl_ray.batches.relations import RelationBatch, relation_batch
from mapl_ray.batches.tree import build_tree


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Everything one forward pass and its loss need; all indices int64."""

    input_ids: torch.Tensor  # [B, T]
    position_ids: torch.Tensor  # [B, T]
    subtree_end: torch.Tensor | None  # [B, T], trees: token q sees token k iff k <= q < subtree_end[k]
    attention_mask: torch.Tensor | None  # [B, T], padded sequences: 1 for tokens, 0 for padding
    source_E: torch.Tensor  # flat index of the token that predicts
    target_E: torch.Tensor  # id of the token predicted
    edge_M: torch.Tensor
    sequence_M: torch.Tensor
    last_S: torch.Tensor  # flat index of the last response token (EOS)
    relations: RelationBatch
    ref_logps_S: torch.Tensor | None  # float32
    num_tokens: int  # computed, without padding
    pair_ids: tuple[str, ...]

    @property
    def num_sequences(self) -> int:
        """S, over all groups."""
        return self.last_S.numel()

    def response_lengths(self) -> torch.Tensor:
        """Response tokens of every sequence, EOS included, float32 [S]."""
        lengths_S = torch.zeros(self.num_sequences, device=self.sequence_M.device)
        return lengths_S.index_add(0, self.sequence_M, lengths_S.new_ones(()).expand(self.sequence_M.shape))

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            subtree_end=None if self.subtree_end is None else self.subtree_end.to(device),
            attention_mask=None if self.attention_mask is None else self.attention_mask.to(device),
            source_E=self.source_E.to(device),
            target_E=self.target_E.to(device),
            edge_M=self.edge_M.to(device),
            sequence_M=self.sequence_M.to(device),
            last_S=self.last_S.to(device),
            relations=self.relations.to(device),
            ref_logps_S=None if self.ref_logps_S is None else self.ref_logps_S.to(device),
        )


class _Row(NamedTuple):
    """One row before padding; `paths` gives a sequence's positions in it, `starts` where its response begins."""

    token_ids: Sequence[int]
    positions: Sequence[int]
    subtree_end: Sequence[int]
    paths: Sequence[Sequence[int]]
    starts: Sequence[int]


def collate(
    groups: Sequence[EncodedGroup],
    batching: Literal["tree", "padded"],
    pad_token_id: int,
    pad_to_multiple_of: int = 1,
) -> Batch:
    """Put groups into one batch: a row a group (`tree`) or a row a sequence (`padded`, on the right).

    Both give the same sequences in the same order, groups one after another. Raises `ValueError` without groups.
    """
    if not groups:
        raise ValueError("collate needs at least one group")
    rows = list(chain.from_iterable(_tree_row(g) if batching == "tree" else _padded_rows(g) for g in groups))
    width = -(-max(len(row.token_ids) for row in rows) // pad_to_multiple_of) * pad_to_multiple_of
    attention_mask = [[1] * len(row.token_ids) + [0] * (width - len(row.token_ids)) for row in rows]
    # A padding token is a tree of its own: it sees itself alone, and softmax never meets an empty row.
    subtree_end = [[*row.subtree_end, *range(len(row.subtree_end) + 1, width + 1)] for row in rows]
    source, target, edge, sequence, last = _edges(rows, width)
    offsets, total = [], 0
    for group in groups:
        offsets.append(total)
        total += len(group.sequences)
    scored = all(group.ref_logps is not None for group in groups)
    return Batch(
        input_ids=_padded([row.token_ids for row in rows], width, pad_token_id),
        position_ids=_padded([row.positions for row in rows], width, 0),
        subtree_end=torch.tensor(subtree_end) if batching == "tree" else None,
        attention_mask=torch.tensor(attention_mask) if batching == "padded" else None,
        source_E=_indices(source),
        target_E=_indices(target),
        edge_M=_indices(edge),
        sequence_M=_indices(sequence),
        last_S=_indices(last),
        relations=relation_batch(
            [(offset, r, group.margin) for offset, group in zip(offsets, groups, strict=True) for r in group.relations],
            total,
        ),
        ref_logps_S=torch.tensor([x for group in groups for x in group.ref_logps or ()]) if scored else None,
        num_tokens=sum(len(row.token_ids) for row in rows),
        pair_ids=tuple(group.pair_id for group in groups),
    )


def _tree_row(group: EncodedGroup) -> list[_Row]:
    indices = range(len(group.sequences))
    tree = build_tree([group.token_ids(i) for i in indices])
    return [_Row(tree.token_ids, tree.depths, tree.subtree_end, tree.paths, [group.prompt_length(i) for i in indices])]


def _padded_rows(group: EncodedGroup) -> list[_Row]:
    rows = []
    for index in range(len(group.sequences)):
        ids = group.token_ids(index)
        positions = range(len(ids))
        rows.append(_Row(ids, positions, [len(ids)] * len(ids), [positions], [group.prompt_length(index)]))
    return rows


def _edges(rows: Sequence[_Row], width: int) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Every predicted token once, even where several sequences share it, and who it belongs to."""
    source: list[int] = []
    target: list[int] = []
    edge: list[int] = []
    sequence: list[int] = []
    last: list[int] = []
    for number, row in enumerate(rows):
        known: dict[int, int] = {}  # node -> edge that ends there
        for path, start in zip(row.paths, row.starts, strict=True):
            for before, node in zip(path[start - 1 :], path[start:], strict=False):
                if node not in known:
                    known[node] = len(source)
                    source.append(number * width + before)
                    target.append(row.token_ids[node])
                edge.append(known[node])
                sequence.append(len(last))
            last.append(number * width + path[-1])
    return source, target, edge, sequence, last


def _padded(rows: Sequence[Sequence[int]], width: int, value: int) -> torch.Tensor:
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.int64)


def _indices(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)
