"""Duplicates of pairs: the very same texts under other ids, or nearly the same.

Pairs come in canonical order (`spill.py`), so that of several the same one stays, whatever the order of the input.
"""

from __future__ import annotations

import hashlib
from typing import Any

from mapl_ray.config import DataConfig
from mapl_ray.preferences.normalise import normalise
from mapl_ray.records import PreferencePair

_PERMUTATIONS = 128
_SHINGLE = 3  # words


class Duplicates:
    """Remembers the pairs it has seen: about 150 bytes a pair for exact ones, about 4 KB for near ones."""

    def __init__(self, config: DataConfig) -> None:
        self._exact: dict[bytes, str] | None = None if config.duplicates == "keep" else {}
        self._near: Any = None
        if config.duplicates == "near":
            from datasketch import MinHashLSH  # here: it loads scipy, and most runs do without

            self._near = MinHashLSH(threshold=config.near_threshold, num_perm=_PERMUTATIONS)

    def first_like(self, pair: PreferencePair) -> str | None:
        """The id of an earlier pair that this one duplicates; None where there is none, and it is remembered.

        Exact: prompt, chosen and rejected are the same once they are normalised. Near: so are about `near_threshold`
        (Jaccard) of the runs of three words of last turn and responses, as MinHash estimates it (Broder 1997).
        """
        if self._exact is None:
            return None
        repeat = pair.pair_id.rpartition("~")[2] if "~" in pair.pair_id else ""  # wanted more than once (`mix.py`)
        turns = [repeat, *(f"{message.role}: {normalise(message.content)}" for message in pair.prompt)]
        texts = [*turns, normalise(pair.chosen), normalise(pair.rejected)]
        digest = hashlib.sha256("\x1f".join(texts).encode("utf-8", "surrogatepass")).digest()[:16]
        if (first := self._exact.setdefault(digest, pair.pair_id)) != pair.pair_id:
            return first
        return None if self._near is None else self._first_near(pair.pair_id, texts[-3:])

    def _first_near(self, pair_id: str, texts: list[str]) -> str | None:
        from datasketch import MinHash

        sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in _shingles(texts)])
        found = sorted(self._near.query(sketch))
        if found:
            return str(found[0])
        self._near.insert(pair_id, sketch)
        return None


def _shingles(texts: list[str]) -> set[str]:
    """Runs of three words, each marked with the text it is from: an exchange of the responses is no duplicate."""
    found: set[str] = set()
    for number, text in enumerate(texts):
        words = text.split()
        starts = range(max(1, len(words) - _SHINGLE + 1))
        found |= {f"{number} {' '.join(words[start : start + _SHINGLE])}" for start in starts}
    return found
