"""One rank's part of a batch under sequence parallelism: its columns of every row.

Dimensions: as in `batch.py`. N ranks share a batch, and a part has T / N columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import torch


@dataclass(frozen=True, slots=True, eq=False)
class SequencePart:
    """Tokens of the part, and the edges and sequences that are computed from them. Indices are int64.

    An edge belongs to the rank that has its source, a sequence to the rank that has its last token.
    """

    input_ids: torch.Tensor  # [B, T / N]
    position_ids: torch.Tensor  # [B, T / N]
    edges: torch.Tensor  # indices in E of this part's edges
    sources: torch.Tensor  # source of each edge: flat index over B * T / N
    sequences: torch.Tensor  # indices in S of this part's sequences
    lasts: torch.Tensor  # last token of each sequence: flat index over B * T / N

    @classmethod
    def of(
        cls,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        source_E: torch.Tensor,
        last_S: torch.Tensor,
        rank: int,
        ranks: int,
    ) -> Self:
        """Take the part of rank `rank` of `ranks` from a batch's tensors on the CPU.

        Raises `ValueError` if T is not divisible by `ranks`.
        """
        width = input_ids.shape[1]
        if width % ranks:
            raise ValueError(f"a row of {width} tokens can't be divided by {ranks} ranks")
        own = width // ranks
        columns = slice(rank * own, (rank + 1) * own)

        def local(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows, places = flat // width, flat % width
            mine = torch.nonzero(places // own == rank)[:, 0]
            return mine, rows[mine] * own + places[mine] % own

        edges, sources = local(source_E)
        sequences, lasts = local(last_S)
        return cls(
            input_ids=input_ids[:, columns].contiguous(),
            position_ids=position_ids[:, columns].contiguous(),
            edges=edges,
            sources=sources,
            sequences=sequences,
            lasts=lasts,
        )

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> SequencePart:
        """Apply `change` to every tensor, for example a move to a device."""
        values: dict[str, Any] = {field.name: change(getattr(self, field.name)) for field in fields(self)}
        return SequencePart(**values)
