"""Groups as columns are the same table, and the same file, as their rows."""

import io
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.data.group_columns import groups_to_table
from mapl_ray.data.records import GROUP_SCHEMA, InstructionRecord, Message
from tests.conftest import GroupMaker


def written(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_columns_equal_rows(grid_groups: GroupMaker, count: int) -> None:
    groups = grid_groups(count)
    if count:
        scores = tuple(float(number) for number in range(len(groups[0].sequences)))
        groups[0] = replace(groups[0], ref_logps=scores, margin=0.5)
        groups.append(replace(groups[0], rewards=scores, ref_logps=None))
    rows = pa.Table.from_pylist([group.to_row() for group in groups], schema=GROUP_SCHEMA)
    columns = groups_to_table(groups)
    columns.validate(full=True)
    assert columns.schema.equals(GROUP_SCHEMA)
    assert columns.equals(rows)
    assert written(columns) == written(rows)


def test_arguments_of_every_kind(grid_groups: GroupMaker) -> None:
    record = InstructionRecord("f", "Say “è”.", {"b": [1, None, {"x": 0.5}], "a": "è"})
    group = replace(grid_groups(1)[0], instructions=((record,),), prompts=((Message("user", ""),), ()))
    assert groups_to_table([group]).equals(pa.Table.from_pylist([group.to_row()], schema=GROUP_SCHEMA))


def test_text_that_is_no_unicode_raises_as_rows_do(grid_groups: GroupMaker) -> None:
    group = replace(grid_groups(1)[0], responses=("\ud800", "b"))
    with pytest.raises(UnicodeEncodeError):
        pa.Table.from_pylist([group.to_row()], schema=GROUP_SCHEMA)
    with pytest.raises(UnicodeEncodeError):
        groups_to_table([group])
