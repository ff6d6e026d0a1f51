"""Prepare groups for evaluation: keep those that fit every model, add their variants and the columns of the metrics.

One part of groups in, one table out. Each group gives one row or one rejection, and so does each of its variants, so
that rows in and rows out can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from mapl_ray.batches import RENDER, encode_group
from mapl_ray.data.group_columns import groups_to_table
from mapl_ray.data.records import GROUP_SCHEMA, Rejection, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.column_table import COLUMN_SCHEMA, columns_table
from mapl_ray.evaluation.public_sets import PublicSet
from mapl_ray.evaluation.set_rows import SetRow
from mapl_ray.evaluation.variants import variant_of
from mapl_ray.models import load_tokenizer
from mapl_ray.progress import tracked
from mapl_ray.scoring import tokenizer_identity

ITSELF = ""  # kind of an original group, as opposed to a variant
_OWN_COLUMNS = pa.schema(
    [
        ("variant", pa.string()),  # kind of variant; `ITSELF` for the original group
        ("of", pa.int32()),  # 0-based index of the original group in its part
        ("response_tokens", pa.list_(pa.list_(pa.int32()))),  # number of tokens of each response, by tokenizer
    ]
)
EVALUATED_SCHEMA = pa.schema([*GROUP_SCHEMA, *_OWN_COLUMNS, *COLUMN_SCHEMA])


@dataclass(frozen=True, slots=True)
class Encoders:
    """The distinct tokenizers of all models, and the maximum sequence length."""

    tokenizers: tuple[Any, ...]
    max_tokens: int
    of_model: Mapping[str, int]  # model name -> index of its tokenizer

    @classmethod
    def of(cls, models: Sequence[Checkpoint], max_tokens: int) -> Encoders:
        """Load the tokenizers of the models."""
        found: dict[str, tuple[int, Any]] = {}
        of_model = {}
        for model in models:
            tokenizer = load_tokenizer(model.path, model.revision)
            of_model[model.name], _ = found.setdefault(str(tokenizer_identity(tokenizer)), (len(found), tokenizer))
        return cls(tuple(tokenizer for _, tokenizer in found.values()), max_tokens, of_model)

    @property
    def recipe(self) -> dict[str, Any]:
        """Everything that decides which groups fit."""
        return {"tokenizers": [tokenizer_identity(one) for one in self.tokenizers], "max_tokens": self.max_tokens}

    def response_tokens(self, group: RelationGroup) -> list[list[int]] | Rejection:
        """Number of tokens of each response by each tokenizer, or a rejection: the group is too long for a model, or a
        chat template rejects it."""
        lengths = []
        for tokenizer in self.tokenizers:
            encoded = encode_group(group, tokenizer, self.max_tokens)
            if isinstance(encoded, Rejection):
                return encoded
            lengths.append([len(ids) for ids in encoded.response_ids])
        return lengths


@dataclass(frozen=True, slots=True)
class EvaluatedPart:
    """A part in `EVALUATED_SCHEMA`, its rejections and its counts."""

    table: pa.Table
    rejections: list[Rejection]
    notes: dict[str, Any]  # groups, too long, refused (by a chat template), without ref_logps, first (rejection)


def evaluated_part(
    groups: Sequence[RelationGroup], encoders: Encoders, kinds: Sequence[str], seed: int
) -> EvaluatedPart:
    """The groups that fit every model, then their variants that fit every model."""
    rows: list[tuple[RelationGroup, str, int, list[list[int]]]] = []
    left_out: list[Rejection] = []
    variants: list[Rejection] = []

    def take(group: RelationGroup, kind: str, place: int, rejections: list[Rejection]) -> bool:
        lengths = encoders.response_tokens(group)
        if isinstance(lengths, Rejection):
            rejections.append(lengths if kind == ITSELF else replace(lengths, reason=f"{kind}: {lengths.reason}"))
            return False
        rows.append((group, kind, place, lengths))
        return True

    whole = [take(group, ITSELF, place, left_out) for place, group in enumerate(tracked(groups, "tokenize", "groups"))]
    for kind in kinds:
        for place, (group, fits) in enumerate(zip(groups, whole, strict=True)):
            other = variant_of(group, kind, seed) if fits else None
            if other is None:
                why = "has no such variant" if fits else "is left out itself"
                variants.append(Rejection(group.source, -1, group.pair_id, "variant", f"{kind}: the group {why}"))
            else:
                take(other, kind, place, variants)
    made = [group for group, *_ in rows]
    own = pa.Table.from_pydict(
        {
            "variant": [kind for _, kind, _, _ in rows],
            "of": [place for _, _, place, _ in rows],
            "response_tokens": [lengths for *_, lengths in rows],
        },
        schema=_OWN_COLUMNS,
    )
    arrays = [column for table in (groups_to_table(made), own, columns_table(made)) for column in table.columns]
    refused = sum(one.stage == RENDER for one in left_out)
    notes = {
        "groups": sum(whole),
        "too long": len(left_out) - refused,
        "refused": refused,
        "without ref_logps": sum(group.ref_logps is None for group in made),
        "first": f"{left_out[0].pair_id}: {left_out[0].reason}" if left_out else "",
    }
    return EvaluatedPart(pa.Table.from_arrays(arrays, schema=EVALUATED_SCHEMA), left_out + variants, notes)


@dataclass(frozen=True, slots=True)
class UsableRows:
    """Rows of a public set that fit every model, and the indices of their groups among the groups that fit."""

    rows: list[SetRow]
    places: list[list[int]]


def usable_rows(found: PublicSet, fitting: Mapping[int, int], encoders: Encoders) -> UsableRows:
    """The rows of a set whose groups all fit.

    `fitting` maps a group's index among the groups of all rows to its index among those that fit every model.

    Rows that a chat template rejects become rejections of the set; rows that are too long do not. Raises `UserError`
    if chat templates reject all rows.
    """
    kept, usable, read, place = list[SetRow](), UsableRows([], []), len(found.rejected), 0
    for row in found.rows:
        places = range(place, place + len(row.groups))
        place = places.stop
        if all(one in fitting for one in places):
            usable.rows.append(row)
            usable.places.append([fitting[one] for one in places])
            kept.append(row)
            continue
        reasons = [encoders.response_tokens(group) for group in row.groups]
        refused = [why for why in reasons if isinstance(why, Rejection) and why.stage == RENDER]
        if refused:
            found.rejected.append(replace(refused[0], stage="evaluate", row=row.row))
        else:
            kept.append(row)
    if found.rows and not kept:
        first = found.rejected[read]
        where = f"{first.source}, row {first.row}"
        raise UserError(f"evaluation.sets.{found.name}: no row can be used. {where}: {first.reason}.")
    found.rows = kept
    return usable
