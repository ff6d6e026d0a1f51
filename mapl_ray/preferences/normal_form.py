"""Normal form in which texts are compared, and the held-out split by prompt."""

from __future__ import annotations

import hashlib
import unicodedata

from mapl_ray.data.records import Message, PreferencePair, canonical_json


def normalise(text: str) -> str:
    """Normalize a text: NFKC, case-folded, runs of white space as one space, stripped."""
    composed = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(composed.casefold().split())


def prompt_key(prompt: tuple[Message, ...]) -> str:
    """Normalized text of a prompt. Prompts with the same key are in the same split.

    Case, white space, Unicode composition and system messages are ignored: the same question with another system
    message would still leak into the held-out split.
    """
    turns = [[m.role, normalise(m.content)] for m in prompt if m.role != "system"]
    return canonical_json(turns)


def eval_split(pair: PreferencePair, fraction: float, seed: int) -> bool:
    """Whether the pair is held out: a hash of `seed` and `prompt_key` is below `fraction` (0 <= fraction < 1).

    Depends only on the prompt and the seed, not on order, data set size or worker.
    """
    digest = hashlib.sha256(f"{seed}\n{prompt_key(pair.prompt)}".encode("utf-8", "surrogatepass")).digest()
    # 53 bits, so that the quotient is exact in a float and below 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53 < fraction
