"""Read public evaluation sets: rows to score, rows of IFEval and IFBench to answer, and rejected rows.

`set_rows.py` has the row formats, except `ifeval` (key, prompt, instruction_id_list, kwargs; for IFEval and IFBench),
which is for policies and is in `following.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from mapl_ray.config import DataConfig, EvaluationSet
from mapl_ray.config.evaluation import SetFormat
from mapl_ray.data.records import Rejection, canonical_json
from mapl_ray.errors import UserError
from mapl_ray.evaluation.following import FollowRow, follow_row
from mapl_ray.evaluation.set_rows import SetRow, set_format, set_row
from mapl_ray.preferences import source_identity
from mapl_ray.preferences.fields import RowError
from mapl_ray.preferences.files import RawRow
from mapl_ray.preferences.read import declared
from mapl_ray.preferences.sources import check_columns, open_sources

_STAGE = "evaluate"
_ANY_LENGTH = 10**9  # no limit in characters: rows that are too long are counted by tokens, later


@dataclass(slots=True)
class PublicSet:
    """The rows of a public set: rows + following + rejected = input rows."""

    name: str
    format: SetFormat
    digest: str  # sha256 over the digests of its files, or hub name and revision
    rows: list[SetRow] = field(default_factory=list)
    following: list[FollowRow] = field(default_factory=list)  # rows of IFEval and IFBench
    rejected: list[Rejection] = field(default_factory=list)

    @property
    def input_rows(self) -> int:
        """Number of all rows, including rejected ones."""
        return len(self.rows) + len(self.following) + len(self.rejected)


def read_set(name: str, config: EvaluationSet) -> PublicSet:
    """Read a whole set. Bad rows become rejections with file, row, field and reason.

    Raises `UserError` if the set can't be read, or if no row can be used.
    """
    data = _data_config(config)
    try:
        return _read(name, config, data)
    except UserError as error:
        own = str(error)
        for key in ("path=", "columns"):
            own = own.replace(f"data.{key}", f"evaluation.sets.{name}.{key}")
        raise UserError(own) from None


def _read(name: str, config: EvaluationSet, data: DataConfig) -> PublicSet:
    check_columns(data)
    identity = source_identity(data)
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest() if identity else ""
    found = PublicSet(name, config.format, digest or f"{config.path}@{config.revision or 'main'}")
    for label, several, raw in islice(_raw_rows(data), config.limit):
        if raw.values is not None and data.columns:
            raw = replace(raw, values=declared(raw.values, data, config.path))
        if found.format == "auto" and raw.values is not None:
            found.format = set_format(raw.values) or "auto"
        _add(found, raw, label, label if several else "", data)
    if not found.rows and not found.following:
        shown = "; ".join(f"row {r.row}: {r.reason}" for r in found.rejected[:3])
        raise UserError(
            f"data.path={config.path!r}: none of its {len(found.rejected)} rows can be used ({shown or 'empty'})."
        )
    return found


def _raw_rows(data: DataConfig) -> Iterator[tuple[str, bool, RawRow]]:
    sources = open_sources(data)
    for source in sources:
        for raw in source.rows():
            yield source.label, len(sources) > 1, raw


def _add(found: PublicSet, raw: RawRow, label: str, subset: str, data: DataConfig) -> None:
    if raw.values is None:
        found.rejected.append(Rejection(label, raw.row, "", _STAGE, raw.problem))
        return
    row: SetRow | FollowRow | Rejection
    try:
        if found.format == "ifeval":
            row = follow_row(raw.values)
        else:
            row = set_row(raw.values, found.format, label, raw.row, subset, data)
    except RowError as error:
        row = Rejection(label, raw.row, "", _STAGE, error.reason(data.columns))
    if isinstance(row, Rejection):
        own = next((raw.values[name] for name in ("id", "pair_id", "key") if name in raw.values), "")
        key = row.pair_id or str(own)
        found.rejected.append(replace(row, pair_id=key, stage=_STAGE))
    elif isinstance(row, FollowRow):
        found.following.append(row)
    else:
        found.rows.append(row)


def _data_config(config: EvaluationSet) -> DataConfig:
    return DataConfig(
        path=config.path,
        split=config.split,
        revision=config.revision,
        columns=config.columns,
        max_response_chars=_ANY_LENGTH,
        max_prompt_chars=_ANY_LENGTH,
    )
