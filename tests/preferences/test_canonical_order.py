"""The order of pairs, the sort of more values than memory holds, and rejections on disk."""

import random
from pathlib import Path

import pytest

from mapl_ray.data.records import Rejection
from mapl_ray.preferences import place_of
from mapl_ray.preferences.canonical_order import ExternalSort
from mapl_ray.preferences.rejection_file import RejectionFile, read_rejections

VALUES = [(index % 7 / 7, f"id-{index % 50}\u2028\t{'x' * (index % 30)}", index) for index in range(2000)]


@pytest.mark.parametrize("most", [10**9, 5_000, 1])
def test_any_order_in_one_order_out(most: int, tmp_path: Path) -> None:
    for seed in range(2):
        with ExternalSort(tmp_path, most) as values:
            for value in random.Random(seed).sample(VALUES, len(VALUES)):
                values.add(value)
            assert list(values.sorted()) == sorted(VALUES)
        assert list(tmp_path.iterdir()) == []


def test_a_sort_holds_no_more_than_it_may(tmp_path: Path) -> None:
    with ExternalSort(tmp_path, 50_000) as values:
        for index in range(500):
            values.add((f"{index % 3} {'word ' * 200}", index))
            held = sum(len(str(text)) for text, _ in values._values)
            assert held <= 50_000
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) > 400_000
        assert [index for _, index in values.sorted()] == sorted(range(500), key=lambda index: (index % 3, index))


def test_places_are_spread_evenly() -> None:
    places = [place_of(f"id-{index}") for index in range(4000)]
    assert all(0 <= place < 1 for place in places)
    counts = [sum(n / 8 <= place < (n + 1) / 8 for place in places) for n in range(8)]
    assert min(counts) > 420
    assert max(counts) < 580  # 500 each; six standard deviations are 125


def test_rejections_come_back(tmp_path: Path) -> None:
    given = [Rejection("f", row, "", "read", f"chosen=\u2028{row}") for row in range(5)]
    path = tmp_path / "rejected.jsonl"
    with RejectionFile(path) as file:
        for one in given:
            file.add(one)
        assert not path.exists()  # nobody takes half of it for whole
    assert (list(read_rejections(path)), file.count) == (given, 5)
    other = RejectionFile(tmp_path / "other.jsonl")
    other.add(given[0])
    error = ValueError()
    other.__exit__(type(error), error, None)
    assert [one.name for one in tmp_path.iterdir()] == ["rejected.jsonl"]
