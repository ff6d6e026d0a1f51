"""What can score: vLLM's engines and the trainer's forward pass here, anything else elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from mapl_ray.batches import EncodedGroup


class Scorer(Protocol):
    """Scores token sequences. `tokenizer` makes the ids, `max_tokens` is the longest sequence it takes."""

    tokenizer: Any
    max_tokens: int

    def score(self, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
        """One float a sequence; `starts` gives where each one's response begins."""


@runtime_checkable
class GroupScorer(Protocol):
    """Scores whole groups, whose sequences share tokens. `tokenizer` and `max_tokens` as in `Scorer`."""

    tokenizer: Any
    max_tokens: int

    def score_trees(self, groups: Sequence[EncodedGroup]) -> list[tuple[float, ...]]:
        """One float per sequence of each group."""
