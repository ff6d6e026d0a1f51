"""All groups that the models of an evaluation score, in one order: held-out ones, their variants, public sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mapl_ray.batches import RENDER, encode_group
from mapl_ray.data.records import Rejection, RelationGroup
from mapl_ray.errors import UserError
from mapl_ray.evaluation.checkpoints import Checkpoint
from mapl_ray.evaluation.items import Rewards
from mapl_ray.evaluation.public_sets import PublicSet
from mapl_ray.evaluation.set_rows import SetRow
from mapl_ray.evaluation.variants import ScoredVariant, Variant
from mapl_ray.models import load_tokenizer
from mapl_ray.progress import tracked
from mapl_ray.scoring import tokenizer_identity

Fits = Callable[[RelationGroup], Rejection | None]  # why a model can't take a group, or None


@dataclass(frozen=True, slots=True)
class Workload:
    """What fits every model, so that all are measured on the same; and what does not."""

    held_out: list[RelationGroup]
    left_out: list[Rejection]  # of the held-out groups: too long, or refused by a chat template
    variants: dict[str, Variant]
    rows: dict[str, list[SetRow]]  # of every set

    @property
    def refused(self) -> int:
        """Held-out groups that a chat template does not take."""
        return sum(one.stage == RENDER for one in self.left_out)

    def groups(self) -> list[RelationGroup]:
        """All of them, in the order in which `split` takes their rewards."""
        return [
            *self.held_out,
            *(group for variant in self.variants.values() for group in variant.groups),
            *(group for rows in self.rows.values() for row in rows for group in row.groups),
        ]

    def split(self, rewards: Mapping[str, Rewards]) -> ScoredWorkload:
        """Every model's rewards of `groups()`, parted again."""
        parts = {model: self._parts(iter(of_model)) for model, of_model in rewards.items()}
        return ScoredWorkload(
            held_out={model: part[0] for model, part in parts.items()},
            variants={
                kind: ScoredVariant(variant, {model: part[1][kind] for model, part in parts.items()})
                for kind, variant in self.variants.items()
            },
            rows={name: {model: part[2][name] for model, part in parts.items()} for name in self.rows},
        )

    def _parts(self, left: Iterator[tuple[float, ...]]) -> tuple[Rewards, dict[str, Rewards], dict[str, list[Rewards]]]:
        held_out = [next(left) for _ in self.held_out]
        variants: dict[str, Rewards] = {
            kind: [next(left) for _ in variant.groups] for kind, variant in self.variants.items()
        }
        rows: dict[str, list[Rewards]] = {
            name: [[next(left) for _ in row.groups] for row in rows] for name, rows in self.rows.items()
        }
        return held_out, variants, rows


@dataclass(frozen=True, slots=True)
class ScoredWorkload:
    """Rewards by model: of the held-out groups, of their variants, of the sets' rows."""

    held_out: dict[str, Rewards]
    variants: dict[str, ScoredVariant]
    rows: dict[str, dict[str, list[Rewards]]]  # set -> model -> a row -> a group


def make_workload(
    groups: Sequence[RelationGroup],
    make: Callable[[Sequence[RelationGroup]], dict[str, Variant]] | None,
    sets: Sequence[PublicSet],
    fits: Fits,
) -> Workload:
    """Leave out what some model can't take; `make` makes the variants of the groups that are left, None: none are
    wanted. Rows of a set that a chat template refuses become rejections of the set."""
    for one in sets:
        _reject_refused(one, fits)
    checked = [(group, fits(group)) for group in tracked(groups, "tokenize", "groups", len(groups))]
    held_out = [group for group, why in checked if why is None]
    variants = {kind: _fitting(variant, fits) for kind, variant in (make(held_out) if make else {}).items()}
    return Workload(
        held_out=held_out,
        left_out=[why for _, why in checked if why is not None],
        variants={kind: variant for kind, variant in variants.items() if variant.groups},
        rows={
            one.name: [row for row in one.rows if all(fits(group) is None for group in row.groups)]
            for one in sets
            if one.rows
        },
    )


def _reject_refused(found: PublicSet, fits: Fits) -> None:
    kept, read = [], len(found.rejected)
    for row in found.rows:
        reasons = [why for group in row.groups if (why := fits(group)) is not None and why.stage == RENDER]
        if reasons:
            found.rejected.append(replace(reasons[0], stage="evaluate", row=row.row))
        else:
            kept.append(row)
    if found.rows and not kept:
        first = found.rejected[read]
        where = f"{first.source}, row {first.row}"
        raise UserError(f"evaluation.sets.{found.name}: no row can be used. {where}: {first.reason}.")
    found.rows = kept


def _fitting(variant: Variant, fits: Fits) -> Variant:
    """Other words may be longer."""
    kept = [(group, index) for group, index in zip(variant.groups, variant.of, strict=True) if fits(group) is None]
    return replace(variant, groups=tuple(group for group, _ in kept), of=tuple(index for _, index in kept))


def length_check(models: Sequence[Checkpoint], max_sequence_tokens: int) -> Fits:
    """Why a group can't be given to one of the models, too long or refused by its chat template: all are measured on
    the same groups."""
    tokenizers: dict[str, Any] = {}
    for model in models:
        tokenizer = load_tokenizer(model.path, model.revision)
        tokenizers.setdefault(str(tokenizer_identity(tokenizer)), tokenizer)

    def refused(group: RelationGroup) -> Rejection | None:
        for tokenizer in tokenizers.values():
            encoded = encode_group(group, tokenizer, max_sequence_tokens)
            if isinstance(encoded, Rejection):
                return encoded
        return None

    return refused
