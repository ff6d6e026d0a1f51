"""Relation groups as `datasets.Dataset`, raw and encoded, and their data collator for `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pyarrow as pa

from mapl_ray.batches import ENCODING, Batch, EncodedGroup, collate, encode_group, of_levels
from mapl_ray.batches.encode import TruncatePrompt
from mapl_ray.data.records import GROUP_SCHEMA, Level, Rejection, Relation, RelationGroup
from mapl_ray.data.records import Sequence as Cell
from mapl_ray.errors import UserError

_INDICES = pa.list_(pa.int32())
_IDS = pa.list_(_INDICES)
_NEEDED = ("pair_id", "prompts", "instructions", "responses", "sequences", "relations", "source")
# Columns of an `EncodedGroup`. `rejected` is empty if the group can be used, else the reason.
_ENCODED_SCHEMA = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_ids", _IDS),
        ("response_ids", _IDS),
        ("sequences", _IDS),  # [prompt, response] each
        (
            "relations",
            pa.list_(pa.struct([("level", pa.string()), ("preferred", _INDICES), ("dispreferred", _INDICES)])),
        ),
        ("ref_logps", pa.list_(pa.float32())),
        ("margin", pa.float64()),
        ("rejected", pa.string()),
    ]
)


def groups_dataset(groups: Iterable[RelationGroup]) -> Any:
    """Convert groups to a `datasets.Dataset` with the columns of `GROUP_SCHEMA`, as synthesis writes them."""
    import datasets

    return datasets.Dataset(pa.Table.from_pylist([group.to_row() for group in groups], schema=GROUP_SCHEMA))


def encoded_dataset(
    dataset: Any,
    tokenizer: Any,
    max_sequence_tokens: int,
    truncate_prompt: TruncatePrompt,
    families: Collection[str],
    scored: bool,
    where: str,
) -> Any:
    """Tokenize groups once, with the cache and progress bar of `datasets`, and drop those that can't be used.

    Args:
        families: level families whose relations are kept, with the sequences that they use.
        scored: keep the column `ref_logps`, and drop groups with truncated prompts, as their ref_logps are of the full
            prompts.
        where: the data set's name in messages.

    Raises `UserError` for missing columns, and if no group can be used.
    """
    import datasets

    if missing := [name for name in _NEEDED if name not in dataset.column_names]:
        raise UserError(
            f"{where}: no column {', '.join(missing)}. Expected relation groups: the Parquet files that `mapl "
            "synthesize` writes to groups/, or mapl_ray.groups_dataset([...])."
        )
    if len(dataset) == 0:
        raise UserError(f"{where}: no groups.")
    encoded = dataset.map(
        _encoded_row,
        fn_kwargs={
            "tokenizer": tokenizer,
            "max_sequence_tokens": max_sequence_tokens,
            "truncate_prompt": truncate_prompt,
            "families": sorted(families),
            "scored": scored,
            "encoding": ENCODING,  # part of the cache key
        },
        remove_columns=dataset.column_names,
        features=datasets.Features.from_arrow_schema(_ENCODED_SCHEMA),
        desc=f"encode {where}",
    )
    reasons = [(row, reason) for row, reason in enumerate(encoded["rejected"]) if reason]
    if not reasons:
        return encoded
    first, reason = reasons[0]
    text = f"{where}: {len(reasons)} of {len(encoded)} groups left out. First: {encoded[first]['pair_id']}: {reason}."
    if len(reasons) == len(encoded):
        raise UserError(text)
    print(f"  {text}", flush=True)
    bad = {row for row, _ in reasons}
    return encoded.select([row for row in range(len(encoded)) if row not in bad])


def _encoded_row(
    row: Mapping[str, Any],
    tokenizer: Any,
    max_sequence_tokens: int,
    truncate_prompt: TruncatePrompt,
    families: Collection[str],
    scored: bool,
    encoding: int,
) -> dict[str, Any]:
    group = encode_group(RelationGroup.from_row(row), tokenizer, max_sequence_tokens, truncate_prompt)
    if isinstance(group, EncodedGroup) and group.truncated and scored:
        group = Rejection("", -1, group.pair_id, "tokenize", "it is truncated, but has ref_logps of the full prompts")
    if isinstance(group, Rejection):
        empty: dict[str, Any] = {name: [] for name in ("prompt_ids", "response_ids", "sequences", "relations")}
        return {"pair_id": group.pair_id, **empty, "ref_logps": None, "margin": None, "rejected": group.reason}
    return to_row(of_levels(group, families), scored)


def to_row(group: EncodedGroup, scored: bool) -> dict[str, Any]:
    """Convert an encoded group to a row of an encoded data set."""
    return {
        "pair_id": group.pair_id,
        "prompt_ids": [list(ids) for ids in group.prompt_ids],
        "response_ids": [list(ids) for ids in group.response_ids],
        "sequences": [[cell.prompt, cell.response] for cell in group.sequences],
        "relations": [{**asdict(relation), "level": relation.level.value} for relation in group.relations],
        "ref_logps": list(group.ref_logps) if scored and group.ref_logps is not None else None,
        "margin": group.margin,
        "rejected": "",
    }


def from_row(row: Mapping[str, Any]) -> EncodedGroup:
    """Inverse of `to_row`, without the instructions' `satisfied` flags, which training does not use."""
    ref_logps = row["ref_logps"]
    return EncodedGroup(
        row["pair_id"],
        tuple(map(tuple, row["prompt_ids"])),
        tuple(map(tuple, row["response_ids"])),
        tuple(Cell(prompt, response, ()) for prompt, response in row["sequences"]),
        tuple(Relation(Level(r["level"]), tuple(r["preferred"]), tuple(r["dispreferred"])) for r in row["relations"]),
        ref_logps=None if ref_logps is None else tuple(ref_logps),
        margin=row["margin"],
    )


def has_ref_logps(dataset: Any) -> bool:
    """Whether every group of a data set has ref_logps."""
    if "ref_logps" not in dataset.column_names:
        return False
    # Not `dataset.data`, which ignores a selection of rows.
    return bool(dataset.select_columns("ref_logps").with_format("arrow")[:]["ref_logps"].null_count == 0)


def with_ref_logps(dataset: Any, ref_logps: Sequence[Sequence[float]]) -> Any:
    """Replace the `ref_logps` of an encoded data set, one list per group."""
    feature = dataset.features["ref_logps"]
    return dataset.remove_columns("ref_logps").add_column("ref_logps", list(ref_logps), feature=feature)


def padded_to(dataset: Any, multiple: int) -> Any:
    """Pad an encoded data set with fillers (groups without relations) to a multiple of rows.

    Otherwise Accelerate would fill the last evaluation batch with groups that were already counted.
    """
    import datasets

    short = -len(dataset) % multiple
    if short == 0:
        return dataset
    fillers = pa.Table.from_pylist([{**dataset[0], "relations": []}] * short, schema=_ENCODED_SCHEMA)
    return datasets.concatenate_datasets([dataset, datasets.Dataset(fillers)])


@dataclass(frozen=True, slots=True)
class GroupCollator:
    """Data collator: rows of an encoded data set -> `{"batch": Batch}`, the model's input."""

    pad_token_id: int
    batching: Literal["tree", "padded"]
    pad_to_multiple_of: int = 1
    row_tokens: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Batch]:
        """Collate rows as `collate` does."""
        groups = [from_row(row) for row in rows]
        return {"batch": collate(groups, self.batching, self.pad_token_id, self.pad_to_multiple_of, self.row_tokens)}
