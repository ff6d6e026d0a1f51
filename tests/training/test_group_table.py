"""What is looked at before a model is loaded."""

from pathlib import Path
from typing import Any

import pytest

from mapl_ray.errors import UserError
from mapl_ray.records import GROUP_SCHEMA
from mapl_ray.shards import commit, write_part
from mapl_ray.training.group_table import GroupTable


def test_margins_that_are_wanted_must_be_there(data: Path, tmp_path: Path, grid_groups: Any) -> None:
    rows = [group.to_row() for group in grid_groups(2)]
    commit(tmp_path, "score", "f", [write_part(tmp_path, 0, rows, [], GROUP_SCHEMA, "f")])
    assert len(GroupTable(tmp_path)) == 2
    with pytest.raises(UserError, match=r"no group has a margin, and train.objective.margin_scale needs them"):
        GroupTable(tmp_path, needs_margin=True)
    some = GroupTable(data / "train", needs_margin=True)  # every second one
    assert [some[0].margin, some[1].margin] == [None, 0.5]
