"""First pass of preparation: rows of the sources -> pieces of pairs, and rejections.

An item is a run of consecutive slices of sources (files, row groups of Parquet files, files of hub data sets): several
small ones, or one large one. Each pair is read, split, hashed and compared with the benchmarks in the same task.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapl_ray.config import DataConfig, RunConfig
from mapl_ray.data.records import PreferencePair, Rejection
from mapl_ray.data.shards import fingerprint_of
from mapl_ray.distributed.passes import Entry, Pass, run_pass
from mapl_ray.errors import UserError
from mapl_ray.preferences import MARGIN_STAGE, Contamination, benchmark_digests, is_uri
from mapl_ray.preferences.mix import apply_weight
from mapl_ray.preferences.pieces import Piece, PieceWriter
from mapl_ray.preferences.read import Results, no_rows, read_slice
from mapl_ray.preferences.rejection_file import RejectionFile, read_rejections
from mapl_ray.preferences.source import Slice, Source
from mapl_ray.preferences.sources import check_columns, open_sources
from mapl_ray.progress import progress, tracked

if TYPE_CHECKING:
    from mapl_ray.models import TemplateCheck

_NAMED = 3  # number of rejected rows shown in a message


@dataclass(frozen=True, slots=True)
class SourceSlices:
    """Slices of sources of one part of `config.data.parts()`, with an optional limit on their rows."""

    part: int
    slices: tuple[tuple[Source, Slice], ...]
    limit: int | None = None


Item = tuple[SourceSlices, ...]


@dataclass(frozen=True, slots=True)
class ReadContext:
    """Shared arguments of all items."""

    config: RunConfig  # with absolute paths
    folder: Path
    piece_chars: int
    benchmarks: tuple[str, ...]  # digests of the driver's benchmark files
    template: str | None  # digest of the driver's chat template; None: pairs are not checked with one


@dataclass(frozen=True, slots=True)
class ReadPairs:
    """The results of the pass, in source order."""

    pieces: list[Piece]
    rejections: list[tuple[Path, int]]  # a file, and the offset of its row numbers
    rejected: int
    with_margin: int
    nonpositive: int

    @property
    def counts(self) -> dict[str, int]:
        """Number of pairs per split."""
        train = sum(piece.train for piece in self.pieces)
        return {"train": train, "eval": sum(piece.pairs for piece in self.pieces) - train}

    def rejected_rows(self) -> Iterator[Rejection]:
        """Rejections of all rows that gave no pair."""
        for path, first in self.rejections:
            for rejection in read_rejections(path):
                yield moved(rejection, first)


def moved(rejection: Rejection, first_row: int) -> Rejection:
    """The rejection with its row number counted from the start of its source."""
    if not first_row or rejection.row < 0:
        return rejection
    return Rejection(rejection.source, rejection.row + first_row, rejection.pair_id, rejection.stage, rejection.reason)


def read_all(
    config: RunConfig, items: Sequence[Item], folder: Path, template: str | None, piece_chars: int
) -> ReadPairs:
    """Read the items (`plan_items`), on workers if there is more than one.

    Args:
        template: digest of the chat template that pairs are checked with; None: no check.
        piece_chars: approximate number of characters per piece.

    Raises `UserError` for a source or benchmark that can't be read or differs on a worker's node, and if no row gives a
    pair.
    """
    digests = tuple(benchmark_digests(config.data))
    context = ReadContext(_with_absolute_paths(config), folder, piece_chars, digests, template)
    with progress("read benchmarks"):  # fail before reading, which may take hours
        _contamination(context.config.data.benchmarks, config.data.benchmark_ngram, digests)
    work = Pass("read", folder, partial(read_item, context=context))
    return _together(config, items, run_pass(work, items, config.cluster.synthesis_workers, here=False), folder)


def items_as_json(items: Sequence[Item]) -> list[Any]:
    """The division of the sources into items, as JSON values."""
    return [
        [[one.part, one.limit, [[source.name, part.size] for source, part in one.slices]] for one in item]
        for item in items
    ]


def plan_items(config: DataConfig, item_bytes: int) -> list[Item]:
    """All slices of all sources in order, in items of about `item_bytes` each.

    A limit counts rows from the first one, so the sources of a part with a limit are read sequentially in one item.
    """
    items, waiting, size = list[Item](), list[SourceSlices](), 0
    for number, part in enumerate(config.parts()):
        check_columns(part)
        sources = open_sources(part)
        if part.limit is not None:
            whole = tuple((source, Slice(None, source.size)) for source in sources)
            readings = [(SourceSlices(number, whole, part.limit), sum(source.size for source in sources), True)]
        else:
            cut = [(source, one) for source in sources for one in source.slices(item_bytes)]
            readings = [(SourceSlices(number, ((source, one),)), one.size, one.numbered) for source, one in cut]
        for reading, own, numbered in readings:
            if waiting and (size + own > item_bytes or not numbered):
                items.append(tuple(waiting))
                waiting, size = [], 0
            waiting.append(reading)
            size += own if numbered else item_bytes
    return [*items, tuple(waiting)] if waiting else items


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    """The config with absolute paths, because workers start in another folder."""
    names = [name if is_uri(name) else str(Path(name).expanduser().absolute()) for name in config.data.benchmarks]
    model = Path(config.model.name_or_path).expanduser()
    path = str(model.absolute()) if model.is_dir() else config.model.name_or_path
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"benchmarks": tuple(names)}),
            "model": config.model.model_copy(update={"name_or_path": path}),
        }
    )


def read_item(item: Item, number: int, *, context: ReadContext) -> Entry:
    """Write an item's pieces and rejections; returns its entry with their names and counts."""
    config, name = context.config, f"{number:05d}"
    check, parts = _fresh_check(context), config.data.parts()
    with_margin = nonpositive = 0
    rows, first = list[int](), list[list[Any]]()
    contamination = _contamination(config.data.benchmarks, config.data.benchmark_ngram, context.benchmarks)
    writer = PieceWriter(context.folder, name, config.data, config.seed, contamination, context.piece_chars)
    with RejectionFile(rejections_path(context.folder, number)) as rejected:
        for reading in item:
            read = _Counted(islice(_results(reading, parts[reading.part], check), reading.limit))
            pairs: Iterator[PreferencePair | Rejection] = chain.from_iterable(read)
            if config.data.mix:
                pairs = apply_weight(pairs, config.data.mix[reading.part], config.seed)
            for one in tracked(pairs, "read", "rows"):
                if isinstance(one, Rejection):
                    rejected.add(one)
                    low = one.stage == MARGIN_STAGE
                    with_margin += low
                    if len(first) < _NAMED:
                        first.append([one.row, one.reason])
                else:
                    writer.add(one)
                    low = one.margin is not None and one.margin <= 0.0
                    with_margin += one.margin is not None
                nonpositive += low
            rows.append(read.rows)
    writer.finish()
    return {
        "pieces": [[piece.path.name, piece.train, piece.pairs] for piece in writer.pieces],
        "rows": rows,
        "rejected": rejected.count,
        "first": first,
        "with_margin": with_margin,
        "nonpositive": nonpositive,
    }


