"""What a file holds against what its name says, and what a file has twice; columns by their declared names."""

import bz2
import csv
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import DataConfig
from mapl_ray.config.json_file import read_json_object
from mapl_ray.data.records import PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.preferences import Contamination, check_source, read_pairs

ROW = {"prompt": "How do I keep basil fresh?", "chosen": "In water.", "rejected": "In the freezer."}
LINE = json.dumps(ROW).encode() + b"\n"
TWICE = b'{"prompt": "A?", "prompt": "B?", "chosen": "a", "rejected": "b"}\n'


def read(path: Path | str, **config: Any) -> list[PreferencePair | Rejection]:
    return list(read_pairs(DataConfig(path=str(path), **config)))


def parquet_bytes() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([ROW]), sink)
    return bytes(sink.getvalue())


CONTENTS = {
    "gzip": (gzip.compress(LINE), "this is gzip.*a name that ends in .gz"),
    "zstd": (bytes(pa.compress(LINE, codec="zstd", asbytes=True)), "this is zstd.*zstd -d"),
    "xz": (lzma.compress(LINE), "this is xz.*xz -d"),
    "bzip2": (bz2.compress(LINE), "this is bzip2.*bzip2 -d"),
    "parquet": (parquet_bytes(), r"this is Parquet.*a name that ends in \.parquet"),
    "zip": (b"PK\x03\x04rest", "this is a zip archive"),
    "arrow": (b"ARROW1\x00\x00", "this is an Arrow file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "this is a Git LFS pointer.*git lfs pull"),
    "html": (b"<!DOCTYPE html>\n<html></html>", "this is a web page"),
    "utf-16": (LINE.decode().encode("utf-16"), "this is UTF-16.*iconv -f UTF-16"),
    "utf-16-le": (LINE.decode().encode("utf-16-le"), "this is UTF-16"),
    "utf-16-be": (LINE.decode().encode("utf-16-be"), "this is UTF-16"),
    "utf-32": (LINE.decode().encode("utf-32"), "this is UTF-32"),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".txt"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_other_content_under_a_name_is_said_and_what_to_do(tmp_path: Path, kind: str, suffix: str) -> None:
    content, said = CONTENTS[kind]
    path = tmp_path / f"pairs{suffix}"
    # In a .gz file the content is packed once more.
    path.write_bytes(gzip.compress(content) if suffix == ".jsonl.gz" else content)
    if (kind, suffix) == ("parquet", ".parquet"):
        assert len(read(path)) == 1
        return
    with pytest.raises(UserError, match=said) as caught:
        Contamination.load(DataConfig(benchmarks=(str(path),))) if suffix == ".txt" else read(path)
    assert str(path) in str(caught.value)


def test_a_gz_name_on_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(parquet_bytes()))
    (tmp_path / "a.jsonl.gz").write_bytes(parquet_bytes())
    with pytest.raises(UserError, match=r"a\.jsonl\.gz: this is Parquet, but its name says \.gz"):
        read(tmp_path / "a.jsonl.gz")
    with pytest.raises(UserError, match=r"a\.parquet\.gz is compressed data that is not read\. Decompress it"):
        check_source(DataConfig(path=str(tmp_path)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "array.json", "a.jsonl.gz"])
def test_a_key_twice_is_a_rejected_row_of_json(tmp_path: Path, name: str) -> None:
    lines = [TWICE, LINE, b'{"prompt": "A?", "chosen": [{"role": "a", "role": "b"}], "rejected": "b"}\n']
    content = b"[" + b",".join(lines) + b"]" if name == "array.json" else b"".join(lines)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    first, good, nested = read(tmp_path / name)
    assert isinstance(good, PreferencePair)
    assert isinstance(first, Rejection)
    assert isinstance(nested, Rejection)
    place = "element 0" if name == "array.json" else "line 1"
    assert first.reason.startswith(f"{place}: the key 'prompt' occurs twice in an object")
    assert "the key 'role' occurs twice" in nested.reason
    (tmp_path / "all.jsonl").write_bytes(TWICE)
    with pytest.raises(UserError, match="the key 'prompt' occurs twice"):
        read(tmp_path / "all.jsonl")


@pytest.mark.parametrize("nested", [False, True])
def test_a_column_twice_is_refused_in_csv_parquet_and_saved_data_sets(tmp_path: Path, nested: bool) -> None:
    texts = [pa.array(["a?"]), pa.array(["b?"]), pa.array(["x"]), pa.array(["y"])]
    table = pa.Table.from_arrays(texts, names=["prompt", "prompt", "chosen", "rejected"])
    if nested:
        turns = pa.StructArray.from_arrays(texts[:2], names=["role", "role"])
        sides = [pa.ListArray.from_arrays([0, 1], turns), texts[3]]
        table = pa.Table.from_arrays([texts[0], *sides], names=["prompt", "chosen", "rejected"])
    pq.write_table(table, tmp_path / "a.parquet")
    twice = "role" if nested else "prompt"
    with pytest.raises(UserError, match=rf"a\.parquet: a column name occurs twice: '{twice}'"):
        read(tmp_path / "a.parquet")
    saved = tmp_path / "saved"
    datasets.Dataset.from_list([ROW]).save_to_disk(str(saved))
    (arrow,) = saved.glob("*.arrow")
    with pa.OSFile(str(arrow), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="saved: "):
        read(saved)
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected,prompt\na,b,c,d\n")
    with pytest.raises(UserError, match=r"a\.csv: a column name occurs twice in the header: 'prompt'"):
        read(tmp_path / "a.csv")


QUESTIONS = [{"Question": f"Why {n}?", "Chosen": "a", "Rejected": "b", "prompt": "not the prompt"} for n in range(3)]
COLUMNS = {"prompt": "Question", "chosen": "Chosen", "rejected": "Rejected"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "saved", "hub"])
def test_columns_of_other_names_are_declared(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    if name == "hub":
        pq.write_table(pa.Table.from_pylist(QUESTIONS), tmp_path / "a.parquet")
        serve_as_hub(monkeypatch, tmp_path)
    elif name == "saved":
        datasets.Dataset.from_list(QUESTIONS).save_to_disk(str(path))
    elif name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(QUESTIONS), path)
    elif name == "a.csv":
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(QUESTIONS[0]))
            writer.writeheader()
            writer.writerows(QUESTIONS)
    else:
        path.write_text("\n".join(map(json.dumps, QUESTIONS)))
    found = read("owner/name" if name == "hub" else path, columns=COLUMNS)
    prompts = [one.prompt[0].content for one in found if isinstance(one, PreferencePair)]
    assert prompts == ["Why 0?", "Why 1?", "Why 2?"]


