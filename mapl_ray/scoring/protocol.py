"""Interfaces of scorers: vLLM engines, the trainer's forward pass, or others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from mapl_ray.batches import EncodedGroup


class Scorer(Protocol):
    """Scores token sequences, encoded with `tokenizer` and at most `max_tokens` long."""

    tokenizer: Any
    max_tokens: int

    def score(self, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
        """One float per sequence; `starts` has the index of each response's first token."""


@runtime_checkable
class GroupScorer(Protocol):
    """Scores whole groups, whose sequences share tokens. `tokenizer` and `max_tokens` are as in `Scorer`."""

    tokenizer: Any
    max_tokens: int

    def score_trees(self, groups: Sequence[EncodedGroup]) -> list[tuple[float, ...]]:
        """One float per sequence of each group."""
