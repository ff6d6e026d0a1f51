"""Prepare the input of all stages: pairs in shards that do not depend on the order of the input, and a model.

Pairs are prepared in passes (`passes.py`), whose files are in `pairs/work-*` until the pairs are finished:

    read       rows of the sources -> pieces of pairs, and rejections (`prepare_read.py`)
    compare    keys of all pieces -> pairs that share a key with another pair: only these can be duplicates
    decide     which of those are kept, in canonical order, in this process (`prepare_compare.py`)
    write      pieces -> parts (`prepare_write.py`)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from mapl_ray.aside import set_aside, set_parts_aside
from mapl_ray.awaited import await_files
from mapl_ray.config import RunConfig
from mapl_ray.data.records import PAIR_SCHEMA, Rejection, canonical_json
from mapl_ray.data.shards import (
    Manifest,
    Part,
    commit,
    fingerprint_of,
    finished,
    finished_part,
    iter_rows,
    read_manifest,
    read_notes,
    read_table,
    write_atomically,
    write_part,
)
from mapl_ray.distributed.passes import Entry, Pass, run_pass
from mapl_ray.distributed.prepare_compare import decided
from mapl_ray.distributed.prepare_read import ReadPairs, items_as_json, plan_items, read_all
from mapl_ray.distributed.prepare_write import PartRange, WriteContext, plan_ranges, rejected_pairs, write_range
from mapl_ray.errors import RunError, UserError
from mapl_ray.lease import lease, lease_path
from mapl_ray.models import check_model_directory
from mapl_ray.preferences import benchmark_digests, source_identity
from mapl_ray.preferences.pieces import pairs_in
from mapl_ray.progress import progress

SPLITS = ("train", "eval")
_READING = 2  # version of the rules that turn rows into pairs; pairs of another version are read again
_WORK = 1  # version of the passes' files; files of another version are removed
_BUILD_SECONDS = 600.0  # limit for building a tiny model


@dataclass(frozen=True, slots=True)
class Sizes:
    """How the work is divided. The result does not depend on it, except which pairs a chat template is tried on."""

    item_bytes: int = 64_000_000  # source text that one task reads
    piece_chars: int = 64_000_000  # size of a piece, which is in memory twice while it is sorted
    range_bytes: int = 64_000_000  # size of the parts that one task writes
    keys: int = 4_000_000  # keys of a band that one task compares


SIZES = Sizes()


def prepare_pairs(config: RunConfig) -> dict[str, Manifest]:
    """Read the source into `data_dir/pairs/{train,eval}`; skipped if already done.

    A pair's split, shard and position depend only on its content, so any order of the input and any number of workers
    give the same bytes. Rejected rows are counted in the train split; over both splits accepted + rejected = input
    rows. A run that was killed resumes with the unfinished items of its passes. Raises `UserError` for a source or
    benchmark that can't be read, and if no pair is left to train on.
    """
    template = _template(config)
    fingerprint = _fingerprint(config, template)
    folder = config.data_dir / "pairs"
    there = {split: finished(folder / split, fingerprint) for split in SPLITS}
    if all(there.values()):
        _remove_work(folder)
        return {split: manifest for split, manifest in there.items() if manifest is not None}
    for split in SPLITS:
        set_parts_aside(folder / split, fingerprint, {fingerprint})
    items = plan_items(config.data, SIZES.item_bytes)
    # One folder per division of the work, so that a worker that outlives its run can't write into another run's.
    identity = {"pairs": fingerprint, "files": _WORK, "items": items_as_json(items), **asdict(SIZES)}
    work = folder / f"work-{fingerprint_of(identity)[:16]}"
    _remove_work(folder, but=work)
    try:
        pairs = read_all(config, items, work / "read", template, SIZES.piece_chars)
        _print_margins(config, pairs)
        decisions = decided(config, work, pairs.pieces, SIZES.keys)
        manifests = _written(config, work, pairs, decisions, fingerprint)
    except UserError:
        _remove_work(folder)  # after the user's fix the files will differ
        raise
    _remove_work(folder)
    return manifests


def resolve_model(config: RunConfig) -> str:
    """Directory or hub name of the base model. A tiny model is built from the train pairs if it is missing."""
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
        # Several concurrent stages may need it first.
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


def _template(config: RunConfig) -> str | None:
    """Digest of the chat template that pairs are tried with; None, with the reason printed, if there is none."""
    if config.model.name_or_path == "tiny":
        return None
    from mapl_ray.distributed.group_templates import template_check, template_digest  # torch takes seconds

    digest = template_digest(config)
    if digest is None:
        template_check(config)  # prints why
    return digest


def _remove_work(folder: Path, but: Path | None = None) -> None:
    """Remove the passes' files, except the folder `but`, which a killed run resumes from."""
    for work in folder.glob("work-*"):
        if work != but:
            shutil.rmtree(work, ignore_errors=True)


