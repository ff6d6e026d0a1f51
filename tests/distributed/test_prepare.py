"""Preparation in passes: the parts of one process that goes through all pairs in order, however the work is divided."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import RunConfig, parse_config
from mapl_ray.data.records import PAIR_SCHEMA, PreferencePair, Rejection, canonical_json
from mapl_ray.data.shards import Manifest, commit, read_manifest, read_notes, write_part
from mapl_ray.distributed import passes, prepare
from mapl_ray.distributed.prepare import SPLITS, Sizes, prepare_pairs
from mapl_ray.distributed.prepare_read import ReadContext, plan_items, read_item
from mapl_ray.errors import UserError
from mapl_ray.preferences import Contamination, Duplicates, eval_split, place_of, read_pairs

SMALL = Sizes(item_bytes=12_000, piece_chars=15_000, range_bytes=60_000, keys=80)
WORDS = [f"word{n}" for n in range(400)]
DATA = {"eval_fraction": 0.3, "near_threshold": 0.7}


def text_of(rng: random.Random, number: int = 40) -> str:
    return " ".join(rng.choices(WORDS, k=number))


def changed(text: str, *places: int) -> str:
    words = text.split()
    for place in places:
        words[place] = f"other{place}"
    return " ".join(words)


def messy() -> list[dict[str, Any]]:
    """Rows with duplicates of every kind, ids that come again, benchmark prompts and rows that can't be used."""
    rng = random.Random(0)
    rows = [
        {"id": f"p{n}", "prompt": f"Question {n // 2}?", "chosen": text_of(rng), "rejected": text_of(rng, 9)}
        for n in range(60)
    ]
    more = [{**row, "id": f"copy-{row['id']}", "chosen": f" {row['chosen'].upper()} "} for row in rows[:12]]
    more += [{**row, "id": f"near-{row['id']}", "chosen": changed(row["chosen"], 20)} for row in rows[6:20]]
    # Like the one before, and the last not like the first: which are kept depends on which were kept before.
    more += [
        {**rows[20], "id": f"chain-{n}", "chosen": changed(rows[20]["chosen"], *range(5, 5 + 3 * n, 3))}
        for n in range(9)
    ]
    for n in range(20, 32):  # ids that come again: with the same row, another answer, another prompt, a copy's row
        more.append(rows[n])
        more.append({**rows[n], "chosen": text_of(rng)})
        more.append({**rows[n], "prompt": f"Asked again {n}?"})
        more.append({**rows[n - 14], "id": rows[n]["id"]})
    for n in range(32, 40):  # the first of an id may be a benchmark's
        more += [{**rows[n], "prompt": "Sort these."}, {**rows[n], "id": f"bench-{n}", "prompt": "Sort these."}]
    judged = {"name": "formal_tone", "rejected": 0.25}
    more += [{**rows[41], "judgements": [{**judged, "chosen": 0.75 + n / 1e9}]} for n in range(4)]
    more += [{"id": f"broken-{n}", "prompt": "Why?", "chosen": "", "rejected": "no"} for n in range(5)]
    more += [{**row, "id": f"low-{n}", "prompt": f"Low {n}?", "margin": n - 2.5} for n, row in enumerate(rows[50:56])]
    found = [*rows, *more]
    return rng.sample(found, len(found))


def jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def plain(rows: list[dict[str, Any]]) -> pa.Table:
    columns = ("id", "prompt", "chosen", "rejected", "margin")
    return pa.table({name: [row.get(name) for row in rows] for name in columns})


def one_file(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"path": jsonl(folder / "pairs.jsonl", rows)}


