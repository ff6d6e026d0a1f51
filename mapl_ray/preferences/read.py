"""Preference pairs as a stream: every input row gives exactly one pair or one rejection, in source order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

from mapl_ray.config import DataConfig
from mapl_ray.errors import UserError
from mapl_ray.preferences.files import RawRow
from mapl_ray.preferences.formats import STAGE, detect_format, parse_row
from mapl_ray.preferences.mix import apply_weight
from mapl_ray.preferences.sources import Source, open_sources
from mapl_ray.records import PreferencePair, Rejection

DETECTION_ROWS = 100  # rows looked at to tell the format: single dirty rows at the start must not decide it


def read_pairs(config: DataConfig, seed: int = 0) -> Iterator[PreferencePair | Rejection]:
    """The rows of `config.path`, in source order; `config.limit` takes the first n of them, good or bad.

    Of several sources (`config.mix`) one after another, each weighted (`mix.py`, drawn by `seed`): then there may be
    more pairs than rows. Raises `UserError` for what concerns a source as a whole, at once (no such file) or while it
    is read (empty, truncated, not UTF-8, unknown columns). What concerns one row becomes a `Rejection`.
    """
    parts = config.parts()
    streams = [islice(_read(open_sources(part), part), config.limit) for part in parts]
    if not config.mix:
        return streams[0]
    weighted = [apply_weight(rows, source, seed) for rows, source in zip(streams, config.mix, strict=True)]
    return chain.from_iterable(weighted)


def _read(sources: list[Source], config: DataConfig) -> Iterator[PreferencePair | Rejection]:
    empty = True
    for source in sources:
        for result in _read_source(source, config):
            empty = False
            yield result
    if empty:
        raise UserError(f"data.path={config.path!r}: holds no rows. Expected at least one preference pair.")


def _read_source(source: Source, config: DataConfig) -> Iterator[PreferencePair | Rejection]:
    rows = source.rows()
    head: list[RawRow] = []
    parsed = []
    for raw in rows:
        head.append(raw)
        if raw.values is not None:
            parsed.append(raw.values)
        if len(parsed) == DETECTION_ROWS:
            break
    if not head:
        return
    if not parsed:
        raise UserError(
            f"{source.name}: none of its {len(head)} rows could be parsed. First: {head[0].problem}. "
            "Check that it is the kind of file its name says."
        )
    data_format = detect_format(config.format, parsed, source.name)
    for raw in chain(head, rows):
        if raw.values is None:
            yield Rejection(source.label, raw.row, "", STAGE, raw.problem)
        else:
            yield parse_row(raw.values, data_format, config, source.label, raw.row)
