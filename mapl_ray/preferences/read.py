"""Stream preference pairs: every input row gives a pair or a rejection, in source order.

A row that ranks several answers gives one of these per pair that `data.ranked_pairs` makes from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice, starmap
from typing import Any

from mapl_ray.config import DataConfig
from mapl_ray.data.records import PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.preferences.files import RawRow
from mapl_ray.preferences.formats import STAGE, detect_format, parse_row
from mapl_ray.preferences.mix import apply_weight
from mapl_ray.preferences.source import Rows, Source
from mapl_ray.preferences.sources import check_columns, open_sources

Results = list[PreferencePair | Rejection]
MARGIN_STAGE = "margin"  # stage of rejections for a margin of 0 or below
Refused = Callable[[PreferencePair], str | None]
DETECTION_ROWS = 100  # rows read to detect the format, so that a few bad rows at the start do not decide it


def read_pairs(
    config: DataConfig, seed: int = 0, refused: Refused | None = None
) -> Iterator[PreferencePair | Rejection]:
    """Read the rows of `config.path` in source order; `config.limit` takes the first n of them, valid or not.

    Several sources (`config.mix`) are read one after another, each weighted (`mix.py`, drawn by `seed`), so there may
    be more pairs than rows. `refused` returns the reason to reject a pair, or None. Raises `UserError` for a problem of
    a whole source: at once (no such file) or while it is read (empty, truncated, not UTF-8, unknown columns). A problem
    of one row becomes a `Rejection`.
    """
    parts = config.parts()
    for part in parts:
        check_columns(part)
    streams = [chain.from_iterable(islice(_read(open_sources(part), part, refused), config.limit)) for part in parts]
    if not config.mix:
        return streams[0]
    weighted = [apply_weight(rows, source, seed) for rows, source in zip(streams, config.mix, strict=True)]
    return chain.from_iterable(weighted)


def read_rows(
    rows: Iterable[Mapping[str, Any]], config: DataConfig | None = None, name: str = "rows"
) -> Iterator[PreferencePair | Rejection]:
    """Convert rows in memory, such as a `datasets.Dataset`, to pairs or rejections, in order.

    Args:
        config: how to read rows (`format`, `columns`, `ranked_pairs`, `limit`); its `path` is not used.
        name: name of the source in records and messages.

    Raises `UserError` if the columns match no known format, or if there are no rows.
    """
    config = DataConfig() if config is None else config
    check_columns(config)
    source = Source(name, name, lambda: starmap(RawRow, enumerate(rows)))
    found = False
    for _, results in islice(_read_source(source, config), config.limit):
        found = True
        yield from results
    if not found:
        raise UserError(f"{name}: holds no rows. Expected at least one preference pair.")


def _read(sources: list[Source], config: DataConfig, refused: Refused | None) -> Iterator[Results]:
    """Pairs and rejections of each row of the sources."""
    empty = True
    for source in sources:
        for results in read_slice(source, None, config, refused):
            empty = False
            yield results
    if empty:
        raise no_rows(config)


def no_rows(config: DataConfig) -> UserError:
    """The error for a source without rows."""
    return UserError(f"data.path={config.path!r}: holds no rows. Expected at least one preference pair.")


def read_slice(source: Source, rows: Rows | None, config: DataConfig, refused: Refused | None) -> Iterator[Results]:
    """Pairs and rejections of each of `rows` of the source (None: all rows).

    The format is detected from the first rows of the source.
    """
    for row, results in _read_source(source, config, rows):
        yield [_taken(one, refused, source.label, row) for one in results]


def _read_source(source: Source, config: DataConfig, taken: Rows | None = None) -> Iterator[tuple[int, Results]]:
    """(row number, results) of each row of `taken`, or of all rows."""
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
            "Check that the file's content matches its name."
        )
    data_format = detect_format(config, [declared(values, config, source.name) for values in parsed], source.name)
    for raw in chain(head, rows) if taken is None else taken():
        if raw.values is None:
            yield raw.row, [Rejection(source.label, raw.row, "", STAGE, raw.problem)]
            continue
        values = declared(raw.values, config, source.name)
        found = parse_row(values, data_format, config, source.label, raw.row)
        yield raw.row, [_with_margin(one, config, raw.row) for one in found]


def _taken(
    found: PreferencePair | Rejection, refused: Refused | None, source: str, row: int
) -> PreferencePair | Rejection:
    reason = refused(found) if refused is not None and isinstance(found, PreferencePair) else None
    return found if reason is None else Rejection(source, row, found.pair_id, STAGE, reason)


def _with_margin(found: PreferencePair | Rejection, config: DataConfig, row: int) -> PreferencePair | Rejection:
    """Reject a pair whose margin is 0 or below if the config drops those."""
    if config.nonpositive_margins == "keep" or isinstance(found, Rejection) or found.margin is None or found.margin > 0:
        return found
    reason = f"margin={found.margin:g}: expected above 0 (data.nonpositive_margins=drop)"
    return Rejection(found.source, row, found.pair_id, MARGIN_STAGE, reason)


def declared(values: Mapping[str, Any], config: DataConfig, where: str) -> Mapping[str, Any]:
    """Rename a row's columns as `config.columns` declares; original columns with a declared name are dropped.

    Raises `UserError` for a row that has none of the declared columns.
    """
    if not config.columns:
        return values
    if not any(own in values for own in config.columns.values()):
        raise UserError(
            f"{where}: none of the columns that data.columns declares ({', '.join(config.columns.values())}) is in "
            f"{', '.join(map(repr, values))}. Fix data.columns."
        )
    kept = {name: value for name, value in values.items() if name not in config.columns}
    return kept | {name: values[own] for name, own in config.columns.items() if own in values}
