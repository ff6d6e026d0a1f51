"""Mean sizes of pairs and groups: of the config's data if it can be read here, else of AlpacaEval.

Lengths are in characters, and are converted to tokens with `characters_per_token`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from mapl_ray.config import RunConfig
from mapl_ray.data.records import GROUP_SCHEMA, PAIR_SCHEMA, Message, PreferencePair, RelationGroup
from mapl_ray.preferences import is_uri, read_pairs
from mapl_ray.synthesis import load_modules, synthesize_all

SAMPLE_ROWS = 400


@dataclass(frozen=True, slots=True)
class Cells:
    """Characters of a group's sequences, means over groups. `seen_...` are in characters squared."""

    tree: float  # each shared prefix counted once
    padded: float  # every sequence in full
    responses: float  # responses of all sequences
    seen_tree: float  # number of characters that each character sees, summed: the cost of attention
    seen_padded: float

    @classmethod
    def of(cls, prompts: Sequence[int], sequences: Sequence[tuple[int, int]]) -> Self:
        """Compute from lengths of prompts, where the first is a prefix of the others, and of (prompt, response)
        sequences."""
        first = prompts[0] if sequences else 0
        added = [prompt - first for prompt in prompts[1:]]
        whole = [prompt + response for prompt, response in sequences]
        return cls(
            tree=first + sum(added) + sum(response for _, response in sequences),
            padded=sum(whole),
            responses=sum(response for _, response in sequences),
            seen_tree=_seen(0, first) + sum(_seen(first, n) for n in added) + sum(_seen(p, r) for p, r in sequences),
            seen_padded=sum(_seen(0, length) for length in whole),
        )


def _seen(before: int, length: int) -> float:
    """Sum of characters seen by `length` characters after `before` others: the first sees before + 1, the last before +
    length."""
    return length * before + length * (length + 1) / 2


@dataclass(frozen=True, slots=True)
class GroupSize:
    """Mean sizes over a sample of pairs."""

    source: str
    groups_per_pair: float  # after rejections
    response_characters: float  # of both responses of a pair
    all: Cells  # all sequences
    pref: Cells  # only those of the original pair: the pref-only baseline
    largest_tree: float  # characters of the sample's largest group
    pair_bytes: float  # as Parquet
    group_bytes: float
    group_bytes_in_memory: float  # as Arrow, in every training worker
    tokenized_characters: float  # every prompt and response once, of which token ids are kept

    @property
    def sequences(self) -> float:
        """Approximate number of sequences per group."""
        return self.all.responses / max(1.0, self.response_characters) * 2


# From the key `groups` in the output of the command below: the first 400 rows, with default synthesis settings.
ALPACA_EVAL = GroupSize(
    source=(
        "376 AlpacaEval pairs, because the config's own data can't be read from here; measured 2026-11-30: mapl plan "
        "--config jobs/configs/alpaca_eval.yaml data.path=../shared/data/alpaca_eval_pairs.jsonl.gz --json"
    ),
    groups_per_pair=0.9787,
    response_characters=3283.0,
    all=Cells(10302.0, 11231.0, 9880.0, 1.324e7, 1.340e7),
    pref=Cells(3420.0, 3547.0, 3293.0, 4.081e6, 4.102e6),
    largest_tree=21010.0,
    pair_bytes=1420.0,
    group_bytes=1532.0,
    group_bytes_in_memory=4816.0,
    tokenized_characters=3969.0,  # 2026-11-30, by the same command
)


def group_size(config: RunConfig) -> GroupSize:
    """Measure the first rows of local data after synthesis, or return the sizes of AlpacaEval. Downloads nothing."""
    parts = config.data.parts()
    if any(is_uri(part.path) or not (part.path == "demo" or Path(part.path).expanduser().exists()) for part in parts):
        return ALPACA_EVAL
    load_modules(config.synthesis.modules)
    rows = islice(read_pairs(config.data, config.seed), SAMPLE_ROWS)
    pairs = [row for row in rows if isinstance(row, PreferencePair)]
    made = [result for pair in pairs for result in synthesize_all(pair, config.synthesis, config.seed)]
    groups = [result for result in made if isinstance(result, RelationGroup)]
    if not groups:
        return ALPACA_EVAL
    cells = [_cells(group) for group in groups]
    table = pa.Table.from_pylist([group.to_row() for group in groups], GROUP_SCHEMA)
    return GroupSize(
        source=f"measured: the first {len(pairs)} pairs of {', '.join(Path(part.path).name for part in parts)}",
        groups_per_pair=len(groups) / len(pairs),
        response_characters=sum(len(pair.chosen) + len(pair.rejected) for pair in pairs) / len(pairs),
        all=_mean([every for every, _ in cells]),
        pref=_mean([pref for _, pref in cells]),
        largest_tree=max(every.tree for every, _ in cells),
        pair_bytes=_parquet_bytes(pa.Table.from_pylist([pair.to_row() for pair in pairs], PAIR_SCHEMA)) / len(pairs),
        group_bytes=_parquet_bytes(table) / len(groups),
        group_bytes_in_memory=table.nbytes / len(groups),
        tokenized_characters=sum(_tokenized(group) for group in groups) / len(groups),
    )


def _cells(group: RelationGroup) -> tuple[Cells, Cells]:
    prompts = [_length(prompt) for prompt in group.prompts]
    responses = [len(response) for response in group.responses]
    sequences = [(prompts[s.prompt], responses[s.response]) for s in group.sequences]
    pref = [cell for cell, s in zip(sequences, group.sequences, strict=True) if s.prompt == 0]
    return Cells.of(prompts, sequences), Cells.of(prompts[:1], pref)


def _tokenized(group: RelationGroup) -> int:
    return sum(map(_length, group.prompts)) + sum(map(len, group.responses))


def _length(messages: tuple[Message, ...]) -> int:
    return sum(len(message.content) for message in messages)


def _mean(cells: Sequence[Cells]) -> Cells:
    return Cells(*(sum(column) / len(cells) for column in zip(*map(astuple, cells), strict=True)))


def _parquet_bytes(table: Any) -> int:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.tell()