def rejections_path(folder: Path, number: int) -> Path:
    """Path of the rejections of an item's rows."""
    return folder / f"{number:05d}.rejected.jsonl"


class _Counted:
    """Iterator over results that counts the rows read."""

    def __init__(self, results: Iterator[Results]) -> None:
        self._results, self.rows = results, 0

    def __iter__(self) -> Iterator[Results]:
        for results in self._results:
            self.rows += 1
            yield results


def _results(reading: SourceSlices, part: DataConfig, check: TemplateCheck | None) -> Iterator[Results]:
    for source, one in reading.slices:
        yield from read_slice(source, one.rows, part, check)


@lru_cache(maxsize=1)
def _contamination(benchmarks: tuple[str, ...], ngram: int, digests: tuple[str, ...]) -> Contamination:
    config = DataConfig(benchmarks=benchmarks, benchmark_ngram=ngram)
    if tuple(benchmark_digests(config)) != digests:
        names = ", ".join(benchmarks)
        raise UserError(
            f"data.benchmarks: on node {socket.gethostname()} the files {names} differ from the driver's. Put them on "
            "storage that all nodes share."
        )
    return Contamination.load(config)


def _fresh_check(context: ReadContext) -> TemplateCheck | None:
    """A new template check for each item, so that the result does not depend on which worker read other items."""
    if context.template is None:
        return None
    from mapl_ray.models import TemplateCheck  # imported here: it loads torch, which most workers don't need

    model = context.config.model
    return TemplateCheck(_tokenizer(model.name_or_path, model.revision, context.template))


@lru_cache(maxsize=1)
def _tokenizer(name: str, revision: str | None, template: str) -> Any:
    from mapl_ray.models import load_tokenizer

    tokenizer = load_tokenizer(name, revision)
    if fingerprint_of(tokenizer.chat_template) != template:
        raise UserError(
            f"model.name_or_path={name}: the chat template on node {socket.gethostname()} differs from the driver's. "
            "Put the model on storage that all nodes share."
        )
    return tokenizer


def _together(config: RunConfig, items: Sequence[Item], entries: Sequence[Entry], folder: Path) -> ReadPairs:
    pieces, rejections, rows = list[Piece](), list[tuple[Path, int]](), dict[int, int]()
    first = list[str]()
    of_source: dict[str, int] = {}  # rows so far, for sources whose slices don't know their row numbers
    for number, (item, entry) in enumerate(zip(items, entries, strict=True)):
        start = 0
        for reading, own in zip(item, entry["rows"], strict=True):
            rows[reading.part] = rows.get(reading.part, 0) + own
            (source, one), *_ = reading.slices
            if not one.numbered:
                key = f"{reading.part} {source.name}"
                start = of_source.get(key, 0)
                of_source[key] = start + own
        pieces += [Piece(folder / name, train, pairs, start) for name, train, pairs in entry["pieces"]]
        rejections.append((rejections_path(folder, number), start))
        first += [f"row {row + start}: {reason}" for row, reason in entry["first"]]
    for number, part in enumerate(config.data.parts()):
        if not rows.get(number):
            raise no_rows(part)
    rejected = sum(entry["rejected"] for entry in entries)
    if not pieces:
        shown = "; ".join(first[:_NAMED])
        raise UserError(f"data.path={config.data.path!r}: none of its {rejected} rows could be used ({shown}).")
    return ReadPairs(
        pieces,
        rejections,
        rejected,
        sum(entry["with_margin"] for entry in entries),
        sum(entry["nonpositive"] for entry in entries),
    )
