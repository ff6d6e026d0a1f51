"""Pairs behind a URI, and several sources with weights. The object store is a real S3 server on loopback."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mapl_ray.config import DataConfig, parse_config
from mapl_ray.data.records import PreferencePair, Rejection
from mapl_ray.errors import UserError
from mapl_ray.preferences import Contamination, benchmark_digests, check_source, read_pairs, source_identity

ROWS = [
    {"id": f"p{n}", "prompt": f"Why {n}?", "chosen": f"Because of {n}.", "rejected": "No idea."} for n in range(200)
]


def ids(config: DataConfig) -> list[str]:
    return [item.pair_id for item in read_pairs(config) if isinstance(item, PreferencePair)]


def write(folder: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS[:80])
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pq.write_table(pa.Table.from_pylist(ROWS[80:]), folder / "b.parquet")
    (folder / "notes.txt").write_text("not data")


@pytest.fixture(scope="module")
def pairs_uri(object_store: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of pairs in the store."""
    folder = tmp_path_factory.mktemp("pairs")
    write(folder)
    return object_store.upload(folder, "pairs")


@pytest.mark.parametrize("kind", ["object_store", "google_store"])
def test_files_and_folders_of_an_object_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    write(tmp_path)
    store = request.getfixturevalue(kind)
    whole = DataConfig(path=store.upload(tmp_path, "whole"))
    check_source(whole)
    assert ids(whole) == [row["id"] for row in ROWS]
    for name, rows in (("a.jsonl.gz", ROWS[:80]), ("b.parquet", ROWS[80:])):
        assert ids(DataConfig(path=store.uri(f"whole/{name}"))) == [row["id"] for row in rows]
    assert len(ids(whole.model_copy(update={"limit": 90}))) == 90
    assert {*source_identity(whole)} == {f"bucket/whole/{name}" for name in ("a.jsonl.gz", "b.parquet", "notes.txt")}
    for path in ("nowhere", "whole/c.parquet"):
        with pytest.raises(UserError, match="no such file or folder there"):
            check_source(DataConfig(path=store.uri(path)))


def test_where_the_store_is_may_be_said_in_the_environment(
    pairs_uri: str, object_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{object_store.address}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert len(ids(DataConfig(path="s3://bucket/pairs/"))) == len(ROWS)


@pytest.mark.parametrize(
    ("path", "environment", "word"),
    [
        ("s3://nobucket/pairs", {}, "no such file or folder there"),
        ("s3://bucket/pairs", {"AWS_SECRET_ACCESS_KEY": "another"}, r"can't be reached .*credentials"),
        ("s3://bucket/pairs/a.jsonl.gz", {"AWS_ACCESS_KEY_ID": "nobody"}, r"can't be reached .*credentials"),
    ],
)
def test_what_a_store_refuses_is_told_in_a_sentence(
    pairs_uri: str,
    object_store: Any,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    environment: dict[str, str],
    word: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=rf"data\.path='{path}.*{word}") as caught:
        check_source(DataConfig(path=f"{path}?{object_store.query}"))
    assert "\n" not in str(caught.value)
    assert not any(value in str(caught.value) for value in environment.values())


def test_a_file_uri(tmp_path: Path) -> None:
    write(tmp_path)
    assert ids(DataConfig(path=f"file://{tmp_path}")) == [row["id"] for row in ROWS]


def test_hidden_files_are_passed_over_as_in_a_local_folder(tmp_path: Path) -> None:
    for name, row in zip(("a.jsonl", ".b.jsonl", "_c.jsonl"), ROWS, strict=False):
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    for path in (str(tmp_path), tmp_path.as_uri()):
        assert ids(DataConfig(path=path)) == ["p0"]
    # One that is named is meant.
    assert ids(DataConfig(path=(tmp_path / "_c.jsonl").as_uri())) == ["p2"]


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:hunter2@bucket/a.jsonl",
        "s3://KEY:ab%2Fhunter2@bucket/a.jsonl",
        "s3://KEY:ab/hunter2@bucket/a.jsonl",  # the secret's "/" ends the host early
        "s3://KEY:hunter2/@bucket/a.jsonl",
        "gs://KEY:hunter2@bucket/a.jsonl",
        "https://KEY:hunter2@host/a.jsonl",
    ],
)
@pytest.mark.parametrize("what", ["path", "benchmarks"])
def test_no_message_shows_a_password(uri: str, what: str) -> None:
    config = DataConfig(path=uri) if what == "path" else DataConfig(benchmarks=(uri,))
    with pytest.raises(UserError, match=rf"data\.{what}: .*environment") as caught:
        check_source(config) if what == "path" else Contamination.load(config)
    assert "hunter2" not in str(caught.value)


