"""Statistics for the data report: counts, lengths and flags, from a sample of parts.

One batch of a part is in memory at a time, as Arrow columns. Only every n-th group, whose texts are used, becomes an
object.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import Manifest, Part, read_batches
from mapl_ray.errors import UserError

SAMPLED_GROUPS = 20_000  # counts use about this many groups: every n-th part of a larger data set
KEPT_GROUPS = 2_000  # groups whose texts are used
_RESPONSES = ("chosen", "rejected")
IntArray = npt.NDArray[np.int64]


def sampled_parts(manifest: Manifest, most: int = SAMPLED_GROUPS) -> tuple[Part, ...]:
    """Every n-th part, with about `most` rows in total; all parts of a smaller data set."""
    return manifest.parts[:: max(1, -(-manifest.rows // most))]


def sample_batches(
    directory: Path, manifest: Manifest, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of the sampled parts, with some columns or all; one is in memory at a time."""
    for part in sampled_parts(manifest):
        yield from read_batches(directory, part, columns)


def function_names(batch: pa.RecordBatch) -> Counter[str]:
    """How often each function occurs in the column `instructions` of a batch."""
    return value_counts(batch.column("instructions").flatten().flatten().field("name"))


@dataclass(slots=True)
class DataStats:
    """Sums over the sampled groups."""

    groups: int = 0  # sampled groups
    of_groups: int = 0  # all groups
    per_prompt: Counter[int] = field(default_factory=Counter)  # number of instructions -> prompts, without the original
    margins: int = 0  # groups with a margin
    nonpositive_margins: int = 0  # groups with a margin of 0 or below
    levels: Counter[str] = field(default_factory=Counter)
    flags: dict[str, Counter[tuple[str, bool]]] = field(default_factory=dict)  # function -> (response, satisfied)
    words: dict[str, list[int]] = field(default_factory=lambda: {"prompt": [], "chosen": [], "rejected": []})
    kept: list[RelationGroup] = field(default_factory=list)

    def add(self, batch: pa.RecordBatch, keep_every: int) -> None:
        """Count the groups of a batch with all columns, and keep every n-th group as an object.

        Raises `UserError` for a sequence with another number of flags than its prompt has instructions.
        """
        margins = pc.drop_null(batch.column("margin"))
        self.margins += len(margins)
        self.nonpositive_margins += pc.sum(pc.less_equal(margins, 0.0)).as_py() or 0
        self.levels.update(value_counts(batch.column("relations").flatten().field("level")))
        self._add_instructions(batch)
        self._add_words(batch)
        wanted = [row for row in range(batch.num_rows) if (self.groups + row) % keep_every == 0]
        for row in wanted[: max(0, KEPT_GROUPS - len(self.kept))]:
            self.kept += map(RelationGroup.from_row, batch.slice(row, 1).to_pylist())
        self.groups += batch.num_rows

    def _add_instructions(self, batch: pa.RecordBatch) -> None:
        """Dimensions: G groups, P prompts, S sequences, I instructions, F flags."""
        by_prompt = batch.column("instructions")
        prompts_G, of_prompts = _lengths(by_prompt), by_prompt.flatten()
        number_P, first_G = _lengths(of_prompts), _starts(_lengths(by_prompt))
        self.per_prompt.update(np.delete(number_P, first_G[prompts_G > 0]).tolist())
        cells = batch.column("sequences")
        sequences = cells.flatten()
        group_S = np.repeat(np.arange(batch.num_rows), _lengths(cells))
        prompt_S = first_G[group_S] + _numbers(sequences.field("prompt"))
        satisfied = sequences.field("satisfied")
        flags_S = _lengths(satisfied)
        if (wrong_S := flags_S != number_P[prompt_S]).any():
            pair = batch.column("pair_id")[int(group_S[np.argmax(wrong_S)])].as_py()
            raise UserError(f"pair {pair}: a sequence has more or fewer flags than its prompt has instructions.")
        # A flag and its instruction have the same index, in the sequence's list and in the prompt's list.
        place_F = np.arange(flags_S.sum()) - np.repeat(_starts(flags_S), flags_S)
        instruction_F = np.repeat(_starts(number_P)[prompt_S], flags_S) + place_F
        names = of_prompts.flatten().field("name").dictionary_encode()
        response_F = np.repeat(_numbers(sequences.field("response")), flags_S)
        code_F = (_numbers(names.indices)[instruction_F] * 2 + response_F) * 2 + _numbers(satisfied.flatten())
        for code, count in enumerate(np.bincount(code_F, minlength=1).tolist()):
            if count:
                name = names.dictionary[code // 4].as_py()
                self.flags.setdefault(name, Counter())[_RESPONSES[code // 2 % 2], bool(code % 2)] += count

    def _add_words(self, batch: pa.RecordBatch) -> None:
        for prompts in pc.list_element(batch.column("prompts"), 0).to_pylist():
            self.words["prompt"].append(sum(len(message["content"].split()) for message in prompts))
        for index, name in enumerate(_RESPONSES):
            texts = pc.list_element(batch.column("responses"), index).to_pylist()
            self.words[name] += [len(text.split()) for text in texts]


def data_stats(data_sets: list[tuple[Path, Manifest]]) -> DataStats:
    """Statistics of the groups of all data sets (one per split)."""
    stats = DataStats(of_groups=sum(manifest.rows for _, manifest in data_sets))
    keep_every = max(1, -(-min(stats.of_groups, SAMPLED_GROUPS) // KEPT_GROUPS))
    for directory, manifest in data_sets:
        for batch in sample_batches(directory, manifest):
            stats.add(batch, keep_every)
    return stats


def value_counts(values: pa.Array | pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs, in the order of first occurrence."""
    return Counter({one["values"]: one["counts"] for one in pc.value_counts(values).to_pylist()})


def _lengths(lists: pa.Array) -> IntArray:
    return _numbers(pc.list_value_length(lists))


def _starts(lengths: IntArray) -> IntArray:
    """The index of each list's first value among all values."""
    return np.cumsum(lengths) - lengths


def _numbers(values: pa.Array) -> IntArray:
    numbers: IntArray = values.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers
