"""Which texts count as the same: one normal form, the held-out split by prompt, and duplicates of pairs.

Duplicates are equal texts under other ids, or nearly equal ones. Pairs come in canonical order (`spill.py`), so that of
several the same one stays, whatever the order of the input.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Any

from mapl_ray.config import DataConfig
from mapl_ray.data.records import Message, PreferencePair, canonical_json, tool_fields
from mapl_ray.preferences.mix import repeat_of

_PERMUTATIONS = 128
_SHINGLE = 3  # words
# Sketches decide on what the index proposes, so it may look from 0.9 of the threshold on and weigh a miss above a false
# proposal. Of sets just like enough it misses one in eight at most; by its defaults two of three (at 0.9).
_PROPOSED_FROM = 0.9
_WEIGHTS = (0.2, 0.8)  # of false proposals, of missed ones


def normalise(text: str) -> str:
    """NFKC, case folded, runs of white space as one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def prompt_key(prompt: tuple[Message, ...]) -> str:
    """Normalised text of a prompt: prompts with the same key land on the same side of the split.

    Case, white space and Unicode composition do not count, nor do system messages: the same question asked under
    another system message would leak into the held-out side all the same.
    """
    turns = [[m.role, normalise(m.content)] for m in prompt if m.role != "system"]
    return canonical_json(turns)


def eval_split(pair: PreferencePair, fraction: float, seed: int) -> bool:
    """True if the pair is held out: a hash of `seed` and `prompt_key` falls below `fraction` (0 <= fraction < 1).

    It depends on the prompt and the seed alone, never on order, data set size or worker.
    """
    digest = hashlib.sha256(f"{seed}\n{prompt_key(pair.prompt)}".encode("utf-8", "surrogatepass")).digest()
    # 53 bits: the quotient is exact in a float and stays below 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53 < fraction


class Duplicates:
    """Remembers the pairs that it let through.

    Exact ones take about 200 bytes per pair (a digest of 16 bytes, the id, their table entry), so a million pairs
    about 200 MB. Near ones take about 5 KB a pair at a threshold of 0.9 and about 11 KB at 0.5.
    """

    def __init__(self, config: DataConfig) -> None:
        self.mode = config.duplicates
        self._mix = config.mix
        self._exact: dict[bytes, str] | None = None if self.mode == "keep" else {}
        self._near = _NearDuplicates(config.near_threshold) if self.mode == "near" else None

    def first_like(self, pair: PreferencePair) -> str | None:
        """The id of an earlier pair that this one duplicates; None where there is none, and it is remembered.

        Exact: prompt, chosen and rejected are the same once they are normalised, and so are tools and their calls.
        Near: so are `near_threshold` (Jaccard) of the runs of three words of last turn and responses, as MinHash
        estimates it (Broder 1997): with a standard deviation of sqrt(t (1 - t) / 128), 0.027 at t = 0.9. Repeats by
        weight are no duplicates.
        """
        if self._exact is None:
            return None
        repeat = repeat_of(pair.pair_id, self._mix)
        turns = [f"{message.role}: {normalise(message.content)}" for message in pair.prompt]
        responses = [normalise(pair.chosen), normalise(pair.rejected)]
        # Normalised texts hold no \x1f: it counts as white space.
        whole = "\x1f".join([str(repeat), *turns, *responses, tool_fields(pair.prompt) or ""])
        digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()[:16]
        first = self._exact.get(digest)
        if first is None and self._near is not None:
            first = self._near.first_like(pair.pair_id, _shingles(repeat, [turns[-1], *responses]))
        if first is None:
            self._exact[digest] = pair.pair_id
        return first


class _NearDuplicates:
    """Sets of shingles by their MinHash sketches, in an index of locality-sensitive hashes (Indyk and Motwani 1998)."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH  # here: it loads scipy, and most runs do without

        self._threshold = threshold
        self._index = MinHashLSH(threshold=_PROPOSED_FROM * threshold, num_perm=_PERMUTATIONS, weights=_WEIGHTS)
        self._sketches: dict[str, Any] = {}

    def first_like(self, pair_id: str, shingles: set[str]) -> str | None:
        """The id of the remembered set most like this one, if it is like enough; else None, and it is remembered."""
        from datasketch import LeanMinHash, MinHash

        sketch = MinHash(num_perm=_PERMUTATIONS, seed=1)
        sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles])
        likeness: dict[str, float] = {
            other: sketch.jaccard(self._sketches[other]) for other in self._index.query(sketch)
        }
        # Of several the first by id: a set has an order of its own in every process.
        first = min(likeness, key=lambda other: (-likeness[other], other), default=None)
        if first is not None and likeness[first] >= self._threshold:
            return first
        self._index.insert(pair_id, sketch)
        self._sketches[pair_id] = LeanMinHash(sketch)
        return None


def _shingles(repeat: int, texts: list[str]) -> set[str]:
    """Runs of three words, each marked with the repeat and the text it is from.

    So an exchange of the responses is no duplicate, and two repeats have none in common.
    """
    found: set[str] = set()
    for number, text in enumerate(texts):
        words = text.split()
        starts = range(max(1, len(words) - _SHINGLE + 1))
        found |= {f"{repeat} {number} {' '.join(words[start : start + _SHINGLE])}" for start in starts}
    return found
