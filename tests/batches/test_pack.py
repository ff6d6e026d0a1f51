"""Rows under a token budget."""

from hypothesis import given
from hypothesis import strategies as st

from mapl_ray.batches import EncodedGroup, collate, pack
from mapl_ray.data.records import Sequence

LENGTHS = st.lists(st.integers(1, 50), max_size=30)


def test_by_hand() -> None:
    # 7 alone; 5 + 3; 4 + 2 + 2; 9 is above the budget
    assert pack([2, 5, 4, 7, 3, 9, 2], budget=8) == [[0, 2, 6], [1, 4], [3], [5]]


@given(LENGTHS, st.integers(1, 60))
def test_every_index_once_and_no_row_above_the_budget(lengths: list[int], budget: int) -> None:
    rows = pack(lengths, budget)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= budget or len(row) == 1 for row in rows)
    assert rows == sorted(sorted(row) for row in rows) == pack(lengths, budget)


@given(LENGTHS, st.integers(1, 60))
def test_at_most_one_row_is_half_empty(lengths: list[int], budget: int) -> None:
    filled = [sum(lengths[i] for i in row) for row in pack(lengths, budget)]
    assert sum(2 * tokens <= budget for tokens in filled) <= 1


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=6), min_size=1, max_size=8), st.integers(1, 25))
def test_rows_change_nothing_but_places(answers: list[list[int]], budget: int) -> None:
    """Each sequence, read back along its tokens' ancestors in the row, is itself, in the order of the groups."""
    cells = (Sequence(0, 0, ()), Sequence(0, 1, ()))
    groups = [EncodedGroup("g", ((7, 8),), (tuple(a), (*a, 9)), cells, ()) for a in answers]
    batch = collate(groups, "tree", pad_token_id=0, row_tokens=budget)
    assert batch.subtree_end is not None
    width = batch.input_ids.shape[1]
    wanted = [list(group.token_ids(i)) for group in groups for i in range(2)]
    for last, ids in zip(batch.last_S.tolist(), wanted, strict=True):
        row, place = divmod(last, width)
        end = batch.subtree_end[row].tolist()
        path = [k for k in range(place + 1) if place < end[k]]
        assert batch.input_ids[row][path].tolist() == ids
        assert batch.position_ids[row][path].tolist() == list(range(len(ids)))
