"""The AlpacaEval pairs as the experiment takes them: short prompts, and the openings of the responses, split by prompt.

The six sequences of a group hold each response three times, so the length of the responses is what a step costs. A
response is cut at the last sentence or line that ends within the scale's limit, before anything else sees it: every
instruction is written for, and true of, the text that the models read. The preference is the one given to the whole
responses.
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
# The end of a sentence, of what introduces a list, or of a line; "1." is no end.
_END = re.compile(r"(?<!\d)[.!?:][\"')\]*]*(?=\s|$)|\n")
_LEAST_CHARACTERS = 20  # of a response that was cut
SPLIT_SEED = 0  # one split for all arms and seeds


@dataclass(frozen=True, slots=True)
class Pairs:
    """Both sides of the split, and what became of the rows."""

    train: list[PreferencePair]
    held_out: list[PreferencePair]
    digest: str  # sha256 of the file
    counts: dict[str, int]


def length(text: str) -> int:
    """Words, marks and line breaks: about what the tokenizer makes of it."""
    return len(_TOKEN.findall(text))


def opening(text: str, limit: int) -> str:
    """The text if it has at most `limit` tokens (`length`), else its beginning up to the last end within the limit."""
    text = text.strip()
    tokens = list(_TOKEN.finditer(text))
    if len(tokens) <= limit:
        return text
    last = tokens[limit - 1].end()
    ends = [match.end() for match in _END.finditer(text) if _LEAST_CHARACTERS <= match.end() <= last]
    return text[: ends[-1] if ends else last].strip()


def load_pairs(path: Path, scale: Scale) -> Pairs:
    """Raises `UserError` for a file that can't be read, or where nothing is left on a side."""
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
