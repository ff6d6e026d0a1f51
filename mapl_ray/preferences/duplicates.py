"""Duplicate pairs: equal or nearly equal texts under different ids.

Pairs come in canonical order (`canonical_order.py`), so which of several duplicates is kept does not depend on the
order of the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair
from mapl_ray.preferences.keys import SCHEME, SEED, Likeness, likeness_of, near_index


class Duplicates:
    """Detects duplicates of the pairs seen so far.

    Memory: exact duplicates take about 200 bytes per pair (a digest of 16 bytes, the id, the table entry), so 200 MB
    for a million pairs. Near duplicates take about 5 KB per pair at a threshold of 0.9 and about 11 KB at 0.5. Pairs
    that share no key with another pair (`keys.py`) can be skipped.
    """

    def __init__(self, config: DataConfig) -> None:
        self.mode = config.duplicates
        self._config = config
        self._exact: dict[bytes, str] | None = None if self.mode == "keep" else {}
        self._near = _NearDuplicates(config.near_threshold) if self.mode == "near" else None

    def first_like(self, pair: PreferencePair) -> str | None:
        """The id of an earlier pair that this one duplicates. If there is none, stores this pair and returns None.

        Exact: prompt, chosen and rejected are equal after normalization, and so are tools and tool calls.
        Near: the Jaccard similarity of the three-word runs of last turn and responses is at least `near_threshold`,
        as estimated by MinHash (Broder 1997) with a standard deviation of sqrt(t (1 - t) / 128), 0.027 at t = 0.9.
        Repeats by weight are not duplicates.
        """
        return self.first_with(pair.pair_id, likeness_of(pair, self._config))

    def first_with(self, pair_id: str, likeness: Likeness) -> str | None:
        """As `first_like`, for a pair given by its id and likeness."""
        if self._exact is None:
            return None
        first = self._exact.get(likeness.digest)
        if first is None and self._near is not None and likeness.sketch is not None:
            first = self._near.first_like(pair_id, likeness.sketch)
        if first is None:
            self._exact[likeness.digest] = pair_id
        return first


class _NearDuplicates:
    """An index of locality-sensitive hashes over MinHash sketches of sets of shingles."""

    def __init__(self, threshold: float) -> None:
        self._threshold, self._index = threshold, near_index(threshold)
        self._sketches: dict[str, Any] = {}

    def first_like(self, pair_id: str, values: bytes) -> str | None:
        """The id of the most similar stored set, if above the threshold; else stores this set and returns None."""
        from datasketch import LeanMinHash  # imported here: it loads scipy, which most runs do not need

        sketch = LeanMinHash(seed=SEED, hashvalues=np.frombuffer(values, np.uint32), scheme=SCHEME)
        likeness: dict[str, float] = {
            other: sketch.jaccard(self._sketches[other]) for other in self._index.query(sketch)
        }
        # Ties go to the smallest id: the iteration order of a set differs between processes.
        first = min(likeness, key=lambda other: (-likeness[other], other), default=None)
        if first is not None and likeness[first] >= self._threshold:
            return first
        self._index.insert(pair_id, sketch)
        self._sketches[pair_id] = sketch
        return None
