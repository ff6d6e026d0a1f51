"""Public evaluation sets in their own formats, as relation groups with nothing but a preference.

    pairs, rewardbench  prompt, chosen, rejected (and subset)
    hh                  chosen, rejected: whole transcripts
    rm-bench            prompt, chosen [3], rejected [3] (and domain): the same content in rising style
    llmbar              input, output_1, output_2, label: which of the two is better, 1 or 2
    ifeval              key, prompt, instruction_id_list, kwargs: IFEval and IFBench, for policies

What one row is becomes groups, so that models score sets as they score everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from mapl_ray.config import DataConfig, EvaluationSet
from mapl_ray.config.evaluation import SetFormat
from mapl_ray.errors import UserError
from mapl_ray.evaluation.following import FollowRow, follow_row
from mapl_ray.preferences import source_identity
from mapl_ray.preferences.fields import RowError
from mapl_ray.preferences.files import RawRow
from mapl_ray.preferences.formats import parse_pair
from mapl_ray.preferences.shapes import RawPair
from mapl_ray.preferences.sources import open_sources
from mapl_ray.records import Level, PreferencePair, Rejection, Relation, RelationGroup, Sequence, canonical_json

NUM_STYLES = 3  # of RM-Bench
_STAGE = "evaluate"
_ANY_LENGTH = 10**9  # what is too long for a model is told in tokens


@dataclass(frozen=True, slots=True)
class SetRow:
    """One row: a group, or of RM-Bench one a style (chosen[i] beside rejected[i])."""

    groups: tuple[RelationGroup, ...]
    subset: str  # "" where the set has none


@dataclass(slots=True)
class PublicSet:
    """What was read of a set; rows + following + rejected = input rows."""

    name: str
    format: SetFormat
    digest: str  # sha256 over its files' digests, or a hub's name and revision
    rows: list[SetRow] = field(default_factory=list)
    following: list[FollowRow] = field(default_factory=list)  # of IFEval and IFBench
    rejected: list[Rejection] = field(default_factory=list)

    @property
    def input_rows(self) -> int:
        """All rows, good or bad."""
        return len(self.rows) + len(self.following) + len(self.rejected)


def read_set(name: str, config: EvaluationSet) -> PublicSet:
    """Read a set whole. Bad rows become rejections that name file, row, field and reason.

    Raises `UserError` for what can't be read at all, and where no row can be used.
    """
    data = _data_config(config)
    try:
        return _read(name, config, data)
    except UserError as error:
        raise UserError(str(error).replace("data.path=", f"evaluation.sets.{name}.path=")) from None


def set_format(values: Mapping[str, Any]) -> SetFormat | None:
    """The format that a row's columns tell; None for columns of no format."""
    if "instruction_id_list" in values:
        return "ifeval"
    if {"output_1", "output_2", "label"} <= values.keys():
        return "llmbar"
    if not {"chosen", "rejected"} <= values.keys():
        return None
    chosen = values["chosen"]
    if isinstance(chosen, list) and all(isinstance(text, str) for text in chosen):
        return "rm-bench"
    if "prompt" in values or "instruction" in values or "question" in values or isinstance(chosen, list):
        return "rewardbench" if "subset" in values else "pairs"
    return "hh" if isinstance(chosen, str) and "\n\nHuman:" in chosen else None


