"""What every stage starts from: pairs in shards that do not depend on the order of the input, and a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mapl_ray.aside import set_aside, set_parts_aside
from mapl_ray.config import RunConfig
from mapl_ray.data.records import PAIR_SCHEMA, PreferencePair, Rejection, canonical_json
from mapl_ray.data.shards import (
    Manifest,
    Part,
    commit,
    fingerprint_of,
    finished,
    iter_rows,
    read_manifest,
    write_atomically,
    write_part,
)
from mapl_ray.distributed.group_templates import template_check, template_digest
from mapl_ray.distributed.row_numbers import SOURCE_ROWS
from mapl_ray.errors import RunError, UserError
from mapl_ray.lease import lease, lease_path
from mapl_ray.models import check_model_directory
from mapl_ray.preferences import (
    MARGIN_STAGE,
    Contamination,
    Duplicates,
    RejectionFile,
    Spill,
    benchmark_digests,
    eval_split,
    place_of,
    read_pairs,
    source_identity,
)
from mapl_ray.progress import progress, tracked

SPLITS = ("train", "eval")
_READING = 2  # of the rules by which rows become pairs; pairs that other ones made are read again
_BUILD_SECONDS = 600.0  # at the most, to build a tiny model


def prepare_pairs(config: RunConfig) -> dict[str, Manifest]:
    """Read the source into `data_dir/pairs/{train,eval}`, skipped where it is there already.

    A pair's split, shard and place follow from its content alone, so every order of the input gives the same bytes. No
    text stays in memory, only what `Duplicates` remembers of a pair. Rows that could not be used are counted with the
    train split; over both splits accepted + rejected = input rows. Raises `UserError` for a source or benchmark that
    can't be read, and where no pair is left to train on.
    """
    fingerprint = _fingerprint(config)
    folder = config.data_dir / "pairs"
    there = {split: finished(folder / split, fingerprint) for split in SPLITS}
    if all(there.values()):
        return {split: manifest for split, manifest in there.items() if manifest is not None}
    for split in SPLITS:
        set_parts_aside(folder / split, fingerprint, {fingerprint})
    with progress("read benchmarks"):  # before the hours that reading may take
        contamination = Contamination.load(config.data)
    with Spill(folder / "spill") as spill, RejectionFile(spill.directory / "rejected.jsonl") as rejected:
        counts = _read(config, spill, rejected)
        total = sum(counts.values()) + rejected.count
        writers = {split: ShardWriter(folder / split, counts[split], config, fingerprint) for split in SPLITS}
        pairs = tracked(spill.sorted(), "look for duplicates and benchmark prompts", "pairs", sum(counts.values()))
        for pair in _kept(pairs, Duplicates(config.data), contamination, rejected):
            writers[_split_of(pair, config)].add(pair)
        if not writers["train"].rows:
            raise UserError(
                f"data.path={config.data.path!r}: no pair is left to train on: {writers['eval'].rows} were held out, "
                f"{rejected.count} rows rejected. Lower data.eval_fraction, or look at data.benchmarks."
            )
        if (now := sum(writer.rows for writer in writers.values()) + rejected.count) != total:
            raise RunError(f"{folder}: {now} of {total} rows came back. Does another run work there? Run it again.")
        return {split: writers[split].finish(rejected.read() if split == "train" else ()) for split in reversed(SPLITS)}


def resolve_model(config: RunConfig) -> str:
    """Directory or hub name of the base model; a tiny one is built from the train pairs if it is not there."""
    name = config.model.name_or_path
    if name != "tiny":
        check_model_directory(name, config.model.revision)
        return str(Path(name).expanduser().resolve()) if Path(name).expanduser().is_dir() else name
    pairs = config.data_dir / "pairs" / "train"
    directory, mark = config.data_dir / "model", config.data_dir / "model.json"
    identity = {
        "pairs": read_manifest(pairs).content_hash,
        "tiny": config.model.tiny.model_dump(mode="json"),
        "seed": config.seed,
    }
    text = canonical_json(identity)
    if not _is_marked(directory, mark, text):
        # Stages that run side by side may all need it first.
        with lease(lease_path(config.data_dir, "model"), patience_seconds=_BUILD_SECONDS):
            if not _is_marked(directory, mark, text):
                if directory.is_dir():
                    set_aside(directory)
                from mapl_ray.models import build_tiny  # torch takes seconds

                build_tiny(directory, _texts(pairs), config.model.tiny, config.seed)
                write_atomically(mark, lambda aside: aside.write_text(text, encoding="utf-8"))
    return str(directory)


def _is_marked(directory: Path, mark: Path, text: str) -> bool:
    return directory.is_dir() and mark.is_file() and mark.read_bytes() == text.encode()


def _read(config: RunConfig, spill: Spill, rejected: RejectionFile) -> dict[str, int]:
    """Fill `spill` and `rejected` from the source; the number of pairs of either split. Raises `UserError` for none."""
    counts = dict.fromkeys(SPLITS, 0)
    with_margin = nonpositive = 0
    for item in tracked(read_pairs(config.data, config.seed, template_check(config)), "read", "rows"):
        if isinstance(item, Rejection):
            rejected.add(item)
            low = item.stage == MARGIN_STAGE
            with_margin += low
        else:
            spill.add(item)
            counts[_split_of(item, config)] += 1
            low = item.margin is not None and item.margin <= 0.0
            with_margin += item.margin is not None
        nonpositive += low
    if nonpositive:
        other = {"keep": "drop leaves them out", "drop": "keep takes them"}[config.data.nonpositive_margins]
        print(
            f"  margins: {nonpositive} of {with_margin} pairs have a margin of 0 or below, so chosen is not the better "
            f"one: data.nonpositive_margins={config.data.nonpositive_margins} ({other})",
            flush=True,
        )
    if not any(counts.values()):
        shown = "; ".join(f"row {r.row}: {r.reason}" for r in islice(rejected.read(), 3))
        raise UserError(f"data.path={config.data.path!r}: no row of {rejected.count} could be used ({shown}).")
    return counts


def _split_of(pair: PreferencePair, config: RunConfig) -> str:
    return "eval" if eval_split(pair, config.data.eval_fraction, config.seed) else "train"


def _kept(
    pairs: Iterator[PreferencePair], duplicates: Duplicates, contamination: Contamination, rejected: RejectionFile
) -> Iterator[PreferencePair]:
    """Pairs in canonical order without second ones of an id, duplicates and benchmark prompts; these are rejected.

    Of several the first in that order stays, whatever the order of the input.
    """
    kept = None
    for pair in pairs:
        if pair.pair_id == kept:
            reason = f"id {pair.pair_id!r} occurs more than once: expected one row an id; one of them was kept"
            rejected.add(Rejection(pair.source, pair.row, pair.pair_id, "read", reason))
        elif (found := contamination.found(pair)) is not None:
            rejected.add(Rejection(pair.source, pair.row, pair.pair_id, "contamination", found))
        elif (first := duplicates.first_like(pair)) is not None:
            nearly = "nearly " if duplicates.mode == "near" else ""
            reason = f"{nearly}the same as pair {first!r} (data.duplicates={duplicates.mode})"
            rejected.add(Rejection(pair.source, pair.row, pair.pair_id, "duplicates", reason))
        else:
            kept = pair.pair_id
            yield pair


class ShardWriter:
    """Pairs in the order of `place_of` -> parts of about `rows_per_shard`; which part a pair is in, its id decides.

    A pair more or less changes its own part and leaves the others as they were, up to the next multiple of parts.
    """

    def __init__(self, directory: Path, total: int, config: RunConfig, fingerprint: str) -> None:
        self._directory, self._fingerprint = directory, fingerprint
        self._number = max(1, -(-total // config.synthesis.rows_per_shard))
        self._parts: list[Part] = []
        self._buffer: list[dict[str, Any]] = []
        self._rows: list[int] = []  # in their sources, of the pairs of the buffer
        self.rows = 0

    def add(self, pair: PreferencePair) -> None:
        """Take the next pair."""
        while int(place_of(pair.pair_id) * self._number) > len(self._parts):
            self._write(())
        self._buffer.append(pair.to_row())
        self._rows.append(pair.row)
        self.rows += 1

    def finish(self, rejections: Iterable[Rejection]) -> Manifest:
        """Write what is left, the rejections with the last part, and the manifest."""
        while len(self._parts) < self._number - 1:
            self._write(())
        self._write(rejections)
        return commit(self._directory, "prepare", self._fingerprint, self._parts)

    def _write(self, rejections: Iterable[Rejection]) -> None:
        index = len(self._parts)
        notes = {SOURCE_ROWS: self._rows}
        part = write_part(self._directory, index, self._buffer, rejections, PAIR_SCHEMA, self._fingerprint, notes)
        self._parts.append(part)
        self._buffer, self._rows = [], []


def _fingerprint(config: RunConfig) -> str:
    sources = [source_identity(part) for part in config.data.parts()]
    # A path says nothing that the files' digests do not say better; a hub's name is all there is.
    data = config.data.model_dump(mode="json", exclude={"path", "benchmarks"} if all(sources) else {"benchmarks"})
    return fingerprint_of(
        {
            "data": data,
            "files": sources,
            "benchmarks": benchmark_digests(config.data),
            "seed": config.seed,
            "rows_per_shard": config.synthesis.rows_per_shard,
            "columns": PAIR_SCHEMA.names,
            "reading": _READING,
            "chat template": template_digest(config),
        }
    )


def _texts(pairs: Path) -> Iterator[str]:
    for row in iter_rows(pairs):
        yield from (message["content"] for message in row["prompt"])
        yield row["chosen"]
        yield row["rejected"]
