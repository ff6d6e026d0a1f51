"""The AlpacaEval pairs of the experiment: short prompts and truncated responses, split by prompt.

The six sequences of a group contain each response three times, so the response length decides the cost of a step. A
response is truncated after the last sentence or line that ends within the scale's limit, before synthesis, so that
every instruction is about the text that the models see. The preference was given for the full responses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.evidence.scale import Scale
from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair
from mapl_ray.data.shards import file_sha256
from mapl_ray.errors import UserError
from mapl_ray.preferences import eval_split, read_pairs

_TOKEN = re.compile(r"\w+|[^\w\s]|\n")
# The end of a sentence, of the introduction to a list, or of a line; "1." is no end.
_END = re.compile(r"(?<!\d)[.!?:][\"')\]*]*(?=\s|$)|\n")
_LEAST_CHARACTERS = 20  # minimum length of a truncated response
SPLIT_SEED = 0  # one split for all arms and seeds


@dataclass(frozen=True, slots=True)
class Pairs:
    """Both sides of the split, and counts of rows and pairs."""

    train: list[PreferencePair]
    held_out: list[PreferencePair]
    digest: str  # sha256 of the file
    counts: dict[str, int]


def length(text: str) -> int:
    """Number of words, punctuation marks and line breaks: about the number of tokens."""
    return len(_TOKEN.findall(text))


def opening(text: str, limit: int) -> str:
    """The text if it has at most `limit` tokens (`length`), else truncated after the last sentence within the limit."""
    text = text.strip()
    tokens = list(_TOKEN.finditer(text))
    if len(tokens) <= limit:
        return text
    last = tokens[limit - 1].end()
    ends = [match.end() for match in _END.finditer(text) if _LEAST_CHARACTERS <= match.end() <= last]
    return text[: ends[-1] if ends else last].strip()


def load_pairs(path: Path, scale: Scale) -> Pairs:
    """Load and split the pairs. Raises `UserError` if the file can't be read, or if a side of the split is empty."""
    read = list(read_pairs(DataConfig(path=str(path))))
    pairs = [pair for pair in read if isinstance(pair, PreferencePair)]
    short = [pair for pair in pairs if length(pair.prompt[-1].content) <= scale.max_prompt_tokens]
    limit = scale.max_response_tokens
    cut = [replace(pair, chosen=opening(pair.chosen, limit), rejected=opening(pair.rejected, limit)) for pair in short]
    distinct = [pair for pair in cut if pair.chosen != pair.rejected and pair.chosen and pair.rejected]
    if scale.max_pairs is not None:
        distinct = distinct[: scale.max_pairs]
    held_out = [pair for pair in distinct if eval_split(pair, scale.eval_fraction, SPLIT_SEED)]
    train = [pair for pair in distinct if not eval_split(pair, scale.eval_fraction, SPLIT_SEED)]
    if not train or not held_out:
        raise UserError(f"{path}: {len(train)} pairs to train on and {len(held_out)} held out; expected some of both.")
    counts = {
        "rows": len(read),
        "short prompts": len(short),
        "pairs": len(distinct),
        "train pairs": len(train),
        "train prompts": len({pair.prompt for pair in train}),
        "held-out pairs": len(held_out),
        "held-out prompts": len({pair.prompt for pair in held_out}),
    }
    return Pairs(train, held_out, file_sha256(path), counts)