def _print_margins(config: RunConfig, pairs: ReadPairs) -> None:
    if pairs.nonpositive:
        other = {"keep": "drop leaves them out", "drop": "keep takes them"}[config.data.nonpositive_margins]
        print(
            f"  margins: {pairs.nonpositive} of {pairs.with_margin} pairs have a margin of 0 or below, so chosen is "
            f"not better than rejected: data.nonpositive_margins={config.data.nonpositive_margins} ({other})",
            flush=True,
        )


def _written(config: RunConfig, work: Path, pairs: ReadPairs, decisions: Path, fingerprint: str) -> dict[str, Manifest]:
    counts, targets = pairs.counts, {split: config.data_dir / "pairs" / split for split in SPLITS}
    parts = {split: max(1, -(-counts[split] // config.synthesis.rows_per_shard)) for split in SPLITS}
    total = sum(counts.values())
    pair_bytes = sum(piece.path.stat().st_size for piece in pairs.pieces) / total
    ranges = plan_ranges(counts, parts, pair_bytes, SIZES.range_bytes)
    context = WriteContext(pairs.pieces, decisions, work / "write", targets, parts, fingerprint)
    one = Pass("write", work / "write", partial(write_range, context=context))
    _forget_damaged(one, ranges, context)
    small = total * pair_bytes <= SIZES.range_bytes
    entries = run_pass(one, ranges, config.cluster.synthesis_workers, here=small)
    made = {split: _parts_of(split, ranges, entries) for split in SPLITS}
    rows = {split: sum(part.rows for part in made[split]) for split in SPLITS}
    rejected = pairs.rejected + sum(entry["rejected"] for entry in entries)
    if (now := sum(rows.values()) + rejected) != total + pairs.rejected:
        _remove_work(work.parent)
        raise RunError(
            f"{work.parent}: {now} rows after the last pass, expected {total + pairs.rejected}. Check that no other "
            "run works there, and run it again."
        )
    if not rows["train"]:
        raise UserError(
            f"data.path={config.data.path!r}: no pair is left to train on: {rows['eval']} were held out, "
            f"{rejected} rows rejected. Lower data.eval_fraction, or check data.benchmarks."
        )
    with progress("write rejections", rejected, "rows"):
        rejections = chain(pairs.rejected_rows(), rejected_pairs(work / "write", ranges))
        made["train"][-1] = _with_rejections(targets["train"], made["train"][-1], rejections)
    return {split: commit(targets[split], "prepare", fingerprint, made[split]) for split in reversed(SPLITS)}


def _forget_damaged(one: Pass, ranges: Sequence[PartRange], context: WriteContext) -> None:
    """After a killed run, mark items whose parts were removed or damaged since as not done."""
    for index, item in enumerate(ranges):
        entry = one.entry(index)
        parts = [] if entry is None else _parts_of(item.split, [item], [entry])
        if any(finished_part(context.targets[item.split], p.index, context.fingerprint) is None for p in parts):
            one.entry_path(index).unlink()


def _parts_of(split: str, ranges: Sequence[PartRange], entries: Sequence[Entry]) -> list[Part]:
    of_split = [entry for one, entry in zip(ranges, entries, strict=True) if one.split == split]
    return [Part(**values) for entry in of_split for values in entry["parts"]]


def _with_rejections(target: Path, part: Part, rejections: Iterator[Rejection]) -> Part:
    """Write the part again, with its rejections."""
    await_files(target, [part.file])
    table = pairs_in(read_table(target, part))  # Parquet renames the items of list columns
    notes = read_notes(target, part)
    return write_part(target, part.index, table, rejections, PAIR_SCHEMA, part.fingerprint, notes)


def _fingerprint(config: RunConfig, template: str | None) -> str:
    sources = [source_identity(part) for part in config.data.parts()]
    # Files are identified by their digests, not their path. For a hub data set the name is all there is.
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
            "chat template": template,
        }
    )


def _texts(pairs: Path) -> Iterator[str]:
    for row in iter_rows(pairs):
        yield from (message["content"] for message in row["prompt"])
        yield row["chosen"]
        yield row["rejected"]
