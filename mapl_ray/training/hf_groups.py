"""Relation groups as `datasets.Dataset`s: raw, encoded, and collated for `transformers.Trainer`."""

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
# An `EncodedGroup` by columns; `rejected` is empty where the group can be used.
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
    """Groups in memory as a `datasets.Dataset` with the columns of `GROUP_SCHEMA`, as synthesis writes them."""
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
    """Tokenize groups once, with `datasets`' cache and progress bar, and leave out those that can't be used.

    Args:
        families: level families whose relations are kept, with the sequences that they use.
        scored: keep the column `ref_logps`; a group whose prompt was truncated is then left out, because its
            ref_logps are those of the whole prompt.
        where: the data set's name in messages.

    Raises `UserError` for columns that are not those of groups, and where no group can be used.
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
            "encoding": ENCODING,  # part of the cache's key
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
        group = Rejection("", -1, group.pair_id, "tokenize", "its prompt is truncated, its ref_logps are of all of it")
    if isinstance(group, Rejection):
        empty: dict[str, Any] = {name: [] for name in ("prompt_ids", "response_ids", "sequences", "relations")}
        return {"pair_id": group.pair_id, **empty, "ref_logps": None, "margin": None, "rejected": group.reason}
    return to_row(of_levels(group, families), scored)


def to_row(group: EncodedGroup, scored: bool) -> dict[str, Any]:
    """A row of an encoded data set."""
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
    """The inverse of `to_row`; flags of instructions, which training does not read, are left out."""
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
    """Whether every group of a data set was scored."""
    if "ref_logps" not in dataset.column_names:
        return False
    # Not `dataset.data`, the table below a selection of its rows.
    return bool(dataset.select_columns("ref_logps").with_format("arrow")[:]["ref_logps"].null_count == 0)


def with_ref_logps(dataset: Any, ref_logps: Sequence[Sequence[float]]) -> Any:
    """The encoded data set with these `ref_logps`, one list per group."""
    feature = dataset.features["ref_logps"]
    return dataset.remove_columns("ref_logps").add_column("ref_logps", list(ref_logps), feature=feature)


def padded_to(dataset: Any, multiple: int) -> Any:
    """The encoded data set with fillers, which have no relations, up to a multiple of rows.

    Accelerate would fill the last batch of an evaluation with groups that were counted already.
    """
    import datasets

    short = -len(dataset) % multiple
    if short == 0:
        return dataset
    fillers = pa.Table.from_pylist([{**dataset[0], "relations": []}] * short, schema=_ENCODED_SCHEMA)
    return datasets.concatenate_datasets([dataset, datasets.Dataset(fillers)])


@dataclass(frozen=True, slots=True)
class GroupCollator:
    """Rows of an encoded data set -> `{"batch": Batch}`, what the trainer hands to the model."""

    pad_token_id: int
    batching: Literal["tree", "padded"]
    pad_to_multiple_of: int = 1
    row_tokens: int | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Batch]:
        """As `collate`."""
        groups = [from_row(row) for row in rows]
        return {"batch": collate(groups, self.batching, self.pad_token_id, self.pad_to_multiple_of, self.row_tokens)}
