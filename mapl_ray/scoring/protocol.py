"""What can score: vLLM's engines here, anything else elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Scorer(Protocol):
    """Scores token sequences. `tokenizer` makes the ids, `max_tokens` is the longest sequence it takes."""

    tokenizer: Any
    max_tokens: int

    def score(self, token_ids: Sequence[Sequence[int]], starts: Sequence[int]) -> list[float]:
        """One float a sequence; `starts` gives where each one's response begins."""
