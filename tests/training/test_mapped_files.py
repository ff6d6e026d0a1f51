"""One file of a table or an array for all processes of a machine."""

import multiprocessing
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.reliability.disk import no_mount, small_disk
from mapl_ray.config import TrainConfig
from mapl_ray.training.group_table import GroupTable
from mapl_ray.training.mapped_files import UintArray, mapped_array, mapped_table, shared_array
from mapl_ray.training.plan import StepPlan, group_sizes

CONFIG = TrainConfig(micro_batch_size=2, epochs=3, seed=5)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"mapl-groups-{os.getuid()}"


def squares(array: UintArray) -> None:
    array[:] = np.arange(len(array)) ** 2


def nobody(array: UintArray) -> None:
    raise AssertionError("it is there")


def use(data_set: Path, pipe: Connection) -> None:
    """A rank: the sizes, the orders of two epochs, and the first step's groups."""
    table = GroupTable(data_set, mapped_from=0)
    plan = StepPlan.of(CONFIG, table.sizes(CONFIG), 2, mapped=table.is_large)
    orders = [plan.orders.of(epoch).tolist() for epoch in (0, 1)]
    pipe.send((plan.sizes.tolist(), orders, plan.micro_batches_of(0, 1, 2)))
    pipe.recv()


Rank = tuple[Any, Connection]


@pytest.fixture
def rank(data: Path) -> Iterator[Callable[[], Rank]]:
    """Starts another process that uses the training groups until it is sent something."""
    fork, started = multiprocessing.get_context("fork"), list[Any]()

    def start() -> Rank:
        here, there = fork.Pipe()
        process = fork.Process(target=use, args=(data / "train", there))
        process.start()
        started.append(process)
        assert here.poll(60)
        return process, here

    yield start
    for process in started:
        process.kill()
        process.join()


def mapped_inodes(process: Any) -> dict[str, int]:
    """Files below the folder that a process has mapped, and the inode of each."""
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    found = [line.split() for line in lines if "/mapl-groups-" in line and "(deleted)" not in line]
    return {Path(words[5]).name: int(words[4]) for words in found}


@pytest.mark.parametrize("world_size", [1, 2])
def test_sizes_and_order_are_those_of_every_rank_by_itself(data: Path, world_size: int) -> None:
    """What numpy makes of seed and epoch, and the sizes in a process's own memory; so are the batches."""
    table = GroupTable(data / "train", mapped_from=0)
    mapped = StepPlan.of(CONFIG, table.sizes(CONFIG), world_size, mapped=True)
    expected = group_sizes(table._table, CONFIG.weights.families, CONFIG.batching)
    assert mapped.sizes.tolist() == expected.tolist()
    assert mapped.sizes.dtype == np.uint32
    for epoch in range(3):
        order = mapped.orders.of(epoch)
        assert isinstance(order, np.memmap)
        assert order.dtype == np.uint32
        assert order.tolist() == np.random.default_rng([5, epoch]).permutation(13).tolist()
    own = StepPlan.of(CONFIG, [int(size) for size in expected], world_size)
    for step in range(own.total_steps):
        for rank in range(world_size):
            assert mapped.micro_batches_of(step, rank, world_size) == own.micro_batches_of(step, rank, world_size)


def test_two_processes_map_the_same_files(data: Path, folder: Path, rank: Callable[[], Rank]) -> None:
    ranks = [rank(), rank()]
    seen = [pipe.recv() for _, pipe in ranks]
    assert seen[0] == seen[1]
    inodes = [mapped_inodes(process) for process, _ in ranks]
    assert inodes[0] == inodes[1]
    files = {path.name: path.stat().st_ino for path in folder.iterdir() if path.suffix in (".arrow", ".npy")}
    assert inodes[0] == files
    assert len(files) == 4  # groups, sizes, the orders of two epochs
    for process, pipe in ranks:
        pipe.send("leave")
        process.join(timeout=30)
    assert {path.suffix for path in folder.iterdir()} == {".lock"}  # the last one took the rest away


def test_what_a_killed_process_left_serves_the_next_and_goes_when_other_data_comes(
    data: Path, folder: Path, rank: Callable[[], Rank]
) -> None:
    process, pipe = rank()
    pipe.recv()
    process.kill()
    process.join()
    left = {path.name: path.stat().st_ino for path in folder.iterdir() if path.suffix in (".arrow", ".npy")}
    assert len(left) == 4
    sizes = next(name for name in left if "-sizes-" in name)
    again = GroupTable(data / "train", mapped_from=0)
    found = again.sizes(CONFIG)
    assert (folder / sizes).stat().st_ino == left[sizes]
    assert sorted(path.name for path in folder.glob("order-*.npy")) == []  # nobody's: of no data set
    half = folder / ".older-sizes-x.npy.host-0123456789ab.tmp"
    half.write_bytes(b"half")
    del again, found
    other = mapped_array("other-a", 3, squares)
    names = sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")
    assert names == ["other-a.npy", "other-a.sha256"]
    assert other.tolist() == [0, 1, 4]


def test_a_damaged_array_is_made_again(folder: Path) -> None:
    first = mapped_array("data-squares", 1000, squares)
    content = (folder / "data-squares.npy").read_bytes()
    assert mapped_array("data-squares", 1000, nobody).tolist() == first.tolist()
    del first
    assert not (folder / "data-squares.npy").exists()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    mapped_array("data-squares", 1000, squares)
    for left in (b"", content[:100], flipped):
        (folder / "data-squares.npy").write_bytes(left)
        again = mapped_array("data-squares", 1000, squares)
        assert (folder / "data-squares.npy").read_bytes() == content
        assert again.tolist() == [n**2 for n in range(1000)]
        with pytest.raises(ValueError, match="read-only"):
            again[0] = 1
        del again


def test_waiting_draws_nothing_from_the_generator_that_training_seeded(folder: Path) -> None:
    random.seed(1)
    before = random.getstate()
    mapped_array("data-squares", 10, squares)
    one = pa.table({"a": [1]})
    mapped_table("data", one.schema, lambda: [one])
    assert random.getstate() == before


@pytest.mark.skipif(bool(no_mount()), reason=no_mount() or "can be done")
def test_without_room_an_array_is_in_the_processs_own_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A write to a page that the disk has no room for would kill the process."""
    disk = tmp_path / "disk"
    with small_disk(disk, 1):
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        array = shared_array("data-squares", [], 2**20, squares, mapped=True)  # 4 MiB
        assert not isinstance(array, np.memmap)
        assert array[1000] == 1_000_000
        assert list(disk.glob("mapl-groups-*/*.npy")) == []
    assert "squares in every worker's memory, as they can't be mapped (TMPDIR): [Errno 28]" in capsys.readouterr().out


def test_sizes_are_worked_out_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mapl_ray.training.group_table as module

    calls = list[frozenset[str]]()
    fill = module.fill_sizes

    def counted(sizes: UintArray, table: Any, families: frozenset[str], batching: Any) -> None:
        calls.append(families)
        fill(sizes, table, families, batching)

    monkeypatch.setattr(module, "fill_sizes", counted)
    table, config = GroupTable(data / "eval"), TrainConfig(weights={"lambda_inter": 0.0})
    for _ in range(3):  # as three evaluations do
        table.sizes(config, learn=False)
        table.sizes(config)
    assert calls == [frozenset({"pref", "intra", "inter"}), frozenset({"pref", "intra"})]
