"""Random access to the groups of a finished data set, with their token ids and sizes, as Arrow columns: in memory, or
memory-mapped from files that all ranks of a machine share (`mapped_files`).
"""

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
from mapl_ray.data.kept_tokens import KeptTokens
from mapl_ray.data.records import GROUP_SCHEMA, LEVEL_FAMILIES, TOKEN_SCHEMA, Rejection, RelationGroup
from mapl_ray.data.shards import Manifest, read_manifest, verify_part
from mapl_ray.errors import UserError
from mapl_ray.training.mapped_files import UintArray, mapped_or_own, mapped_table, shared_array
from mapl_ray.training.plan import fill_sizes

# Bytes of Parquet (four to five times as many in memory). For less data, a copy per rank is cheaper than a shared file.
MAPPED_FROM = 2**26


class GroupTable:
    """Groups by index, kept as Arrow columns; objects are created on access."""

    def __init__(
        self,
        directory: Path,
        needs_margin: bool = False,
        tokens: KeptTokens | None = None,
        mapped_from: int = MAPPED_FROM,
    ) -> None:
        """Open a data set of groups.

        Args:
            directory: folder of the data set.
            needs_margin: whether at least one group must have a margin.
            tokens: data set of kept token ids, so that nothing is tokenized. If it is missing, damaged, or of other
                groups, prints a message and does not use it.
            mapped_from: total bytes of parts from which on they are memory-mapped. Prints a message and reads them into
                memory if they can't be.

        Raises `UserError` for an unfinished, damaged or empty data set, and for missing margins.
        """
        self.directory = directory
        # Each rank verifies the parts that it reads.
        self.manifest: Manifest = read_manifest(directory, verify=False)
        self._mapped_from = mapped_from
        self._table = self._read("groups", directory, self.manifest, GROUP_SCHEMA)
        self._tokens = None if tokens is None else self._read_tokens(tokens)
        self._sizes: dict[tuple[frozenset[str], str], UintArray] = {}
        if len(self) == 0:
            raise UserError(f"{directory}: no groups. See the rejected-*.jsonl files there for the reasons.")
        if needs_margin and self._table["margin"].null_count == len(self):
            raise UserError(
                f"{directory}: no group has a margin, and train.objective.margin_scale needs them. Give the pairs a "
                "column `margin` (or score_chosen and score_rejected) and synthesize again, or set margin_scale=0."
            )

    def _read(self, what: str, directory: Path, manifest: Manifest, schema: pa.Schema) -> pa.Table:
        parts = partial(_parts, directory, manifest, schema)

        def own() -> pa.Table:
            return pa.concat_tables([schema.empty_table(), *parts()])

        if not self._is_large(directory, manifest):
            return own()
        name = self.manifest.content_hash
        if manifest is not self.manifest:
            name += f"-{manifest.content_hash[:32]}"
        return mapped_or_own(what, lambda: mapped_table(name, schema, parts), own)

    def _is_large(self, directory: Path, manifest: Manifest) -> bool:
        files = [directory / part.file for part in manifest.parts]
        return sum(file.stat().st_size for file in files if file.is_file()) >= self._mapped_from

    def _read_tokens(self, tokens: KeptTokens) -> pa.Table | None:
        try:
            manifest = read_manifest(tokens.folder, verify=False)
            if manifest.fingerprint != tokens.fingerprint(self.manifest):
                raise UserError(f"{tokens.folder}: not of the groups in {self.directory} and this model")
            return self._read("token ids", tokens.folder, manifest, TOKEN_SCHEMA)
        except UserError as error:
            print(f"  kept token ids are not used, groups are tokenized during training: {error}", flush=True)
            return None

    @property
    def has_ref_logps(self) -> bool:
        """Whether every group has ref_logps."""
        return bool(self._table["ref_logps"].null_count == 0)

    @property
    def is_large(self) -> bool:
        """Whether the ranks of a machine should share arrays with one value per group."""
        return self._is_large(self.directory, self.manifest)

    def sizes(self, config: TrainConfig, learn: bool = True) -> UintArray:
        """Size of every group, which estimates its cost (`fill_sizes`), uint32 [G]; cached. `learn=False` includes
        levels of weight 0."""
        families = frozenset(config.weights.families if learn else LEVEL_FAMILIES)
        kind = (families, config.batching)
        if kind not in self._sizes:
            self._sizes[kind] = shared_array(
                f"{self.manifest.content_hash}-sizes",
                [sorted(families), config.batching],
                len(self),
                partial(fill_sizes, table=self._table, families=families, batching=config.batching),
                mapped=self.is_large,
            )
        return self._sizes[kind]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> RelationGroup:
        return RelationGroup.from_row(self._table.slice(index, 1).to_pylist()[0])

    def token_ids(self, index: int) -> TokenIds | None:
        """Kept token ids of a group; None if there are none."""
        return None if self._tokens is None else TokenIds.from_row(self._tokens.slice(index, 1).to_pylist()[0])


def _parts(directory: Path, manifest: Manifest, schema: pa.Schema) -> Iterator[pa.Table]:
    for part in manifest.parts:
        verify_part(directory, part)
        # A file handle, not a path: pyarrow would interpret `key=value` folders in the path as partitions.
        with (directory / part.file).open("rb") as handle:
            yield pq.read_table(handle, schema=schema)


# Groups of the last kind are truncated, the others are left out.
REASONS = ("too_long", "refused_by_template", "ref_logps_of_whole_prompt", "prompt_truncated")


@dataclass(frozen=True, slots=True)
class Encoded:
    """Groups ready to collate, and the number of groups that were left out or truncated, by reason."""

    groups: list[EncodedGroup]
    counts: Counter[str]  # by REASONS


def encode_all(
    table: GroupTable, indices: list[int], tokenizer: Any, config: TrainConfig, takes_ref_logps: bool = False
) -> Encoded:
    """Encode some groups of the table.

    Groups that are too long are left out or truncated, according to `train.truncate_prompt`. Groups that the chat
    template refuses are left out. If the data's `ref_logps` are used, truncated groups are left out too, as their
    `ref_logps` are of the full prompts.
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
