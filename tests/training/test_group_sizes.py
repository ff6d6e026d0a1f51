"""What is told of a group's size without tokenizing it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mapl_ray.batches import EncodedGroup, collate, encode_group, of_levels
from mapl_ray.data.records import GROUP_SCHEMA, Message, RelationGroup
from mapl_ray.training.plan import group_sizes

ALL = ("pref", "intra", "inter")


def table(groups: list[RelationGroup]) -> pa.Table:
    """Of two chunks, the second one a slice, as a concatenation of parts may be."""
    whole = pa.Table.from_pylist([group.to_row() for group in groups], GROUP_SCHEMA)
    return pa.concat_tables([whole.slice(0, 1), whole.slice(1)])


def by_hand(group: RelationGroup) -> RelationGroup:
    """x of 5 bytes in two messages, prompts of 8 and 9, responses of 7 (one character of 2 bytes) and 2."""
    prompts = tuple((Message("system", "abc"), Message("user", text)) for text in ("xy", "xy + +", "xy - ! "))
    return replace(group, prompts=prompts, responses=("\u00e9 long", "no"))


def test_sizes_by_hand(grid_groups: Any) -> None:
    groups = [by_hand(group) for group in grid_groups(2)]
    # tree: 5 + (9 - 5) + (10 - 5) of prompts, and both responses under three prompts, and 1
    assert group_sizes(table(groups), ALL, "tree").tolist() == [1 + 5 + 4 + 5 + 3 * (7 + 2)] * 2
    assert group_sizes(table(groups), ("pref",), "tree").tolist() == [1 + 5 + 7 + 2] * 2
    assert group_sizes(table(groups), ALL, "padded").tolist() == [10 + 7] * 2
    assert group_sizes(table(groups), ("pref",), "padded").tolist() == [5 + 7] * 2
    assert group_sizes(GROUP_SCHEMA.empty_table(), ALL, "tree").tolist() == []


@pytest.mark.parametrize("families", [ALL, ("pref",)])
def test_bytes_stand_for_tokens(grid_groups: Any, tokenizer: Any, families: tuple[str, ...]) -> None:
    groups = [
        replace(group, responses=tuple(text * (1 + index % 7) for text in group.responses))
        for index, group in enumerate(grid_groups(40))
    ]
    encoded = [encode_group(group, tokenizer, 1024) for group in groups]
    tokens = [
        collate([of_levels(group, families)], "tree", tokenizer.pad_token_id).num_tokens
        for group in encoded
        if isinstance(group, EncodedGroup)
    ]
    assert np.corrcoef(group_sizes(table(groups), families, "tree"), tokens)[0, 1] > 0.95
