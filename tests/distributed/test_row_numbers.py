"""Rows of the source: all come back from preparation, and later stages' rejections name them. No cluster is needed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.config import PairMarginConfig, RunConfig, parse_config
from mapl_ray.data.records import PAIR_SCHEMA, Message, PreferencePair, Rejection
from mapl_ray.data.shards import commit, iter_rows, read_manifest, read_part, write_part
from mapl_ray.distributed import prepare
from mapl_ray.distributed.prepare import prepare_pairs
from mapl_ray.distributed.row_numbers import with_source_rows
from mapl_ray.distributed.score_pairs import join_pairs_shard
from mapl_ray.distributed.shard_tasks import Stage, run_stages
from mapl_ray.errors import RunError
from mapl_ray.preferences import pieces

ROWS = 40


def prepared(folder: Path) -> RunConfig:
    rows = [{"id": f"p{n}", "prompt": f"{n}?", "chosen": f"{n} is it.", "rejected": "No."} for n in range(ROWS)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"path": str(folder / "pairs.jsonl"), "eval_fraction": 0.2}
    values = {"name": "run", "output_dir": str(folder), "data": data, "synthesis": {"rows_per_shard": 10}}
    config = parse_config(values, "test")
    prepare_pairs(config)
    return config


@pytest.mark.parametrize(("came_back", "what"), [(ROWS - 1, "lost"), (ROWS + 1, "another run's")])
def test_rows_that_do_not_come_back_end_preparation(
    came_back: int, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run ends before its manifests; what it has written says then that a row fewer, or one more, was rejected."""

    class EndedError(Exception):
        pass

    def end(*_: Any) -> None:
        raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "commit", end)
        with pytest.raises(EndedError):
            prepared(tmp_path)
    (entry,) = (tmp_path / "run" / "pairs").glob("work-*/write/00000.json")
    values = json.loads(entry.read_text())
    entry.write_text(json.dumps(values | {"rejected": values["rejected"] + came_back - ROWS}))
    with pytest.raises(RunError, match=rf"{came_back} rows after the last pass, expected {ROWS}. Check that no other"):
        prepared(tmp_path)
    assert not list((tmp_path / "run").rglob("manifest.json"))
    prepared(tmp_path)  # from the beginning
    assert len(list((tmp_path / "run").rglob("manifest.json"))) == 2


def test_a_damaged_piece_ends_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = pieces._write
    monkeypatch.setattr(pieces, "_write", lambda table, path: write(table.slice(1), path))
    with pytest.raises(RunError, match=rf"00000-000.arrow: found {ROWS - 1} pairs; expected {ROWS}. Delete "):
        prepared(tmp_path)


def rejection(pair_id: str, row: int = -1) -> Rejection:
    return Rejection("pairs.jsonl", row, pair_id, "synthesize", "no")


def test_every_part_knows_the_rows_of_its_pairs(tmp_path: Path) -> None:
    config, found = prepared(tmp_path), []
    for split in ("train", "eval"):
        folder = config.data_dir / "pairs" / split
        for part in read_manifest(folder).parts:
            ids = [str(row["pair_id"]) for row in read_part(folder, part)]
            found += with_source_rows([rejection(one) for one in ids], folder, part.index)
            further = with_source_rows([rejection(f"{one}#2") for one in ids], folder, part.index)
            assert [one.row for one in further] == [one.row for one in found[-len(ids) :]]
    assert {one.row: one.pair_id for one in found} == {n: f"p{n}" for n in range(ROWS)}


def test_what_is_not_known_stays_as_it_is(tmp_path: Path) -> None:
    folder = prepared(tmp_path).data_dir / "pairs" / "train"
    given = [rejection("nobody's"), rejection("p0", row=77)]
    assert with_source_rows(given, folder, 0) == given
    assert with_source_rows(given, tmp_path / "none", 0) == given
    for notes in folder.glob("notes-*.json"):  # as pairs of an earlier release
        notes.unlink()
    assert with_source_rows([rejection("p0")], folder, 0) == [rejection("p0")]


def test_a_stage_writes_them(tmp_path: Path) -> None:
    """Pairs without a reward, dropped by `scoring.pair_margin`."""
    config = prepared(tmp_path)
    pairs, target = config.data_dir / "pairs" / "train", tmp_path / "out"
    stage = Stage("score pairs", pairs, target, "recipe", pairs=pairs)
    bound = PairMarginConfig(min_margin=0.5)
    row = {"stage": 0, "index": 0, "fingerprint": "f"}
    assert join_pairs_shard(row, stages=[stage], folders=[{}], margin=bound)["error"] == ""
    lines = [json.loads(line) for line in (target / "rejected-00000.jsonl").read_text().splitlines()]
    assert lines
    assert all(line["pair_id"] == f"p{line['row']}" for line in lines)


def test_rows_are_no_part_of_the_data(tmp_path: Path) -> None:
    """The same pairs in another order are the same parts."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    one, other = prepared(tmp_path / "a"), prepared(tmp_path / "b")
    lines = (tmp_path / "b" / "pairs.jsonl").read_text().splitlines(True)
    (tmp_path / "b" / "pairs.jsonl").write_text("".join(reversed(lines)))
    prepare_pairs(other)
    for split in ("train", "eval"):
        same = [read_manifest(config.data_dir / "pairs" / split).content_hash for config in (one, other)]
        assert same[0] == same[1]
    (pair, *_) = (PreferencePair.from_row(row) for row in iter_rows(other.data_dir / "pairs" / "train"))
    assert pair.row == -1
    (found,) = with_source_rows([rejection(pair.pair_id)], other.data_dir / "pairs" / "train", 0)
    assert found.row == ROWS - 1 - int(pair.pair_id.removeprefix("p"))


@pytest.mark.parametrize("made", [0, 1, 3])
def test_results_that_are_not_as_many_as_rows_end_a_stage(made: int, tmp_path: Path) -> None:
    """A target of two pairs that says that it is finished, with digests that agree. Nothing is computed."""
    pair = PreferencePair("a", (Message("user", "Why?"),), "yes", "no", "made-up")
    rows = [replace(pair, pair_id=name).to_row() for name in "abc"]
    source, target = tmp_path / "source", tmp_path / "target"
    commit(source, "prepare", "f", [write_part(source, 0, rows[:2], [], PAIR_SCHEMA, "f")])
    stage = Stage("score", source, target, "recipe")
    (mark,) = stage.wanted().values()

    def compute(_: Any) -> Any:
        raise AssertionError("nothing is to be computed")

    for some, rejections in ((rows[:2], []), (rows[:1], [rejection("b")])):  # the control: as many as there are
        commit(target, "score", stage.fingerprint, [write_part(target, 0, some, rejections, PAIR_SCHEMA, mark)])
        assert [number for _, number in run_stages([stage], compute)] == [0]
    commit(target, "score", stage.fingerprint, [write_part(target, 0, rows[:made], [], PAIR_SCHEMA, mark)])
    with pytest.raises(RunError, match=rf"{made} results of part 0 of {source}; expected 2"):
        run_stages([stage], compute)
