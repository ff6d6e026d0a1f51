"""Temporary names: of this host, another one at every call, and made by one module alone."""

import ast
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import mapl_ray
from mapl_ray.config import TinyModelConfig
from mapl_ray.data.shards import write_json
from mapl_ray.lease import lease, lease_path
from mapl_ray.model_copies import local_directory
from mapl_ray.models.tiny import build_tiny
from mapl_ray.preferences.canonical_order import ExternalSort
from mapl_ray.training.best import remove_bests, remove_other_bests
from mapl_ray.training.checkpoint import (
    begin_checkpoint,
    best_directory,
    commit_checkpoint,
    remove_old,
    written_files,
)
from mapl_ray.training.mapped_files import mapped_table

HOST = "mapl-worker-gpu-x7k2p"
TEMPORARY = rf"\..+\.{HOST}-[0-9a-f]{{12}}\.tmp"
PACKAGE = Path(mapl_ray.__file__).parent


class Names:
    """What is made, renamed and linked below a folder, by the last part of its path."""

    def __init__(self, below: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moved: list[str] = []
        self.made: list[str] = []
        self._below = str(below)
        for name in ("rename", "replace", "link"):
            monkeypatch.setattr(os, name, self._noted(getattr(os, name), self.moved))
        monkeypatch.setattr(os, "mkdir", self._noted(os.mkdir, self.made))

    def _noted(self, original: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **kwargs: Any) -> Any:
            if str(path).startswith(self._below):
                names.append(Path(path).name)
            return original(path, *args, **kwargs)

        return call


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    return Names(tmp_path, monkeypatch)


def checkpoint(folder: Path) -> None:
    for step in (2, 4):
        written = begin_checkpoint(folder / "checkpoints", step)
        (written / "rng-00000.pt").write_bytes(b"state")
        files = [written_files(written, [written / "rng-00000.pt"])]
        commit_checkpoint(written, step, files=files, world_size=1, zero_stage=2, settings={})
    remove_old(folder / "checkpoints", keep=1)


def bests(folder: Path) -> None:
    for step in (1, 2):
        written = begin_checkpoint(best_directory(folder), step)
        (written / "weights").write_bytes(b"state")
        files = [written_files(written, [written / "weights"])]
        commit_checkpoint(written, step, files=files, world_size=1, zero_stage=2, settings={})
    remove_other_bests(folder, 2)
    remove_bests(folder)


def held_lease(folder: Path) -> None:
    with lease(lease_path(folder / "run", "rm")):
        pass


def table(folder: Path) -> None:
    one = pa.table({"a": [1]})
    mapped_table("one", one.schema, lambda: [one])


def copied_model(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).write_text("{}")
    local_directory(model.as_uri(), weights=True)


WRITERS: dict[str, Callable[[Path], object]] = {
    "a JSON file": lambda folder: write_json(folder / "a.json", {}),
    "a checkpoint, and the removal of an old one": checkpoint,
    "the best of a run, and the removal of those before": bests,
    "a lease": held_lease,
    "a mapped table": table,
    "a tiny model": lambda folder: build_tiny(folder / "tiny", ["a b"], TinyModelConfig(vocab_size=300), 0),
    "a copy of a model": copied_model,
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_is_moved_into_place_had_a_name_of_this_host(
    what: str, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts, or two pods with equal process ids, never write to the same file before it is whole."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("MAPL_CACHE", str(tmp_path / "cache"))
    WRITERS[what](tmp_path)
    moved = [name for name in names.moved if name != "whole" and not name.endswith((".lock", "tokenizer.json"))]
    if what == "a tiny model":  # its files and its folder are moved out of one with such a name
        moved = [name for name in names.made if name.startswith(".")]
    assert moved
    assert [name for name in moved if not re.fullmatch(TEMPORARY, name) and name not in STEPS] == []


# Folders that are removed get a temporary name first: a checkpoint, a best that is superseded, and all of them.
STEPS = ("step-00000001", "step-00000002", "best")


def test_the_folder_of_values_that_are_sorted(names: Names, tmp_path: Path) -> None:
    with ExternalSort(tmp_path, 1) as values:
        values.add(("a",))
        (folder,) = tmp_path.iterdir()
        assert re.fullmatch(TEMPORARY, folder.name)


def test_no_two_are_equal_and_any_host_name_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from mapl_ray.unfinished import becomes, unfinished, unique_word

    for host in ("node7", "a" * 64, "gpu_1.cluster.example", "", "../evil", "höst"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        words = {unique_word() for _ in range(1000)}
        assert len(words) == 1000
        assert all(re.fullmatch(r"[A-Za-z0-9-]{1,40}-[0-9a-f]{12}", word) for word in words)
        name = unfinished(Path("runs/part-00000.json"))
        assert name.parent == Path("runs")
        assert becomes(name.name) == "part-00000.json"
    assert becomes("part-00000.json") is None
    assert becomes(".part-00000.json.tmp") is None


def test_leftovers_are_those_of_one_name_that_nobody_writes_to(tmp_path: Path) -> None:
    from mapl_ray.unfinished import leftovers, unfinished

    old, new, other = unfinished(tmp_path / "a"), unfinished(tmp_path / "a"), unfinished(tmp_path / "b")
    for path in (old, new, other, tmp_path / "a", tmp_path / ".a.mine.tmp"):
        path.write_text("x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert set(leftovers(tmp_path / "a")) == {old, new}
    assert list(leftovers(tmp_path / "a", untouched_seconds=3600)) == [old]
    assert list(leftovers(tmp_path / "none" / "a")) == []


def test_one_module_makes_all_temporary_names() -> None:
    """Neither `tempfile`'s own names, nor endings of others', nor process ids in a name."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        name = str(file.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            call = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tempfile"
            if call and node.attr != "gettempdir":
                found.append(f"{name}: tempfile.{node.attr}")
            if isinstance(node, ast.ImportFrom) and node.module == "tempfile":
                found.append(f"{name}: from tempfile")
            text = str(node.value) if isinstance(node, ast.Constant) and name != "unfinished.py" else ""
            if re.search(r"\.(tmp|temp|part|partial|writing)$", text):
                found.append(f"{name}: {text!r}")
            if isinstance(node, ast.JoinedStr) and "getpid()" in ast.unparse(node):
                found.append(f"{name}: {ast.unparse(node)}")
    assert found == []
