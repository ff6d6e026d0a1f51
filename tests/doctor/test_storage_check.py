"""What `mapl doctor` says of storage that does not do what a run needs, from one node and from two."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.awaited import file_system
from mapl_ray.config import RunConfig, parse_config
from mapl_ray.doctor import storage_check as doctor
from mapl_ray.doctor.storage_check import check_storage
from mapl_ray.storage import Side, StorageTrial, try_storage


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return parse_config({"name": "run", "output_dir": str(tmp_path / "runs" / "to-come")}, "test")


def test_a_disk_does_all_of_it_and_nothing_is_left(config: RunConfig, tmp_path: Path) -> None:
    (finding,) = check_storage(config)
    assert (finding.level, finding.what) == ("ok", "storage")
    assert f"{tmp_path} ({file_system(tmp_path)}), seen from {os.uname().nodename}: renames, fsync" in finding.detail
    assert list(tmp_path.iterdir()) == []


class Other(Side):
    """The same folder, as a process of another node sees it."""

    def host(self) -> str:
        return "node-b"


def test_two_nodes_are_named_with_the_time_until_a_file_was_found(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def both(_: RunConfig, scratch: Path, reachable: bool) -> StorageTrial:
        return try_storage([Side(str(scratch)), Other(str(scratch))])

    monkeypatch.setattr(doctor, "_tried", both)
    (finding,) = check_storage(config)
    assert finding.level == "ok"
    assert "and node-b: renames" in finding.detail
    assert "a new file was found after 0.0 s" in finding.detail


class NotShared(Other):
    """A disk of its own at the same path."""

    def __init__(self, folder: str) -> None:
        super().__init__(f"{folder}-of-b")


class OfB(Other):
    """Sees the first content of a file for ever."""

    def reads(self, name: str, text: str) -> bool:
        return text == "1" and super().reads(name, text)


class OldNames(Other):
    """Still finds files under a folder's old name."""

    def lacks(self, name: str) -> bool:
        return name != "old/file" and super().lacks(name)


class OwnLocks(Other):
    """Locks do not reach the server (`nolock`)."""

    def lock(self, name: str) -> bool:
        return super().lock(f"{name}-of-b")


class OwnNames(Other):
    """Both make the file that only one may make."""

    def claim(self, name: str) -> bool:
        super().claim(name)
        return True


class OwnClock(Other):
    """Caches a file's times."""

    def is_touched(self, name: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("other", "lacking"),
    [
        (NotShared, "finding a file that another node wrote"),
        (OfB, "renaming a file over another"),
        (OldNames, "renaming folders"),
        (OwnNames, "exclusive creation"),
        (OwnClock, "modification times"),
        (OwnLocks, "locks (flock)"),
    ],
)
def test_what_two_nodes_do_not_share_is_named(other: type[Other], lacking: str, tmp_path: Path) -> None:
    trial = try_storage([Side(str(tmp_path)), other(str(tmp_path))])
    assert trial.lacking == (lacking,)
    (finding,) = doctor._findings(tmp_path, trial)
    assert finding.level == ("warn" if other is OwnLocks else "fail")
    assert f"and node-b: does not support {lacking}" in finding.detail
    assert ("MAPL_CACHE" if other is OwnLocks else "set output_dir to") in finding.cure


def refusing(code: int) -> Any:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize(
    ("call", "code", "lacking"),
    [
        ("fsync", errno.EINVAL, "fsync: [Errno 22]"),
        ("replace", errno.EPERM, "renaming files: [Errno 1]"),
        ("rename", errno.EXDEV, "renaming folders: [Errno 18]"),
        ("utime", errno.ENOSYS, "modification times: [Errno 38]"),
    ],
)
def test_what_a_mount_refuses_is_named_with_its_error(
    call: str, code: int, lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, refusing(code))
    (found,) = try_storage([Side(str(tmp_path))]).lacking
    assert found.startswith(lacking)


def test_storage_without_links_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    assert try_storage([Side(str(tmp_path)), Other(str(tmp_path))]).lacking == ()


@pytest.fixture
def two_nodes(without_ray: None) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=0)
    yield cluster.address
    cluster.shutdown()


@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(300)
def test_processes_on_two_nodes_of_a_real_cluster(two_nodes: str, tmp_path: Path) -> None:
    """Both raylets are on this machine, hence one host's name; each step runs in a worker of one of them."""
    from mapl_ray.distributed.storage_nodes import sides_on_nodes

    values = {"name": "run", "output_dir": str(tmp_path), "cluster": {"address": two_nodes}}
    config = parse_config(values, "test")
    with sides_on_nodes(config.cluster, tmp_path) as sides:
        assert len(sides) == 2
        assert try_storage(sides).lacking == ()
    before = sorted(tmp_path.iterdir())
    (finding,) = check_storage(config)
    assert finding.level == "ok", finding.detail
    assert sorted(tmp_path.iterdir()) == before


def test_the_nodes_of_the_configs_cluster_are_asked_where_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from mapl_ray.distributed import storage_nodes

    @contextmanager
    def sides(cluster: Any, folder: Path) -> Iterator[list[Side]]:
        yield [Side(str(folder)), Other(str(folder))]

    monkeypatch.setattr(storage_nodes, "sides_on_nodes", sides)
    values = {"name": "run", "output_dir": str(tmp_path), "cluster": {"address": "auto"}}
    config = parse_config(values, "test")
    (finding,) = check_storage(config)
    assert "and node-b: renames" in finding.detail
    (finding,) = check_storage(config, reachable=False)
    assert "node-b" not in finding.detail
