"""How much there is to compute in every group, estimated from the lengths of its texts without tokenizing.

Every rank must know the sizes of all groups of a step, its own and the others', so they have to cost next to nothing.
UTF-8 bytes stand for tokens: a byte-level tokenizer makes about as many tokens of a byte in one script as in another,
which is not so of characters.

Dimensions: G groups, P prompts, S sequences, all over a whole table.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from mapl_ray.records import Level

IntArray = npt.NDArray[np.int64]


def group_sizes(table: pa.Table, families: Collection[str], batching: Literal["tree", "padded"]) -> IntArray:
    """Bytes [G] of a table in `GROUP_SCHEMA`, at least 1 each.

    Args:
        families: levels that are computed (`of_levels`); sequences that only other levels need count for nothing.
        batching: `tree`: of a group's prefix tree, x once; `padded`: of its longest sequence.
    """
    levels = pa.array([level.value for level in Level if level.family in families], pa.string())
    found = [_sizes(batch, levels, batching) for batch in table.to_batches()]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _sizes(groups: pa.RecordBatch, levels: pa.Array, batching: str) -> IntArray:
    prompts, responses, sequences = groups["prompts"], groups["responses"], groups["sequences"]
    group_S = np.repeat(np.arange(len(groups)), _lengths(sequences))
    cells = sequences.flatten()
    prompt_S = _starts(prompts)[group_S] + _numbers(cells.field("prompt"))
    response_S = _starts(responses)[group_S] + _numbers(cells.field("response"))
    response_bytes_S = _numbers(pc.binary_length(responses.flatten()))[response_S]
    bytes_P = _prompt_bytes(prompts.flatten())
    kept_S = _needed(groups["relations"], _starts(sequences), len(cells), levels)
    sizes_G = np.ones(len(groups), dtype=np.int64)
    if batching == "padded":
        np.maximum.at(sizes_G, group_S[kept_S], (bytes_P[prompt_S] + response_bytes_S)[kept_S])
        return sizes_G
    x_G = bytes_P[_starts(prompts)]
    group_P = np.repeat(np.arange(len(groups)), _lengths(prompts))
    kept_P = np.zeros(len(bytes_P), dtype=bool)
    kept_P[prompt_S[kept_S]] = True
    np.add.at(sizes_G, group_P[kept_P], (bytes_P - x_G[group_P])[kept_P])  # every prompt begins with x
    np.add.at(sizes_G, group_S[kept_S], response_bytes_S[kept_S])
    sizes_G += x_G
    return sizes_G


def _needed(relations: pa.Array, first_sequence_G: IntArray, num_sequences: int, levels: pa.Array) -> Any:
    """Whether each sequence [S] occurs in a relation of these levels."""
    flat = relations.flatten()
    first_R = np.repeat(first_sequence_G, _lengths(relations))
    wanted_R = pc.is_in(flat.field("level"), value_set=levels).to_numpy(zero_copy_only=False)
    needed_S = np.zeros(num_sequences, dtype=bool)
    for side in ("preferred", "dispreferred"):
        lists = flat.field(side)
        lengths = _lengths(lists)
        places = np.repeat(first_R, lengths) + _numbers(lists.flatten())
        needed_S[places[np.repeat(wanted_R, lengths)]] = True
    return needed_S


def _prompt_bytes(prompts: pa.Array) -> IntArray:
    """[P], all messages of a prompt together."""
    contents = _numbers(pc.binary_length(prompts.flatten().field("content")))
    until = np.concatenate([[0], np.cumsum(contents)])
    starts = _starts(prompts)
    return np.asarray(until[starts + _lengths(prompts)] - until[starts], dtype=np.int64)


def _lengths(lists: pa.Array) -> IntArray:
    return _numbers(pc.list_value_length(lists))


def _starts(lists: pa.Array) -> IntArray:
    """Where each list begins among the flattened values."""
    lengths = _lengths(lists)
    return np.asarray(np.cumsum(lengths) - lengths, dtype=np.int64)


def _numbers(values: pa.Array) -> IntArray:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.int64)
