"""Files of another node that this one finds late: waited for on network storage, and asked for once elsewhere."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mapl_ray import awaited as module
from mapl_ray.awaited import await_files, awaited, file_system, has_appeared, is_local
from mapl_ray.config import ModelConfig, TrainConfig
from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import await_data_set, commit, write_json, write_part
from mapl_ray.distributed.shard_tasks import Stage, _committed, rows_of_part
from mapl_ray.distributed.train import result_of
from mapl_ray.distributed.training_job import TrainingJob
from mapl_ray.errors import RunError
from mapl_ray.training.checkpoint import begin_checkpoint, commit_checkpoint, committed, damage_for_rank, written_files


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that other nodes write to as well."""
    monkeypatch.setattr(module, "LOCAL", frozenset())


@contextmanager
def hidden(paths: list[Path]) -> Iterator[Callable[[], None]]:
    """Files under other names, as an NFS client does not find them yet; what it gives lets them be found soon."""
    for path in paths:
        path.rename(path.with_name(f"hidden-{path.name}"))

    def show() -> None:
        for path in paths:
            path.with_name(f"hidden-{path.name}").rename(path)

    timer = threading.Timer(0.3, show)
    try:
        yield timer.start
    finally:
        timer.join()


@pytest.mark.usefixtures("network")
def test_a_file_that_comes_late_is_waited_for_and_its_folder_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[str] = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    file = tmp_path / "a"
    file.write_text("1")
    with hidden([file]) as soon:
        soon()
        assert awaited(lambda: file.read_text() if file.is_file() else None, tmp_path) == "1"
    assert {str(tmp_path), str(tmp_path.parent)} <= {*listed}


def test_what_this_machine_alone_writes_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(module, "is_local", lambda path: True)
    assert awaited(lambda: looks.append(1), tmp_path) is None
    assert looks == [1]


@pytest.mark.usefixtures("network")
def test_patience_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.5)
    looks: list[int] = []
    assert awaited(lambda: looks.append(1), tmp_path / "none") is None
    assert len(looks) > 2
    (tmp_path / "a").touch()
    assert await_files(tmp_path, ["a", "b"]) == ["b"]


def test_the_file_system_is_that_of_the_mount_the_path_is_below(tmp_path: Path) -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert not is_local(Path("/proc/self"))
    assert file_system(Path("/dev/shm") / "none" / "below") == "tmpfs"
    assert is_local(Path("/dev/shm"))
    assert file_system(tmp_path) == file_system(tmp_path / "to-come" / "run")


def test_a_file_has_appeared(tmp_path: Path) -> None:
    assert not has_appeared(tmp_path / "none" / "stop")
    (tmp_path / "stop").touch()
    assert has_appeared(tmp_path / "stop")


def data_set(folder: Path, grid_groups: Any) -> list[Path]:
    rows = [group.to_row() for group in grid_groups(2)]
    commit(folder, "synthesize", "f", [write_part(folder, 0, rows, [], GROUP_SCHEMA, "mark")])
    return [folder / "manifest.json", folder / "part-00000.parquet"]


@pytest.mark.usefixtures("network")
def test_parts_that_workers_have_reported_are_committed(tmp_path: Path, grid_groups: Any) -> None:
    files = [*data_set(tmp_path / "groups", grid_groups), tmp_path / "groups" / "part-00000.json"]
    stage = Stage("score", tmp_path / "source", tmp_path / "groups", "recipe")
    (tmp_path / "source").mkdir()
    data_set(tmp_path / "source", grid_groups)
    with hidden(files) as soon:
        soon()
        assert _committed(stage, {0: "mark"}).rows == 2


def test_parts_that_never_come_are_named(tmp_path: Path) -> None:
    stage = Stage("score", tmp_path / "source", tmp_path / "groups", "recipe")
    with pytest.raises(RunError, match=r"groups: parts \[0, 3\] are missing after the stage"):
        _committed(stage, {3: "mark", 0: "mark"})


@pytest.mark.usefixtures("network")
def test_a_worker_waits_for_what_the_driver_has_seen(tmp_path: Path, grid_groups: Any) -> None:
    files = data_set(tmp_path, grid_groups)
    with hidden(files) as soon:
        soon()
        assert len(rows_of_part(tmp_path, 0)) == 2
    with hidden(files[1:]) as soon:
        soon()
        await_data_set(tmp_path)
        assert files[1].is_file()


@pytest.mark.usefixtures("network")
def test_files_of_other_ranks_are_waited_for(tmp_path: Path) -> None:
    written = begin_checkpoint(tmp_path, 2)
    (written / "state").mkdir()
    names = ("state/zero_pp_rank_1_mp_rank_00_optim_states.pt", "rng-00000.pt", "rng-00001.pt")
    for name in names:
        (written / name).write_bytes(b"state")
    files = written_files(written, [written / name for name in names])
    with hidden([written / names[0]]) as soon:
        soon()
        path = commit_checkpoint(written, 2, files=[files], world_size=2, zero_stage=2, settings={})
    assert committed(tmp_path) == [path]
    with hidden([path / names[0], path / names[2]]) as soon:
        soon()
        assert damage_for_rank(path, files, 1) == ""
    (path / names[2]).write_bytes(b"other")
    assert damage_for_rank(path, files, 1) == "rng-00001.pt is damaged"


@pytest.mark.usefixtures("network")
def test_the_driver_waits_for_the_result_of_workers_that_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mapl_ray.training.result import TrainResult

    result = TrainResult("rm", "f", 2, "model", {}, 1.0, 1.0, 2, 2, 10, 0)
    monkeypatch.setattr("mapl_ray.training.result.weight_damage", lambda folder, files: "")
    write_json(tmp_path / "result.json", asdict(result))
    job = TrainingJob(
        method="rm", train=TrainConfig(), model=ModelConfig(), model_path="m", model_id="m", train_dir=tmp_path,
        eval_dir=None, output=tmp_path, fingerprint="f",
    )  # fmt: skip
    with hidden([tmp_path / "result.json"]) as soon:
        soon()
        assert result_of(job, False) == result
    (tmp_path / "result.json").unlink()
    with pytest.raises(KeyboardInterrupt):  # asked to stop: there is none to wait for
        result_of(job, True)


@pytest.mark.usefixtures("network")
def test_patience_is_longer_than_what_an_nfs_client_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=sleep))
    assert awaited(lambda: True if now[0] > 85.0 else None, tmp_path) is True
    began = now[0]
    assert awaited(lambda: None, tmp_path) is None
    assert 90.0 <= now[0] - began < 95.0
