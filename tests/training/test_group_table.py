"""What is looked at before a model is loaded."""

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mapl_ray.config import TrainConfig
from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import commit, write_part
from mapl_ray.errors import UserError
from mapl_ray.training.group_table import GroupTable


def test_margins_that_are_wanted_must_be_there(data: Path, tmp_path: Path, grid_groups: Any) -> None:
    rows = [group.to_row() for group in grid_groups(2)]
    commit(tmp_path, "score", "f", [write_part(tmp_path, 0, rows, [], GROUP_SCHEMA, "f")])
    assert len(GroupTable(tmp_path)) == 2
    with pytest.raises(UserError, match=r"no group has a margin, and train.objective.margin_scale needs them"):
        GroupTable(tmp_path, needs_margin=True)
    some = GroupTable(data / "train", needs_margin=True)  # every second one
    assert [some[0].margin, some[1].margin] == [None, 0.5]


def read(data_set: Path, pipe: Connection) -> None:
    table = GroupTable(data_set, mapped_from=0)
    pipe.send((len(table), table[0].pair_id))
    pipe.recv()


@pytest.fixture
def ranks(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, Connection]]]:
    """Two other ranks of the machine, which have opened the table and wait for a word."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fork = multiprocessing.get_context("fork")
    found = []
    for _ in range(2):
        here, there = fork.Pipe()
        process = fork.Process(target=read, args=(data / "train", there))
        process.start()
        found.append((process, here))
    for _, pipe in found:
        assert pipe.poll(60)
    yield found
    for process, _ in found:
        process.kill()
        process.join()


def test_ranks_of_a_machine_read_one_mapped_file(
    data: Path, tmp_path: Path, ranks: list[tuple[Any, Connection]]
) -> None:
    here, config = GroupTable(data / "train"), TrainConfig()
    before = pa.total_allocated_bytes()
    mapped = GroupTable(data / "train", mapped_from=0)
    assert pa.total_allocated_bytes() - before < 10_000  # the groups are not in this process's own memory
    (file,) = tmp_path.glob("mapl-groups-*/*.arrow")
    assert file.parent.stat().st_mode & 0o777 == 0o700
    for process, pipe in ranks:
        assert pipe.recv() == (13, here[0].pair_id)
        assert str(file) in Path(f"/proc/{process.pid}/maps").read_text()
    assert [mapped[i] for i in range(len(mapped))] == [here[i] for i in range(len(here))]
    assert mapped.sizes(config).tolist() == here.sizes(config).tolist()
    assert mapped.has_ref_logps
    for process, pipe in ranks:
        assert file.exists()
        pipe.send("leave")
        process.join(timeout=30)
    del mapped
    assert not file.exists()  # the last one took it away


def test_what_killed_ranks_left_serves_the_next_and_goes_when_other_data_comes(
    data: Path, tmp_path: Path, ranks: list[tuple[Any, Connection]]
) -> None:
    for process, _ in ranks:
        process.kill()
        process.join()
    (left,) = tmp_path.glob("mapl-groups-*/*.arrow")
    written = left.stat().st_mtime_ns
    again = GroupTable(data / "train", mapped_from=0)
    assert left.stat().st_mtime_ns == written
    other = GroupTable(data / "eval", mapped_from=0)
    assert left.exists()  # in use
    kept = again[0].pair_id
    shutil.copy(left, left.with_name("another.arrow"))  # as killed ranks of yet another run leave it
    del again, other
    third = GroupTable(data / "train unscored", mapped_from=0)
    assert [path.name for path in left.parent.glob("*.arrow")] == [f"{third.manifest.content_hash}.arrow"]
    assert [path.stem for path in left.parent.glob("*.sha256")] == [third.manifest.content_hash]
    assert third[0].pair_id == kept


def test_a_damaged_map_is_written_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    here = GroupTable(data / "train")
    whole = GroupTable(data / "train", mapped_from=0)
    (file,) = tmp_path.glob("mapl-groups-*/*.arrow")
    content, digest = file.read_bytes(), file.with_suffix(".sha256").read_bytes()
    del whole
    assert not file.exists()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    for left, known in ((b"", digest), (content[:100], digest), (flipped, digest), (content, b""), (b"x" * 99, b"?")):
        file.write_bytes(left)  # as a rank that was killed, or a disk that is going bad, leaves it
        file.with_suffix(".sha256").write_bytes(known)
        again = GroupTable(data / "train", mapped_from=0)
        assert file.read_bytes() == content
        assert [again[i] for i in range(len(again))] == [here[i] for i in range(len(here))]
        del again


def test_without_room_the_groups_are_held_in_memory(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"mapl-groups-{os.getuid()}").mkdir(mode=0o755)  # somebody's who was here first
    assert len(GroupTable(data / "train", mapped_from=0)) == 13
    assert "can't be mapped (TMPDIR)" in capsys.readouterr().out
