"""Duplicates of pairs: equal texts under other ids, or nearly equal ones.

Pairs come in canonical order (`canonical_order.py`), so that of several the same one stays, whatever the order of the
input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair
from mapl_ray.preferences.keys import SCHEME, SEED, Likeness, likeness_of, near_index


class Duplicates:
    """Remembers the pairs that it let through.

    Exact ones take about 200 bytes per pair (a digest of 16 bytes, the id, their table entry), so a million pairs
    about 200 MB. Near ones take about 5 KB a pair at a threshold of 0.9 and about 11 KB at 0.5. Pairs that share no key
    with another one (`keys.py`) need not be shown.
    """

    def __init__(self, config: DataConfig) -> None:
        self.mode = config.duplicates
        self._config = config
        self._exact: dict[bytes, str] | None = None if self.mode == "keep" else {}
        self._near = _NearDuplicates(config.near_threshold) if self.mode == "near" else None

    def first_like(self, pair: PreferencePair) -> str | None:
        """The id of an earlier pair that this one duplicates; None where there is none, and it is remembered.

        Exact: prompt, chosen and rejected are the same once they are normalized, and so are tools and their calls.
        Near: so are `near_threshold` (Jaccard) of the runs of three words of last turn and responses, as MinHash
        estimates it (Broder 1997): with a standard deviation of sqrt(t (1 - t) / 128), 0.027 at t = 0.9. Repeats by
        weight are no duplicates.
        """
        return self.first_with(pair.pair_id, likeness_of(pair, self._config))

    def first_with(self, pair_id: str, likeness: Likeness) -> str | None:
        """As `first_like`, of a pair that is known by these."""
        if self._exact is None:
            return None
        first = self._exact.get(likeness.digest)
        if first is None and self._near is not None and likeness.sketch is not None:
            first = self._near.first_like(pair_id, likeness.sketch)
        if first is None:
            self._exact[likeness.digest] = pair_id
        return first


class _NearDuplicates:
    """Sets of shingles by their MinHash sketches, in an index of locality-sensitive hashes."""

    def __init__(self, threshold: float) -> None:
        self._threshold, self._index = threshold, near_index(threshold)
        self._sketches: dict[str, Any] = {}

    def first_like(self, pair_id: str, values: bytes) -> str | None:
        """The id of the remembered set most like this one, if it is like enough; else None, and it is remembered."""
        from datasketch import LeanMinHash  # here: it loads scipy, and most runs do without

        sketch = LeanMinHash(seed=SEED, hashvalues=np.frombuffer(values, np.uint32), scheme=SCHEME)
        likeness: dict[str, float] = {
            other: sketch.jaccard(self._sketches[other]) for other in self._index.query(sketch)
        }
        # Of several the first by id: a set has an order of its own in every process.
        first = min(likeness, key=lambda other: (-likeness[other], other), default=None)
        if first is not None and likeness[first] >= self._threshold:
            return first
        self._index.insert(pair_id, sketch)
        self._sketches[pair_id] = sketch
        return None