def _read(name: str, config: EvaluationSet, data: DataConfig) -> PublicSet:
    identity = source_identity(data)
    digest = hashlib.sha256(canonical_json(identity).encode()).hexdigest() if identity else ""
    found = PublicSet(name, config.format, digest or f"{config.path}@{config.revision or 'main'}")
    for label, several, raw in islice(_raw_rows(data), config.limit):
        if found.format == "auto" and raw.values is not None:
            found.format = set_format(raw.values) or "auto"
        _add(found, raw, label, label if several else "", data)
    if not found.rows and not found.following:
        shown = "; ".join(f"row {r.row}: {r.reason}" for r in found.rejected[:3])
        raise UserError(
            f"data.path={config.path!r}: no row of {len(found.rejected)} could be used ({shown or 'empty'})."
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
            row = _set_row(raw.values, found.format, label, raw.row, subset, data)
    except RowError as error:
        row = Rejection(label, raw.row, "", _STAGE, str(error))
    if isinstance(row, Rejection):
        key = row.pair_id or str(raw.values.get("id", raw.values.get("key", "")))
        found.rejected.append(replace(row, pair_id=key, stage=_STAGE))
    elif isinstance(row, FollowRow):
        found.following.append(row)
    else:
        found.rows.append(row)


def _set_row(
    values: Mapping[str, Any], format_: SetFormat, label: str, row: int, subset: str, data: DataConfig
) -> SetRow | Rejection:
    if format_ == "auto":
        columns = ", ".join(map(repr, values))
        raise RowError("columns", f"{columns}: of no known format", "those that docs/evaluation.md lists")
    pairs = {"rm-bench": _styles, "llmbar": _llmbar}.get(format_, lambda given: [dict(given)])(values)
    groups = []
    for number, pair in enumerate(pairs):
        parsed = parse_pair(RawPair(pair), "hh" if format_ == "hh" else "pairs", data, label, row)
        if isinstance(parsed, Rejection):
            return replace(parsed, reason=_own_names(parsed.reason, format_, values, number))
        groups.append(preference_group(parsed))
    own = values.get("subset") or values.get("domain")
    return SetRow(tuple(groups), str(own) if own else subset)


def _styles(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """RM-Bench's three pairs of one style."""
    for side in ("chosen", "rejected"):
        given = values.get(side)
        if not isinstance(given, list) or len(given) != NUM_STYLES:
            raise RowError(side, "not a list of three", f"{NUM_STYLES} responses in rising style", given)
    both = zip(values["chosen"], values["rejected"], strict=True)
    return [{"prompt": values.get("prompt"), "chosen": c, "rejected": r, "id": values.get("id")} for c, r in both]


def _llmbar(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    label = values.get("label")
    if isinstance(label, bool) or label not in (1, 2, "1", "2"):
        raise RowError("label", "not the number of an output", "1 or 2", label)
    better = int(label)
    chosen, rejected = values.get(f"output_{better}"), values.get(f"output_{3 - better}")
    return [{"prompt": values.get("input"), "chosen": chosen, "rejected": rejected}]


def _own_names(reason: str, format_: SetFormat, values: Mapping[str, Any], number: int) -> str:
    """The reason, which begins with a field of a pair, with the set's own name of that field."""
    field_ = next((name for name in ("prompt", "chosen", "rejected") if reason.startswith(name)), "")
    if format_ == "llmbar" and field_:
        better = int(values["label"])
        own = {"prompt": "input", "chosen": f"output_{better}", "rejected": f"output_{3 - better}"}[field_]
    elif format_ == "rm-bench" and field_ in ("chosen", "rejected"):
        own = f"{field_}[{number}]"
    else:
        own = field_
    return own + reason.removeprefix(field_)


def preference_group(pair: PreferencePair) -> RelationGroup:
    """The pair as a group of one prompt, two sequences and the relation between them."""
    return RelationGroup(
        pair_id=pair.pair_id,
        prompts=(pair.prompt,),
        instructions=((),),
        responses=(pair.chosen, pair.rejected),
        sequences=(Sequence(0, 0, ()), Sequence(0, 1, ())),
        relations=(Relation(Level.PREF, (0,), (1,)),),
        source=pair.source,
    )


def _data_config(config: EvaluationSet) -> DataConfig:
    return DataConfig(
        path=config.path,
        split=config.split,
        revision=config.revision,
        max_response_chars=_ANY_LENGTH,
        max_prompt_chars=_ANY_LENGTH,
    )
