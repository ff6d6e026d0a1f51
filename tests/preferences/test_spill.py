"""The external sort: one order for any order of input, nothing lost, nothing left on disk."""

import random
from pathlib import Path

from mapl_ray.data.records import Message, PreferencePair, Rejection
from mapl_ray.preferences import RejectionFile, Spill, place_of
from mapl_ray.unfinished import unfinished


def pair(index: int, chosen: str = "yes") -> PreferencePair:
    # Lone surrogates and line separators come from real web text.
    prompt = (Message("system", "Be brief."), Message("user", f"Why {index}?\u2028\r\n\ud800"))
    return PreferencePair(f"id-{index}", prompt, chosen, "no", "made-up", margin=index / 7)


def out_of(folder: Path, pairs: list[PreferencePair]) -> list[PreferencePair]:
    with Spill(folder / "spill") as spill:
        for one in pairs:
            spill.add(one)
        found = list(spill.sorted())
    assert list(folder.iterdir()) == []
    return found


def test_any_order_in_one_order_out(tmp_path: Path) -> None:
    pairs = [pair(index) for index in range(2000)] + [pair(7, "another"), pair(7, "a third")]
    shuffled = random.Random(0).sample(pairs, len(pairs))
    found = out_of(tmp_path, pairs)
    assert found == out_of(tmp_path, shuffled)
    assert sorted(map(repr, found)) == sorted(map(repr, pairs))
    assert [place_of(p.pair_id) for p in found] == sorted(place_of(p.pair_id) for p in pairs)
    # Those with one id stand together, by content.
    assert [p.chosen for p in found if p.pair_id == "id-7"] == ["a third", "another", "yes"]


def test_buffers_larger_than_memory_allows_are_written(tmp_path: Path) -> None:
    long = "word " * 30_000
    pairs = [pair(index, f"{long}{index}") for index in range(40)]
    many = [PreferencePair("same", p.prompt, p.chosen, "no", "made-up") for p in pairs]  # all in one bucket
    with Spill(tmp_path / "spill") as spill:
        for one in many:
            spill.add(one)
        assert sum(f.stat().st_size for f in spill.directory.iterdir()) > 4_000_000
        assert len(list(spill.sorted())) == 40


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    left = unfinished(tmp_path / "spill")
    left.mkdir()
    (left / "003.jsonl").write_text("half a li")
    assert out_of(tmp_path, [pair(1)]) == [pair(1)]


def test_places_are_spread_evenly() -> None:
    places = [place_of(f"id-{index}") for index in range(4000)]
    assert all(0 <= place < 1 for place in places)
    counts = [sum(n / 8 <= place < (n + 1) / 8 for place in places) for n in range(8)]
    assert min(counts) > 420
    assert max(counts) < 580  # 500 each; six standard deviations are 125


def test_rejections_come_back(tmp_path: Path) -> None:
    given = [Rejection("f", row, "", "read", f"chosen=\u2028{row}") for row in range(5)]
    with RejectionFile(tmp_path / "rejected.jsonl") as file:
        for one in given[:3]:
            file.add(one)
        assert list(file.read()) == given[:3]
        file.add(given[3])
        assert (list(file.read()), file.count) == (given[:4], 4)