def test_declared_columns_that_are_not_there_or_never_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, QUESTIONS)))
    with pytest.raises(UserError, match=r"a\.jsonl: none of the columns that data\.columns declares \(Quest\) is in"):
        read(path, columns={"prompt": "Quest"})
    with pytest.raises(UserError, match=r"data\.columns=\{answer: Chosen\}: expected a column that is read"):
        check_source(DataConfig(path=str(path), columns={"answer": "Chosen"}))
    with pytest.raises(UserError, match=r"data\.columns=\{question: Question, chosen: Chosen, reje"):
        read(path)
    empty = [row | {"Chosen": " "} for row in QUESTIONS]
    path.write_text("\n".join(map(json.dumps, empty)))
    assert {one.reason for one in read(path, columns=COLUMNS) if isinstance(one, Rejection)} == {
        "Chosen=' ': empty; expected text"
    }


def serve_as_hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """`datasets.load_dataset` of any name streams the files of a folder here, for there is no hub in tests."""
    load = datasets.load_dataset

    def from_folder(path: str, *, split: str, revision: str | None, streaming: bool) -> Any:
        assert (path, revision, streaming) == ("owner/name", None, True)
        return load(str(folder), split=split, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", from_folder)


def test_shapes_stream_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve_as_hub(monkeypatch, tmp_path)
    rows = [
        {
            "id": float(n),
            "context": [{"role": "user", "content": f"Why {n}?"}],
            "response1": "a",
            "response2": "b",
            "overall_preference": n - 1,
            "unused": b"\xff",
        }
        for n in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, tie, last = read("owner/name")
    assert isinstance(first, PreferencePair)
    assert isinstance(tie, Rejection)
    assert isinstance(last, PreferencePair)
    assert (first.pair_id, first.chosen, tie.pair_id, last.chosen) == ("0", "a", "1", "b")


def test_a_key_twice_in_a_json_file_of_settings(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"zero_optimization": {"stage": 2, "stage": 3}}')
    with pytest.raises(UserError, match=r"^--file: the key 'stage' occurs twice in an object"):
        read_json_object(tmp_path / "ds.json", "--file")


def test_margins_of_0_and_below_are_kept_or_dropped_as_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    scores = [(8.5, 7.0), (7.0, 7.0), (3.0, 4.0), (None, None)]
    talk = [{"role": "user", "content": "Hi"}]
    sides = {s: [*talk, {"role": "assistant", "content": s}] for s in ("chosen", "rejected")}
    rows = [sides | {"score_chosen": high, "score_rejected": low} for high, low in scores]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [one.margin for one in read(path) if isinstance(one, PreferencePair)] == [1.5, 0.0, -1.0, None]
    found = read(path, nonpositive_margins="drop")
    assert [one.margin for one in found if isinstance(one, PreferencePair)] == [1.5, None]
    dropped = [one for one in found if isinstance(one, Rejection)]
    assert [(one.row, one.reason) for one in dropped] == [
        (1, "margin=0: expected above 0 (data.nonpositive_margins=drop)"),
        (2, "margin=-1: expected above 0 (data.nonpositive_margins=drop)"),
    ]
