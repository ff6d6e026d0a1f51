"""Random access to the groups of a finished data set, held as Arrow columns: in memory, or mapped into it from a file
that all ranks of a machine share.

The mapped file is in a folder of the user's own below the machine's temporary folder (`TMPDIR`), named by its content.
The first rank writes it, the others wait for it; the last one that leaves removes it. What a rank that was killed
leaves behind serves the next one of the same content, and goes when one of another content comes. Every rank compares
the file with the digest beside it, and a damaged one is written again.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mapl_ray.batches import RENDER, EncodedGroup, TokenIds, encode_group
from mapl_ray.config import TrainConfig
from mapl_ray.data.records import GROUP_SCHEMA, LEVEL_FAMILIES, TOKEN_SCHEMA, Rejection, RelationGroup
from mapl_ray.data.shards import Manifest, file_sha256, read_manifest
from mapl_ray.errors import UserError
from mapl_ray.private_files import private_folder
from mapl_ray.training.plan import IntArray, group_sizes
from mapl_ray.unfinished import leftovers, unfinished

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


_PATIENCE_SECONDS = 10.0  # for others to give a damaged file back, time in which one of them writes it aside


def mapped_table(name: str, schema: pa.Schema, make: Callable[[], Iterable[pa.Table]]) -> pa.Table:
    """The concatenated tables of `make`, from a file that is mapped and stays while the result lives.

    Args:
        name: identifies the content; usable as a file name.
        make: called where the file is not there yet; one table is held at a time.

    Raises `OSError` where the file can't be written, no room among the reasons, and where another run uses a damaged
    one.
    """
    folder = private_folder("mapl-groups")
    path, lock = folder / f"{name}.arrow", _locked(folder / f"{name}.lock", fcntl.LOCK_SH)
    try:
        _remove_unused(folder, path)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _is_whole(path):
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # one rank writes
                if not _is_whole(path):
                    _write(path, schema, make())
                deadline = time.monotonic() + _PATIENCE_SECONDS
            time.sleep(random.uniform(0.01, 0.1))  # two that keep each other from writing
            waits = time.monotonic()
            fcntl.flock(lock, fcntl.LOCK_SH)  # waits for the one that does
            deadline += time.monotonic() - waits
            if time.monotonic() > deadline:
                raise OSError(f"{path} is damaged, and ranks of another run have it open")
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except BaseException:
        os.close(lock)
        raise
    weakref.finalize(table, _release, path, lock)
    return table


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    for leftover in leftovers(path):  # of a rank that was killed; no other writes now
        leftover.unlink()
    aside = unfinished(path)
    try:
        with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for table in tables:
                writer.write_table(table)
        digest = file_sha256(aside)
        aside.rename(path)
        _digest_path(path).write_text(digest, encoding="ascii")
    finally:
        aside.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    try:
        return _digest_path(path).read_bytes() == file_sha256(path).encode()
    except FileNotFoundError:
        return False


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _remove_unused(folder: Path, ours: Path) -> None:
    for path in folder.glob("*.arrow"):
        if path != ours:
            with suppress(BlockingIOError):
                _release(path, _locked(path.with_suffix(".lock"), fcntl.LOCK_SH | fcntl.LOCK_NB))


def _release(path: Path, lock: int) -> None:
    """Give the lock back, and remove the file where nobody else has it. The lock's own file stays: it is empty, and
    removing one that another rank has just opened would leave two ranks with a lock each."""
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        _digest_path(path).unlink(missing_ok=True)
    os.close(lock)


def _locked(path: Path, how: int) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, how)
    except BaseException:
        os.close(handle)
        raise
    return handle