def test_a_malformed_address_is_the_users_mistake() -> None:
    for uri in ("s3://[bucket/a.jsonl", "hdfs://host:port/a.jsonl"):
        with pytest.raises(UserError, match=r"data\.path: not a valid .*address"):
            check_source(DataConfig(path=uri))


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """The splits of a saved data set: another train split is other data, though the test split is the same."""
    data = datasets.Dataset.from_list(ROWS[:2])
    datasets.DatasetDict(train=data, test=data).save_to_disk(str(tmp_path / "first"))
    other = datasets.Dataset.from_list(ROWS[2:4])
    datasets.DatasetDict(train=other, test=data).save_to_disk(str(tmp_path / "second"))
    first, second = (source_identity(DataConfig(path=str(tmp_path / name))) for name in ("first", "second"))
    (arrow,) = (tmp_path / "first" / "train").glob("*.arrow")
    assert first[f"train/{arrow.name}"] != second[f"train/{arrow.name}"]
    assert first[f"test/{arrow.name}"] == second[f"test/{arrow.name}"]


def test_a_benchmark_behind_a_uri(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("\ufeffWhy 3?\n", encoding="utf-8")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b'{"question": "Why 5?"}\n'))
    files = tuple((tmp_path / name).as_uri() for name in ("lines.txt", "rows.jsonl.gz"))
    config = DataConfig(benchmarks=files)
    pairs = [item for item in read_pairs(written(tmp_path / "pairs.jsonl")) if isinstance(item, PreferencePair)]
    found = Contamination.load(config).found
    assert {pair.pair_id: reason for pair in pairs if (reason := found(pair))} == {
        "p3": "a user turn is the benchmark prompt lines.txt:1",
        "p5": "a user turn is the benchmark prompt rows.jsonl.gz, row 0",
    }
    before = benchmark_digests(config)
    (tmp_path / "lines.txt").write_text("Why 3, of all?\n")
    after = benchmark_digests(config)
    assert before[0] != after[0]
    assert before[1] == after[1]
    for path, message in ((tmp_path, "is a folder"), (tmp_path / "gone.txt", "data.benchmarks=.*no such file")):
        with pytest.raises(UserError, match=message):
            Contamination.load(DataConfig(benchmarks=(path.as_uri(),)))


def test_a_benchmark_of_an_object_store(pairs_uri: str, object_store: Any) -> None:
    config = DataConfig(benchmarks=(object_store.uri("pairs/b.parquet"),))
    assert len(Contamination.load(config).prompts) == len(ROWS) - 80
    assert "bucket/pairs/b.parquet" in benchmark_digests(config)[0]


def written(path: Path) -> DataConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return DataConfig(path=str(path))


def mixed(tmp_path: Path, **weights: float) -> DataConfig:
    for name in weights:
        written(tmp_path / f"{name}.jsonl")
    sources: list[dict[str, Any]] = [{"path": str(tmp_path / f"{n}.jsonl"), "weight": w} for n, w in weights.items()]
    return parse_config({"data": {"mix": sources}}, "test").data


def test_weights_leave_out_and_repeat(tmp_path: Path) -> None:
    config = mixed(tmp_path, few=0.25, twice=2.5)
    check_source(config)
    items = [*read_pairs(config)]
    kept = {
        name: [i.pair_id for i in items if isinstance(i, PreferencePair) and i.source == name]
        for name in ("few.jsonl", "twice.jsonl")
    }
    left_out = [item for item in items if isinstance(item, Rejection)]
    assert len(kept["few.jsonl"]) + len(left_out) == len(ROWS)
    assert 25 <= len(kept["few.jsonl"]) <= 75  # 50 of 200; four standard deviations are 25
    assert {item.stage for item in left_out} == {"mix"}
    assert "weight=0.25" in left_out[0].reason
    assert {f"{row['id']}~2" for row in ROWS} <= {*kept["twice.jsonl"]}
    assert 60 <= sum(pair_id.endswith("~3") for pair_id in kept["twice.jsonl"]) <= 140
    assert items == [*read_pairs(config)]


def test_the_seed_and_the_id_decide_on_weights(tmp_path: Path) -> None:
    config = mixed(tmp_path, half=0.5)

    def kept(seed: int) -> set[str]:
        return {item.pair_id for item in read_pairs(config, seed) if isinstance(item, PreferencePair)}

    assert kept(1) == kept(1)
    assert kept(1) != kept(2)
    one, file = kept(1), tmp_path / "half.jsonl"
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    assert kept(1) == one


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_what_is_no_weight(tmp_path: Path, weight: float) -> None:
    with pytest.raises(UserError, match=r"data\.mix\.0\.weight"):
        mixed(tmp_path, some=weight)


def test_path_and_mix_are_one_or_the_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set only one of them"):
        parse_config({"data": {"path": "a.jsonl", "mix": [{"path": "b.jsonl"}]}}, "test")
