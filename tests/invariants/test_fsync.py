"""What is renamed into place is on the disk first, and its folder after it: asked of every writer that promises it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import commit, write_json, write_part
from mapl_ray.training.best import keep_files
from mapl_ray.training.checkpoint import begin_checkpoint, best_directory, commit_checkpoint, written_files
from mapl_ray.training.result import vouched_for


class Calls:
    """Every fsync and every rename of this process, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: set[str] = set()
        self.renamed: list[tuple[str, bool]] = []  # to where, and whether all of it was on the disk by then
        fsync = os.fsync

        def synced(handle: int) -> None:
            self.synced.add(os.readlink(f"/proc/self/fd/{handle}"))
            fsync(handle)

        monkeypatch.setattr(os, "fsync", synced)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._renaming(getattr(os, name)))

    def _renaming(self, original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def rename(source: Any, target: Any) -> None:
            whole = [Path(source)] if Path(source).is_file() else list(Path(source).rglob("*"))
            self.renamed.append((str(target), {str(path) for path in whole} <= self.synced))
            self.synced.discard(str(Path(target).parent))
            original(source, target)

        return rename

    def unsafe(self) -> list[str]:
        """Renames of what was not on the disk, or whose folder was not brought to it afterwards."""
        return [to for to, whole in self.renamed if not whole or str(Path(to).parent) not in self.synced]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def by_hand(folder: Path, _: Any) -> None:
    """As a writer that promises nothing."""
    (folder / "a.tmp").write_text("{}")
    os.replace(folder / "a.tmp", folder / "a.json")


def without_its_folder(folder: Path, _: Any) -> None:
    with (folder / "a.tmp").open("w") as file:
        file.write("{}")
        file.flush()
        os.fsync(file.fileno())
    os.replace(folder / "a.tmp", folder / "a.json")


@pytest.mark.parametrize("write", [by_hand, without_its_folder])
def test_the_recorder_has_teeth(write: Any, calls: Calls, tmp_path: Path) -> None:
    write(tmp_path, None)
    assert calls.unsafe() == [str(tmp_path / "a.json")]


def data_set(folder: Path, grid_groups: Any) -> None:
    rows = [group.to_row() for group in grid_groups(2)]
    commit(folder / "data", "score", "f", [write_part(folder / "data", 0, rows, [], GROUP_SCHEMA, "f")])


def json_file(folder: Path, _: Any) -> None:
    write_json(folder / "a" / "result.json", {"a": 1})


def checkpoint(folder: Path, _: Any) -> None:
    written = begin_checkpoint(folder, 2)
    (written / "state").mkdir()
    for name in ("state/shard.pt", "rng-00000.pt"):
        (written / name).write_bytes(b"weights")
    files = [written_files(written, [written / "state" / "shard.pt", written / "rng-00000.pt"])]
    commit_checkpoint(written, 2, files=files, world_size=1, zero_stage=2, settings={})


def best_of_a_checkpoint(folder: Path, _: Any) -> None:
    written, kept = begin_checkpoint(folder, 2), begin_checkpoint(best_directory(folder), 2)
    (written / "state").mkdir()
    (written / "state" / "weights.pt").write_bytes(b"weights")
    files = written_files(written, [written / "state" / "weights.pt"])
    keep_files(written, kept, files)
    commit_checkpoint(kept, 2, files=[files], world_size=1, zero_stage=2, settings={})
    commit_checkpoint(written, 2, files=[files], world_size=1, zero_stage=2, settings={})


@pytest.mark.parametrize("write", [data_set, json_file, checkpoint])
def test_what_is_renamed_into_place_is_on_the_disk(write: Any, calls: Calls, grid_groups: Any, tmp_path: Path) -> None:
    write(tmp_path, grid_groups)
    assert calls.renamed
    assert calls.unsafe() == []


@pytest.mark.parametrize("links", [True, False])
def test_the_best_is_on_the_disk_before_it_has_its_name(
    links: bool, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link's bytes reached the disk under the name that was there before."""
    link = os.link

    def linked(source: Any, target: Any) -> None:
        if not links:
            raise OSError(1, "no links here")
        link(source, target)
        calls.synced |= {str(target)} if str(source) in calls.synced else set()

    monkeypatch.setattr(os, "link", linked)
    best_of_a_checkpoint(tmp_path, None)
    assert len(calls.renamed) == 2
    assert calls.unsafe() == []
    assert str(tmp_path) in calls.synced  # where the folder of the best is new


def test_weights_are_on_the_disk_before_a_result_names_them(calls: Calls, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "config.json"):
        (model / name).write_bytes(b"weights")
    assert len(vouched_for(model)) == 2
    assert {str(model), *map(str, model.iterdir())} <= calls.synced


def test_a_tiny_model_is_on_the_disk_before_it_has_its_name(calls: Calls, tmp_path: Path) -> None:
    from mapl_ray.config import TinyModelConfig
    from mapl_ray.models.tiny import build_tiny

    build_tiny(tmp_path / "tiny", ["a b"], TinyModelConfig(vocab_size=300), 0)
    assert calls.renamed[-1] == (str(tmp_path / "tiny"), True)
    assert str(tmp_path) in calls.synced
