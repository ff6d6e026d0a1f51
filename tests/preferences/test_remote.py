"""Pairs behind a URI, and several sources with weights. The object store is a real S3 server on loopback."""

import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from mapl_ray.config import DataConfig, parse_config
from mapl_ray.errors import UserError
from mapl_ray.preferences import check_source, read_pairs, source_identity
from mapl_ray.records import PreferencePair, Rejection

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
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The query of an S3 URI: where the server is."""
    pytest.importorskip("moto", reason="the S3 server for tests is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    query = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    folder = tmp_path_factory.mktemp("s3")
    write(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "test")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            deadline = time.monotonic() + 60
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert time.monotonic() < deadline
                time.sleep(0.2)
            system, _ = fs.FileSystem.from_uri(f"s3://bucket?{query}")
            system.create_dir("bucket")
            fs.copy_files(str(folder), "bucket/pairs", destination_filesystem=system)
            yield query
    finally:
        server.kill()
        server.wait()


def test_files_and_folders_of_an_object_store(store: str) -> None:
    whole = DataConfig(path=f"s3://bucket/pairs?{store}")
    check_source(whole)
    assert ids(whole) == [row["id"] for row in ROWS]
    assert ids(DataConfig(path=f"s3://bucket/pairs/b.parquet?{store}")) == [row["id"] for row in ROWS[80:]]
    assert len(ids(whole.model_copy(update={"limit": 90}))) == 90
    assert set(source_identity(whole)) == {
        "bucket/pairs/a.jsonl.gz",
        "bucket/pairs/b.parquet",
        "bucket/pairs/notes.txt",
    }
    with pytest.raises(UserError, match="no such file or folder there"):
        check_source(DataConfig(path=f"s3://bucket/nowhere?{store}"))


def test_a_file_uri(tmp_path: Path) -> None:
    write(tmp_path)
    assert ids(DataConfig(path=f"file://{tmp_path}")) == [row["id"] for row in ROWS]


def mixed(tmp_path: Path, **weights: float) -> DataConfig:
    for name in weights:
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
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


def test_path_and_mix_are_one_or_the_other(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give one of them"):
        parse_config({"data": {"path": "a.jsonl", "mix": [{"path": "b.jsonl"}]}}, "test")