def several_files(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    (folder / "data").mkdir()
    for number, name in enumerate(("a.jsonl", "b.jsonl.gz", "c.jsonl", "d.jsonl", "e.jsonl")):
        jsonl(folder / "data" / name, rows[number::5])
    return {"path": str(folder / "data")}


def row_groups(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    pq.write_table(plain(rows), folder / "pairs.parquet", row_group_size=11)
    return {"path": str(folder / "pairs.parquet")}


def saved(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    datasets.disable_progress_bars()
    datasets.Dataset(plain(rows)).save_to_disk(str(folder / "saved"))
    return {"path": str(folder / "saved")}


def hub(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The files of a data set on the hub are streamed from a folder, for there is no hub in tests (see the fixture)."""
    (folder / "hub").mkdir()
    for number in range(3):
        jsonl(folder / "hub" / f"train-{number}.jsonl", [{**plain_row(row)} for row in rows[number::3]])
    return {"path": "owner/name"}


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row.get(name) for name in ("id", "prompt", "chosen", "rejected", "margin")}


def mix(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    first, second = jsonl(folder / "first.jsonl", rows[::2]), jsonl(folder / "second.jsonl.gz", rows[1::2])
    return {"mix": [{"path": first, "weight": 0.6}, {"path": second, "weight": 2.5}]}


def limited(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {**several_files(folder, rows), "limit": 70}


LAYOUTS: dict[str, Callable[[Path, list[dict[str, Any]]], dict[str, Any]]] = {
    "one file": one_file,
    "several files": several_files,
    "row groups": row_groups,
    "a saved data set": saved,
    "a hub's files": hub,
    "a mix": mix,
    "a limit": limited,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many items, pieces and ranges of few rows."""
    monkeypatch.setattr(prepare, "SIZES", SMALL)


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    load = datasets.load_dataset

    def from_folder(path: str, *, split: str, revision: str | None, streaming: bool) -> Any:
        return load("json", data_files=str(tmp_path / "run" / "hub" / "*.jsonl"), split=split, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)


def config_of(folder: Path, data: dict[str, Any], **sections: Any) -> RunConfig:
    folder.mkdir(exist_ok=True)
    (folder / "benchmark.txt").write_text("Sort these.\n")
    data = {"benchmarks": [str(folder / "benchmark.txt")], **DATA, **data}
    values = {"name": "run", "output_dir": str(folder), "data": data, "synthesis": {"rows_per_shard": 7}}
    return parse_config({**values, **sections}, "test")


def made_of(folder: Path, layout: str, mode: str = "exact", **sections: Any) -> RunConfig:
    folder.mkdir()
    return config_of(folder, {**LAYOUTS[layout](folder, messy()), "duplicates": mode}, **sections)


def reference(config: RunConfig, folder: Path, fingerprint: str) -> dict[str, Manifest]:
    """One list of pairs, sorted, gone through once; every pair is compared with all that were kept before it."""
    given = list(read_pairs(config.data, config.seed))
    rejected = [one for one in given if isinstance(one, Rejection)]
    pairs = [one for one in given if isinstance(one, PreferencePair)]
    pairs.sort(key=lambda pair: (place_of(pair.pair_id), pair.pair_id, canonical_json(pair.to_row()), pair.row))
    contamination, duplicates, kept = Contamination.load(config.data), Duplicates(config.data), list[PreferencePair]()
    for pair in pairs:
        if kept and pair.pair_id == kept[-1].pair_id:
            why = "read", f"id {pair.pair_id!r} occurs more than once: expected one row per id; one of them was kept"
        elif (found := contamination.found(pair)) is not None:
            why = "contamination", found
        elif (first := duplicates.first_like(pair)) is not None:
            nearly = "nearly " if duplicates.mode == "near" else ""
            why = "duplicates", f"{nearly}the same as pair {first!r} (data.duplicates={duplicates.mode})"
        else:
            kept.append(pair)
            continue
        rejected.append(Rejection(pair.source, pair.row, pair.pair_id, *why))
    assert {one.stage for one in rejected} >= {"read"}
    manifests = {}
    for split in SPLITS:

        def of(some: list[PreferencePair], split: str = split) -> list[PreferencePair]:
            held_out = split == "eval"
            return [p for p in some if eval_split(p, config.data.eval_fraction, config.seed) == held_out]

        number = max(1, -(-len(of(pairs)) // config.synthesis.rows_per_shard))
        parts = []
        for index in range(number):
            some = [pair for pair in of(kept) if int(place_of(pair.pair_id) * number) == index]
            with_last = rejected if split == "train" and index == number - 1 else []
            notes = {"source_rows": [pair.row for pair in some]}
            rows = [pair.to_row() for pair in some]
            parts.append(write_part(folder / split, index, rows, with_last, PAIR_SCHEMA, fingerprint, notes))
        manifests[split] = commit(folder / split, "prepare", fingerprint, parts)
    return manifests


def assert_as_reference(config: RunConfig, manifests: dict[str, Manifest], folder: Path) -> None:
    expected = reference(config, folder, manifests["train"].fingerprint)
    assert manifests == expected
    pairs = config.data_dir / "pairs"
    for split, manifest in manifests.items():
        for part in manifest.parts:
            assert read_notes(pairs / split, part) == read_notes(folder / split, part)
    rejections = [sorted(below.rglob("rejected-*.jsonl")) for below in (pairs, folder)]
    assert [[file.name for file in files] for files in rejections] == [[rejections[0][0].name]] * 2
    assert rejections[0][0].read_text() == rejections[1][0].read_text()
    assert sorted(file.name for file in pairs.iterdir()) == ["eval", "train"]
    assert [file for file in pairs.rglob("*") if file.name.endswith(".tmp")] == []


@pytest.mark.parametrize(
    ("layout", "mode"), [*((layout, "near") for layout in LAYOUTS), ("a mix", "exact"), ("several files", "keep")]
)
def test_the_parts_of_one_process_in_order(
    layout: str, mode: str, tmp_path: Path, small: None, streamed: None, without_ray: None
) -> None:
    config = made_of(tmp_path / "run", layout, mode)
    manifests = prepare_pairs(config)
    assert len(manifests["train"].parts) > 4
    assert_as_reference(config, manifests, tmp_path / "expected")
    if layout not in ("one file", "a mix", "a limit"):
        assert len(plan_items(config.data, SMALL.item_bytes)) > 2
    stages = {json.loads(line)["stage"] for line in next(tmp_path.rglob("rejected-*.jsonl")).read_text().splitlines()}
    assert stages >= {"read", "contamination"} | (set() if mode == "keep" else {"duplicates"})


def test_how_the_work_is_divided_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    """One row group or many, pieces and ranges of any size, rows in any order."""
    found = []
    for number, size in enumerate((1, 11, 10_000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        rows = random.Random(number).sample(messy(), len(messy()))
        pq.write_table(plain(rows), folder / "pairs.parquet", row_group_size=size)
        monkeypatch.setattr(prepare, "SIZES", replace(SMALL, piece_chars=500 * size, range_bytes=500 * size))
        config = config_of(folder, {"path": str(folder / "pairs.parquet"), "duplicates": "near"})
        found.append([prepare_pairs(config)[split].content_hash for split in SPLITS])
    assert found[0] == found[1] == found[2]


class KilledError(BaseException):
    """No handler of ours takes it for an error."""


class Kill:
    """Raises `KilledError` at the n-th file that gets its name, before or after."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left, self._after, self.files = -1, False, 0
        replace_file = os.replace

        def counted(source: Any, target: Any) -> None:
            self.files += 1
            self._left -= 1
            if self._left == 0 and not self._after:
                raise KilledError
            replace_file(source, target)
            if self._left == 0:
                raise KilledError

        monkeypatch.setattr(os, "replace", counted)

    def at(self, number: int, *, after: bool) -> None:
        self._left, self._after = number, after


def test_a_run_that_is_killed_goes_on_wherever_it_was(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    config = made_of(tmp_path / "run", "several files", "near")
    kill = Kill(monkeypatch)
    expected, files = prepare_pairs(config), kill.files
    for number in range(1, files - 1, files // 4):
        shutil.rmtree(config.data_dir)
        kill.at(number, after=number % 2 == 0)
        with pytest.raises(KilledError):
            prepare_pairs(config)
        assert not (config.data_dir / "pairs" / "train" / "manifest.json").exists()
        assert prepare_pairs(config) == expected
    assert_as_reference(config, expected, tmp_path / "expected")
    # Killed again and again: what is done stays done, or this would never end.
    shutil.rmtree(config.data_dir)
    kills = 0
    while True:
        kill.at(20, after=True)
        try:
            manifests = prepare_pairs(config)
        except KilledError:
            kills += 1
            assert kills < files / 5
        else:
            break
    assert manifests == expected
    assert kills > 2


def test_parts_that_go_while_a_run_is_dead_are_made_again(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    config = made_of(tmp_path / "run", "one file")
    expected = prepare_pairs(config)
    shutil.rmtree(config.data_dir)

    def end(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "commit", end)
        with pytest.raises(KilledError):
            prepare_pairs(config)
    train = config.data_dir / "pairs" / "train"
    (train / "part-00001.parquet").write_bytes(b"PAR1")
    (train / "part-00003.json").unlink()
    assert prepare_pairs(config) == expected
    assert read_manifest(train) == expected["train"]


def test_other_work_starts_with_an_empty_folder(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, without_ray: None
) -> None:
    config = made_of(tmp_path / "run", "one file")
    kill = Kill(monkeypatch)
    kill.at(12, after=True)
    with pytest.raises(KilledError):
        prepare_pairs(config)
    assert list((config.data_dir / "pairs").glob("work-*"))
    other = config.model_copy(update={"data": config.data.model_copy(update={"duplicates": "near"})})
    assert_as_reference(other, prepare_pairs(other), tmp_path / "expected")


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers(
    workers: int, tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch, local_ray: None
) -> None:
    def here(*_: Any) -> None:
        raise AssertionError("not on a worker")

    monkeypatch.setattr(passes, "_do", here)
    config = made_of(tmp_path / "run", "several files", "near", cluster={"synthesis_workers": workers})
    assert_as_reference(config, prepare_pairs(config), tmp_path / "expected")


@pytest.mark.ray
def test_a_mistake_that_a_worker_finds_has_the_same_message(tmp_path: Path, small: None, local_ray: None) -> None:
    config = made_of(tmp_path / "run", "several files", cluster={"synthesis_workers": 2})
    file = tmp_path / "run" / "data" / "b.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"b.jsonl.gz: truncated or damaged gzip file") as here:
        list(read_pairs(config.data))
    with pytest.raises(UserError) as there:
        prepare_pairs(config)
    assert str(there.value) == str(here.value)


def test_a_node_with_other_files_makes_nothing(tmp_path: Path, without_ray: None) -> None:
    config = made_of(tmp_path / "run", "one file")
    (item,) = plan_items(config.data, 10**9)
    context = ReadContext(config, tmp_path / "work", 10**6, ("of another file",), None)
    with pytest.raises(UserError, match=r"data.benchmarks: on node \S+ the files .*benchmark\S* differ from"):
        read_item(item, 0, context=context)
    jsonl(tmp_path / "run" / "pairs.jsonl", messy()[:-1])
    (tmp_path / "run" / "benchmark.txt").unlink()
    context = ReadContext(config.model_copy(update={"data": config.data.model_copy(update={"benchmarks": ()})}),
                          tmp_path / "work", 10**6, (), None)  # fmt: skip
    with pytest.raises(UserError, match=r"pairs.jsonl: [\d,]+ bytes on node \S+; expected [\d,]+, as when the run"):
        read_item(item, 0, context=context)
    (tmp_path / "run" / "pairs.jsonl").unlink()
    with pytest.raises(UserError, match=r"pairs.jsonl: not found on node"):
        read_item(item, 0, context=context)
    assert list((tmp_path / "work").iterdir()) == []
