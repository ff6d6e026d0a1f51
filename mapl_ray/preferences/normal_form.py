"""Which texts count as the same: one normal form, and the held-out split by prompt."""

from __future__ import annotations

import hashlib
import unicodedata

from mapl_ray.data.records import Message, PreferencePair, canonical_json


def normalise(text: str) -> str:
    """NFKC, case folded, runs of white space as one space, none at the ends."""
    composed = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(composed.casefold().split())


def prompt_key(prompt: tuple[Message, ...]) -> str:
    """Normalized text of a prompt: prompts with the same key land on the same side of the split.

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
