"""Collate encoded groups into one batch of tensors, as prefix trees or as padded sequences.

Dimensions: B rows, T tokens per row, S sequences, R relations, E edges (a response token to predict from the token
before it), M memberships of an edge in a sequence. Flat indices run over B*T.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from mapl_ray.batches.encode import EncodedGroup
from mapl_ray.batches.relations import RelationBatch, relation_batch
from mapl_ray.batches.sequence_part import SequencePart
from mapl_ray.batches.tree import IntArray, build_tree


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """All inputs of one forward pass and its loss. Indices are int64."""

    input_ids: torch.Tensor  # [B, T]
    position_ids: torch.Tensor  # [B, T], start at 0 in every sequence
    subtree_end: torch.Tensor | None  # [B, T], trees: token q sees token k iff k <= q < subtree_end[k]
    attention_mask: torch.Tensor | None  # [B, T], padded sequences: 1 for tokens, 0 for padding
    source_E: torch.Tensor  # flat index of the token that predicts
    target_E: torch.Tensor  # id of the predicted token
    edge_M: torch.Tensor
    lengths_S: torch.Tensor  # response tokens, including EOS; memberships are ordered by sequence
    last_S: torch.Tensor  # flat index of the last response token (EOS)
    relations: RelationBatch
    ref_logps_S: torch.Tensor | None  # float32
    num_tokens: int  # computed tokens, without padding
    pair_ids: tuple[str, ...]
    part: SequencePart | None = None  # this rank's part under sequence parallelism; None: the rank computes the whole

    @property
    def num_sequences(self) -> int:
        """S, summed over all groups."""
        return self.last_S.numel()

    def response_lengths(self) -> torch.Tensor:
        """Number of response tokens of every sequence, including EOS, float32 [S]."""
        return self.lengths_S.float()

    def to(self, device: torch.device | str) -> Batch:
        """Copy the batch to a device. From pinned memory the copy is asynchronous."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Batch:
        """Copy the batch to page-locked memory, for asynchronous copies to a GPU."""
        return self._each(torch.Tensor.pin_memory)

    def with_part(self, rank: int, ranks: int) -> Batch:
        """Add the part of rank `rank` of `ranks`. Raises `ValueError` if T is not divisible by `ranks`."""
        part = SequencePart.of(self.input_ids, self.position_ids, self.source_E, self.last_S, rank, ranks)
        return replace(self, part=part)

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: change(value) for name, value in values.items() if isinstance(value, torch.Tensor)
        }
        part = None if self.part is None else self.part.each(change)
        return replace(self, **changed, relations=self.relations.each(change), part=part)


class _Piece(NamedTuple):
    """A unit that is never split between rows: a group's tree, or one sequence. `paths` locates its sequences in it."""

    token_ids: IntArray
    positions: IntArray
    subtree_end: IntArray
    paths: Sequence[IntArray]
    starts: Sequence[int]  # index in each path where the response begins


def collate(
    groups: Sequence[EncodedGroup],
    batching: Literal["tree", "padded"],
    pad_token_id: int,
    pad_to_multiple_of: int = 1,
    row_tokens: int | None = None,
) -> Batch:
    """Collate groups into one batch: several trees per row (`tree`), or one right-padded row per sequence (`padded`).

    Both give the same sequences in the same order: group by group, independent of how rows are packed.

    Args:
        row_tokens: token budget of a row of trees. A longer tree gets its own row. None: length of the longest tree.

    Raises `ValueError` if there are no groups.
    """
    if not groups:
        raise ValueError("collate needs at least one group")
    pieces = list(chain.from_iterable(_tree_piece(g) if batching == "tree" else _sequence_pieces(g) for g in groups))
    lengths = [len(piece.token_ids) for piece in pieces]
    rows = pack(lengths, row_tokens or max(lengths)) if batching == "tree" else [[i] for i in range(len(pieces))]
    longest = max(sum(lengths[i] for i in row) for row in rows)
    width = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    places = _places(rows, lengths, width)
    source, target, edge, lengths_of_responses, last = _edges(pieces, places)
    offsets, total = [], 0
    for group in groups:
        offsets.append(total)
        total += len(group.sequences)
    scored = all(group.ref_logps is not None for group in groups)
    shape = (len(rows), width)
    return Batch(
        input_ids=_laid(shape, pad_token_id, places, [piece.token_ids for piece in pieces]),
        position_ids=_laid(shape, 0, places, [piece.positions for piece in pieces]),
        subtree_end=_subtree_ends(shape, places, pieces) if batching == "tree" else None,
        attention_mask=_laid(shape, 0, places, [np.ones(n, dtype=np.int64) for n in lengths])
        if batching == "padded"
        else None,
        source_E=source,
        target_E=target,
        edge_M=edge,
        lengths_S=lengths_of_responses,
        last_S=last,
        relations=relation_batch(
            [(offset, r, group.margin) for offset, group in zip(offsets, groups, strict=True) for r in group.relations],
            total,
        ),
        ref_logps_S=torch.tensor([x for group in groups for x in group.ref_logps or ()]) if scored else None,
        num_tokens=sum(lengths),
        pair_ids=tuple(group.pair_id for group in groups),
    )


