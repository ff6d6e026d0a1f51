"""What was made with other settings or data is kept, and what belongs to both is not made again."""

from pathlib import Path

import pytest

from mapl_ray.aside import is_aside, set_aside, set_parts_aside
from mapl_ray.data.records import PAIR_SCHEMA, Rejection
from mapl_ray.data.shards import MANIFEST, Part, commit, finished_part, iter_rows, read_manifest, write_part

ROW = {"prompt": [{"role": "user", "content": "x"}], "chosen": "a", "rejected": "b", "source": "s"}


def make(folder: Path, marks: list[str], fingerprint: str | None) -> list[Part]:
    """A data set with a part of one row for each of `marks`; `fingerprint` None: without a manifest."""
    parts = []
    for n, mark in enumerate(marks):
        rejected = [Rejection("s", n, mark, "read", "r")]
        parts.append(write_part(folder, n, [{**ROW, "pair_id": mark}], rejected, PAIR_SCHEMA, mark, {"n": n}))
    if fingerprint is not None:
        commit(folder, "prepare", fingerprint, parts)
    return parts


def ids(folder: Path) -> list[str]:
    return [row["pair_id"] for row in iter_rows(folder)]


def test_another_data_set_is_kept_whole_and_shared_parts_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, aside = tmp_path / "train", tmp_path / "train.aside-1"
    make(folder, ["a", "b", "c"], "old")
    set_parts_aside(folder, "new", {"a", "c", "d"})
    assert ids(aside) == ["a", "b", "c"]
    assert capsys.readouterr().out == f"  {folder}: of other settings or data, kept as {aside}\n"
    assert not (folder / MANIFEST).exists()
    assert [finished_part(folder, n, mark) is not None for n, mark in enumerate("abc")] == [True, False, True]
    names = ("part-0000{}.parquet", "part-0000{}.json", "rejected-0000{}.jsonl", "notes-0000{}.json")
    assert {file.name for file in folder.iterdir()} == {name.format(n) for n in (0, 2) for name in names}
    # The new data set takes their places; what was set aside is as it was.
    make(folder, ["d", "e"], "new")
    assert ids(aside) == ["a", "b", "c"]
    assert read_manifest(aside).fingerprint == "old"
    assert ids(folder) == ["d", "e"]


@pytest.mark.parametrize("fingerprint", ["now", None])
def test_the_same_data_set_stays(tmp_path: Path, fingerprint: str | None) -> None:
    make(tmp_path / "train", ["a", "b"], fingerprint)
    set_parts_aside(tmp_path / "train", "now", {"a", "b", "c"})
    set_parts_aside(tmp_path / "eval", "now", {"a"})
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_an_unfinished_one_of_other_settings_is_kept_too(tmp_path: Path) -> None:
    make(tmp_path / "train", ["a", "b"], None)
    set_parts_aside(tmp_path / "train", "now", {"a", "c"})
    assert (tmp_path / "train.aside-1" / "part-00001.parquet").is_file()
    set_parts_aside(tmp_path / "train", "now", {"a", "c"})  # as after a death: nothing is set aside twice
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train", "train.aside-1"]


def test_names_are_never_taken_twice(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / "evaluation.json").write_text(str(number))
        target = set_aside(tmp_path / "evaluation.json")
        assert (target.name, target.read_text()) == (f"evaluation.json.aside-{number}", str(number))
        assert is_aside(target)
    assert not is_aside(tmp_path / "my.aside-run")
