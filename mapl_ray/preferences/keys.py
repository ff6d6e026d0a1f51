"""Keys by which pairs are compared: of their ids, their normalized texts, and sketches of their words.

Only pairs that share a key of a band can be duplicates or have the same id. Keys are 64 bits and evenly spread, so that
ranges of keys divide the work. Pairs that share a key are then compared exactly (`duplicates.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair
from mapl_ray.preferences.mix import repeat_of
from mapl_ray.preferences.normal_form import normalise

PERMUTATIONS = 128
SEED, SCHEME = 1, "affine32"  # MinHash settings
DIGEST_BYTES = 16
SKETCH_BYTES = 4 * PERMUTATIONS
_SHINGLE = 3  # words
# The index only proposes candidates; sketches decide. So it uses 0.9 of the threshold and weights a miss above a false
# candidate. It misses at most one in eight pairs exactly at the threshold; its defaults would miss two of three (at
# 0.9).
_PROPOSED_FROM = 0.9
_WEIGHTS = (0.2, 0.8)  # of false candidates, of misses

Keys = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Likeness:
    """Digest and sketch by which a pair is compared with others."""

    digest: bytes  # of the normalized texts; empty if duplicates are kept
    sketch: bytes | None = None  # MinHash values, uint32; None unless near duplicates are searched


def likeness_of(pair: PreferencePair, config: DataConfig) -> Likeness:
    """Compute the digest and sketch of a pair that `config.duplicates` needs."""
    if config.duplicates == "keep":
        return Likeness(b"")
    repeat = repeat_of(pair.pair_id, config.mix)
    turns = [f"{message.role}: {normalise(message.content)}" for message in pair.prompt]
    responses = [normalise(pair.chosen), normalise(pair.rejected)]
    # Normalized texts never contain \x1f, which counts as white space.
    whole = "\x1f".join([str(repeat), *turns, *responses, pair.tool_fields or ""])
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]
    if config.duplicates == "exact":
        return Likeness(digest)
    return Likeness(digest, _sketch(_shingles(repeat, [turns[-1], *responses])))


def near_index(threshold: float) -> Any:
    """An empty index of locality-sensitive hashes (Indyk and Motwani 1998) for sketches."""
    from datasketch import MinHashLSH  # imported here: it loads scipy, which most runs do not need

    return MinHashLSH(threshold=_PROPOSED_FROM * threshold, num_perm=PERMUTATIONS, weights=_WEIGHTS)


def number_of_bands(config: DataConfig) -> int:
    """Number of keys per pair. The first band holds the keys of ids."""
    if config.duplicates == "near":  # equal texts have equal sketches
        return 1 + len(_ranges(config.near_threshold))
    return 1 if config.duplicates == "keep" else 2


def band_keys(places: NDArray[np.float64], likenesses: Sequence[Likeness], config: DataConfig) -> list[Keys]:
    """The keys of pairs: one array of shape (pairs,) per band."""
    bands = [(places * 2.0**53).astype(np.uint64) << np.uint64(11)]
    if config.duplicates == "exact":
        digests = np.frombuffer(b"".join(one.digest[:8] for one in likenesses), ">u8")
        bands.append(digests.astype(np.uint64))
    elif config.duplicates == "near":
        joined = b"".join(one.sketch or b"" for one in likenesses)
        sketches = np.frombuffer(joined, np.uint32).reshape(len(likenesses), PERMUTATIONS)
        bands += [_mixed(sketches[:, start:stop]) for start, stop in _ranges(config.near_threshold)]
    return bands


@lru_cache(maxsize=4)
def _ranges(threshold: float) -> tuple[tuple[int, int], ...]:
    """(start, stop) of the MinHash values of every band of the index."""
    return tuple((int(start), int(stop)) for start, stop in near_index(threshold).hashranges)


def _mixed(values: NDArray[np.uint32]) -> Keys:
    """One key per row: a polynomial over the values, then the finalizer of SplitMix64 (Steele et al. 2014)."""
    keys = np.zeros(len(values), np.uint64)
    for column in values.T:
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + column + np.uint64(1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        keys = (keys ^ (keys >> np.uint64(shift))) * np.uint64(factor)
    return keys ^ (keys >> np.uint64(31))


def _sketch(shingles: set[str]) -> bytes:
    sketch = _empty_sketch().copy()
    sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in shingles])
    return bytes(np.asarray(sketch.hashvalues, np.uint32).tobytes())


@lru_cache(maxsize=1)
def _empty_sketch() -> Any:
    from datasketch import MinHash

    return MinHash(num_perm=PERMUTATIONS, seed=SEED, scheme=SCHEME)


def _shingles(repeat: int, texts: list[str]) -> set[str]:
    """Runs of three words, each marked with the repeat and the text that it is from.

    So swapped responses are not duplicates, and two repeats of a pair have no shingle in common.
    """
    found: set[str] = set()
    for number, text in enumerate(texts):
        words = text.split()
        starts = range(max(1, len(words) - _SHINGLE + 1))
        found |= {f"{repeat} {number} {' '.join(words[start : start + _SHINGLE])}" for start in starts}
    return found