def _tree_piece(group: EncodedGroup) -> list[_Piece]:
    indices = range(len(group.sequences))
    tree = build_tree([group.token_ids(i) for i in indices])
    starts = [group.prompt_length(i) for i in indices]
    return [_Piece(tree.token_ids, tree.depths, tree.subtree_end, tree.paths, starts)]


def _sequence_pieces(group: EncodedGroup) -> list[_Piece]:
    pieces = []
    for index in range(len(group.sequences)):
        ids = np.array(group.token_ids(index), dtype=np.int64)
        positions = np.arange(len(ids))
        pieces.append(_Piece(ids, positions, np.full_like(ids, len(ids)), [positions], [group.prompt_length(index)]))
    return pieces


def _places(rows: Sequence[Sequence[int]], lengths: Sequence[int], width: int) -> list[int]:
    """Flat index of every piece's first token."""
    places = [0] * len(lengths)
    for number, row in enumerate(rows):
        place = number * width
        for index in row:
            places[index] = place
            place += lengths[index]
    return places


def _edges(pieces: Sequence[_Piece], places: Sequence[int]) -> list[torch.Tensor]:
    """List every predicted token once, even if several sequences share it, with the sequences it belongs to.

    Returns source, target, edge, lengths and last, as named in `Batch`.
    """
    parts: tuple[list[IntArray], ...] = ([], [], [])
    lengths: list[int] = []
    last: list[int] = []
    number = 0
    for piece, place in zip(pieces, places, strict=True):
        edge_of_node = np.full(len(piece.token_ids), -1)
        for path, start in zip(piece.paths, piece.starts, strict=True):
            nodes, before = path[start:], path[start - 1 : -1]
            new = edge_of_node[nodes] < 0
            fresh = nodes[new]
            edge_of_node[fresh] = np.arange(number, number + len(fresh))
            number += len(fresh)
            found = (before[new] + place, piece.token_ids[fresh], edge_of_node[nodes])
            for part, values in zip(parts, found, strict=True):
                part.append(values)
            lengths.append(len(nodes))
            last.append(place + int(path[-1]))
    joined = [torch.from_numpy(np.concatenate(part)) for part in parts]
    return [*joined, torch.tensor(lengths), torch.tensor(last)]


def _laid(shape: tuple[int, int], fill: int, places: Sequence[int], values: Sequence[IntArray]) -> torch.Tensor:
    flat = np.full(shape[0] * shape[1], fill, dtype=np.int64)
    for place, some in zip(places, values, strict=True):
        flat[place : place + len(some)] = some
    return torch.from_numpy(flat.reshape(shape))


def _subtree_ends(shape: tuple[int, int], places: Sequence[int], pieces: Sequence[_Piece]) -> torch.Tensor:
    """Subtree ends as row indices. Padding is one more tree, a chain to the end of the row, so softmax never gets an
    empty row."""
    width = shape[1]
    ends = [place % width + piece.subtree_end for place, piece in zip(places, pieces, strict=True)]
    return _laid(shape, width, places, ends)


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Pack items into rows of at most `budget` tokens. Returns the indices of `lengths` in each row.

    First-fit decreasing: at most 11/9 of the minimal number of rows, plus one (Dósa 2007). An item longer than the
    budget gets its own row. The result depends only on the arguments. Indices ascend within a row, and rows are
    ordered by their first index.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for row, free in enumerate(room):
            if lengths[index] <= free:
                rows[row].append(index)
                room[row] -= lengths[index]
                break
        else:
            rows.append([index])
            room.append(budget - lengths[index])
    return sorted(sorted(row) for row in rows)
