"""Exactly-once parts: a reader sees whole data sets or a message, never something in between."""

import json
from pathlib import Path

import pytest

from mapl_ray.data import shards
from mapl_ray.data.records import PAIR_SCHEMA, Rejection
from mapl_ray.data.shards import (
    MANIFEST,
    commit,
    finished,
    finished_part,
    iter_rows,
    json_lines,
    read_batches,
    read_manifest,
    read_part,
    verify_part,
    write_part,
)
from mapl_ray.errors import UserError


def row(pair_id: str) -> dict[str, object]:
    prompt = [{"role": "user", "content": "Hi"}]
    return {"pair_id": pair_id, "prompt": prompt, "chosen": "a", "rejected": "b", "source": "s", "margin": None}


def two_parts(directory: Path) -> None:
    rejection = Rejection("s", 3, "c", "read", "chosen is empty")
    parts = [
        write_part(directory, 0, [row("a"), row("b")], [], PAIR_SCHEMA, "f"),
        write_part(directory, 1, [row("c")], [rejection], PAIR_SCHEMA, "f"),
    ]
    commit(directory, "read", "f", parts)


def test_round_trip_and_accounting(tmp_path: Path) -> None:
    two_parts(tmp_path)
    manifest = read_manifest(tmp_path)
    assert (manifest.rows, manifest.rejected, manifest.input_rows) == (3, 1, 4)
    assert [r["pair_id"] for r in read_part(tmp_path, manifest.parts[0])] == ["a", "b"]
    rejected = json.loads((tmp_path / "rejected-00001.jsonl").read_text())
    assert rejected == {"source": "s", "row": 3, "pair_id": "c", "stage": "read", "reason": "chosen is empty"}


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    first = write_part(tmp_path / "one", 0, [row("a")], [], PAIR_SCHEMA, "f")
    second = write_part(tmp_path / "two", 0, [row("a")], [], PAIR_SCHEMA, "f")
    assert first.sha256 == second.sha256
    assert first.sha256 != write_part(tmp_path / "three", 0, [row("z")], [], PAIR_SCHEMA, "f").sha256


def test_a_half_written_part_is_named_with_its_cure(tmp_path: Path) -> None:
    two_parts(tmp_path)
    part = tmp_path / "part-00001.parquet"
    part.write_bytes(part.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"part-00001\.parquet: missing or damaged.*Run the stage again"):
        read_manifest(tmp_path)
    assert finished(tmp_path, "f") is None
    assert finished_part(tmp_path, 1, "f") is None  # so a rerun writes it anew
    assert finished_part(tmp_path, 0, "f") is not None


def test_parts_without_a_manifest_are_not_read(tmp_path: Path) -> None:
    write_part(tmp_path, 0, [row("a")], [], PAIR_SCHEMA, "f")
    with pytest.raises(UserError, match="unfinished"):
        read_manifest(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "nowhere")


def test_other_inputs_are_not_taken_for_finished(tmp_path: Path) -> None:
    two_parts(tmp_path)
    assert finished(tmp_path, "f") is not None
    assert finished(tmp_path, "g") is None
    assert finished_part(tmp_path, 0, "g") is None


def test_commit_removes_what_an_earlier_larger_run_left(tmp_path: Path) -> None:
    two_parts(tmp_path)
    commit(tmp_path, "read", "h", [write_part(tmp_path, 0, [row("a")], [], PAIR_SCHEMA, "h")])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "part-00000.json", "part-00000.parquet"]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="surrogates not allowed"):
        write_part(tmp_path, 0, [row("\ud800")], [], PAIR_SCHEMA, "f")
    assert list(tmp_path.iterdir()) == []


def test_a_commit_removes_its_own_names_alone(tmp_path: Path) -> None:
    ours = [
        "part-00001.parquet", "part-00001.json", "notes-00001.json", "rejected-00001.jsonl", "part-123456.parquet",
        ".part-00000.parquet.node-7-0123456789ab.tmp", ".manifest.json.node-7-0123456789ab.tmp", "part-00000.journal",
    ]  # fmt: skip
    others = [
        "part-time.csv", "part-list.json", "notes-1.json", "part-1.parquet", "part-00001.parquet.bak", "mine.journal",
        "notes-of-mine.md", "rejected-by-hand.jsonl", ".mine.tmp", ".part-00000.parquet.tmp",
    ]  # fmt: skip
    for name in (*ours, *others):
        (tmp_path / name).write_text("x")
    commit(tmp_path, "prepare", "f", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, MANIFEST])


def test_parts_are_read_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BATCH_ROWS", 4)
    rows = [row(str(number)) for number in range(10)]
    manifest = commit(tmp_path, "read", "f", [write_part(tmp_path, 0, rows, [], PAIR_SCHEMA, "f")])
    batches = list(read_batches(tmp_path, manifest.parts[0], ["chosen", "pair_id"]))
    assert [batch.num_rows for batch in batches] == [4, 4, 2]
    assert {*batches[0].schema.names} == {"chosen", "pair_id"}
    assert list(iter_rows(tmp_path)) == read_part(tmp_path, manifest.parts[0])
    verify_part(tmp_path, manifest.parts[0])
    (tmp_path / "part-00000.parquet").unlink()
    with pytest.raises(UserError, match=r"part-00000\.parquet: missing or damaged"):
        verify_part(tmp_path, manifest.parts[0])


def test_lines_of_json_come_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert list(json_lines(path)) == []
    path.write_bytes(b'{"a": "\xc3\xa8"}\r\n[1]\n\xff\n\n{"a": 2}\n{"a": ')
    assert list(json_lines(path)) == [{"a": "\u00e8"}, None, None, None, {"a": 2}, None]
