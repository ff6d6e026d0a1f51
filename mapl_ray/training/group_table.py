"""Random access to the groups of a finished data set, held as Arrow columns: in memory, or mapped into it from a file
that all ranks of a machine share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mapl_ray.batches import RENDER, EncodedGroup, TokenIds, encode_group
from mapl_ray.config import TrainConfig
from mapl_ray.errors import UserError
from mapl_ray.records import GROUP_SCHEMA, LEVEL_FAMILIES, TOKEN_SCHEMA, Rejection, RelationGroup
from mapl_ray.shards import Manifest, read_manifest
from mapl_ray.training.group_sizes import IntArray, group_sizes
from mapl_ray.training.mapped_table import mapped_table

# Bytes of Parquet, four or five times as many in memory: below that a copy per rank costs less than a file per machine.
MAPPED_FROM = 2**26


class GroupTable:
    """Groups by index; objects are made on access, the rest stays in Arrow's compact form."""

    def __init__(
        self,
        directory: Path,
        needs_margin: bool = False,
        tokens: Path | None = None,
        mapped_from: int = MAPPED_FROM,
    ) -> None:
        """With token ids made before, where `tokens` names their data set: nothing is tokenized then. Parts of
        `mapped_from` bytes in all, or more, are mapped; a message where there is no room for it.

        Raises `UserError` for an unfinished, damaged or empty data set, for one without a single margin where
        `needs_margin`, and for tokens of other groups.
        """
        self.directory = directory
        self.manifest: Manifest = read_manifest(directory)
        self._table = self._read(mapped_from)
        self._tokens = None if tokens is None else _tokens(tokens)
        if self._tokens is not None and self._tokens["pair_id"] != self._table["pair_id"]:
            raise UserError(f"{tokens}: not of the groups in {directory}. Delete it; the next search makes it again.")
        if len(self) == 0:
            raise UserError(f"{directory}: no groups. See the rejected-*.jsonl files there for the reasons.")
        if needs_margin and self._table["margin"].null_count == len(self):
            raise UserError(
                f"{directory}: no group has a margin, and train.objective.margin_scale needs them. Give the pairs a "
                "column `margin` (or score_chosen and score_rejected) and synthesize again, or set margin_scale=0."
            )

    def _read(self, mapped_from: int) -> pa.Table:
        parts = partial(_parts, self.directory, self.manifest, GROUP_SCHEMA)
        if sum((self.directory / part.file).stat().st_size for part in self.manifest.parts) >= mapped_from:
            try:
                return mapped_table(self.manifest.content_hash, GROUP_SCHEMA, parts)
            except OSError as error:
                print(f"  groups in every worker's memory, for they can't be mapped (TMPDIR): {error}", flush=True)
        return pa.concat_tables([GROUP_SCHEMA.empty_table(), *parts()])

    @property
    def has_ref_logps(self) -> bool:
        """Whether every group was scored."""
        return bool(self._table["ref_logps"].null_count == 0)

    def sizes(self, config: TrainConfig, learn: bool = True) -> IntArray:
        """How much there is to compute in every group (`group_sizes`); without `learn`, levels of weight 0 too."""
        return group_sizes(self._table, config.weights.families if learn else LEVEL_FAMILIES, config.batching)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> RelationGroup:
        return RelationGroup.from_row(self._table.slice(index, 1).to_pylist()[0])

    def token_ids(self, index: int) -> TokenIds | None:
        """Of a group, where they were made before."""
        return None if self._tokens is None else TokenIds.from_row(self._tokens.slice(index, 1).to_pylist()[0])


def _parts(directory: Path, manifest: Manifest, schema: pa.Schema) -> Iterator[pa.Table]:
    for part in manifest.parts:
        # A file handle, not a path: pyarrow would read `key=value` folders above it as partitions.
        with (directory / part.file).open("rb") as handle:
            yield pq.read_table(handle, schema=schema)


def _tokens(directory: Path) -> pa.Table:
    return pa.concat_tables([TOKEN_SCHEMA.empty_table(), *_parts(directory, read_manifest(directory), TOKEN_SCHEMA)])


# The last one is cut, not left out.
REASONS = ("too_long", "refused_by_template", "ref_logps_of_whole_prompt", "prompt_truncated")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Groups ready to collate, and how many were left out or cut, by reason."""

    groups: list[EncodedGroup]
    counts: Counter[str]  # of REASONS


def encode_all(
    table: GroupTable, indices: list[int], tokenizer: Any, config: TrainConfig, takes_ref_logps: bool = False
) -> Encoded:
    """Encode some groups of the table; what is too long is left out or cut, as `train.truncate_prompt` says, and what
    the chat template does not take is left out.

    A cut group is left out where the data's `ref_logps` are taken: they are of the whole prompts.
    """
    groups: list[EncodedGroup] = []
    counts: Counter[str] = Counter()
    for index in indices:
        ids = table.token_ids(index)
        group = encode_group(table[index], tokenizer, config.max_sequence_tokens, config.truncate_prompt, ids)
        if isinstance(group, Rejection):
            counts["refused_by_template" if group.stage == RENDER else "too_long"] += 1
        elif group.truncated and takes_ref_logps:
            counts["ref_logps_of_whole_prompt"] += 1
        else:
            counts["prompt_truncated"] += group.truncated
            groups.append(group)
    return Encoded(groups, +counts)
