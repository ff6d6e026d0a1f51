"""Export into a folder: a Parquet file per part, killed and gone on with, and nobody's files overwritten."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import pandas as pd
import pyarrow.parquet as pq
import pytest

from mapl_ray.cli import main
from mapl_ray.config import ClusterConfig
from mapl_ray.data.group_columns import groups_to_table
from mapl_ray.data.records import GROUP_SCHEMA, Message, RelationGroup
from mapl_ray.data.shards import commit, part_name, read_manifest, write_part
from mapl_ray.errors import RunError, UserError
from mapl_ray.synthesis import ExportFolder, export_files, export_rows
from tests.conftest import GroupMaker

GROUPS = 6  # in a part
DataSet = Callable[..., Path]


@pytest.fixture
def data_set(tmp_path: Path, grid_groups: GroupMaker) -> DataSet:
    """`data_set(3)` makes three parts of groups in `runs/run/groups/train`; returns that folder."""

    def make(
        parts: int, of_a_part: int = GROUPS, change: Callable[[RelationGroup], RelationGroup] | None = None
    ) -> Path:
        folder = tmp_path / "runs" / "run" / "groups" / "train"
        groups = [change(group) if change else group for group in grid_groups(parts * of_a_part)]
        pieces = [groups[index * of_a_part :][:of_a_part] for index in range(parts)]
        made = [write_part(folder, n, groups_to_table(piece), [], GROUP_SCHEMA, "f") for n, piece in enumerate(pieces)]
        commit(folder, "synthesize", "f", made)
        return folder

    return make


@pytest.fixture
def words(tmp_path: Path) -> Callable[..., list[str]]:
    """The command's words, with an output below `tmp_path`."""

    def make(output: str, *more: str, format: str = "trl") -> list[str]:
        to = ["export", "--format", format, "--output", f"{tmp_path}/{output}", *more]
        return [*to, "name=run", f"output_dir={tmp_path / 'runs'}"]

    return make


@pytest.fixture(autouse=True)
def no_progress_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", ["out/", "out", "out --parts", "rows.parquet --parts"])
def test_every_part_is_a_file(
    data_set: DataSet, words: Callable[..., list[str]], grid_groups: GroupMaker, tmp_path: Path, form: str
) -> None:
    data_set(3)
    output, *more = form.split()
    if form == "out":
        (tmp_path / "out").mkdir()  # without --parts and / a folder is one by being there
    assert main(words(output, *more)) == 0
    folder = tmp_path / output
    assert sorted(contents(folder)) == [part_name(index) for index in range(3)]
    groups = grid_groups(3 * GROUPS)
    for index in range(3):
        expected = [row for group in groups[index * GROUPS :][:GROUPS] for row in export_rows(group, "trl")]
        file = str(folder / part_name(index))
        cache = str(tmp_path / "cache")
        assert datasets.load_dataset("parquet", data_files=file, split="train", cache_dir=cache).to_list() == expected
        frame = pd.read_parquet(file)
        assert frame["pair_id"].tolist() == [row["pair_id"] for row in expected]
        assert frame["chosen"].iloc[0][0] == expected[0]["chosen"][0]
    whole = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert whole.to_list() == [row for group in groups for row in export_rows(group, "trl")]
    assert len(pd.read_parquet(folder)) == whole.num_rows


def test_implicit_prompts_and_a_part_without_groups(
    data_set: DataSet, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    source = data_set(2)
    parts = [*read_manifest(source).parts, write_part(source, 2, [], [], GROUP_SCHEMA, "f")]
    commit(source, "synthesize", "f", parts)
    assert main(words("out/", "--prompts", "implicit")) == 0
    tables = [pq.read_table(tmp_path / "out" / part_name(index)) for index in range(3)]
    assert [table.num_rows for table in tables] == [3 * GROUPS, 3 * GROUPS, 0]
    assert {tuple(table.column_names) for table in tables} == {("chosen", "rejected", "kind", "pair_id")}


def test_killed_and_gone_on_with(
    data_set: DataSet, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_set(40, 40)
    assert main(words("undisturbed/")) == 0
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "mapl_ray.cli", *words("killed/")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (folder / part_name(2)).exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    assert 3 <= len(finished) < 40, "it was not killed between parts"
    # As a kill in the middle of a write leaves it.
    (folder / f".{part_name(39)}.node-7-0123456789ab.tmp").write_bytes(b"PAR1")
    capsys.readouterr()
    assert main(words("killed/")) == 0
    printed = capsys.readouterr().out
    assert f"{len(finished)} of 40 parts are already there" in printed
    assert contents(folder) == contents(tmp_path / "undisturbed")
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert {name: (folder / name).stat().st_mtime_ns for name in finished} == finished
    # The counts are of all parts, not of those that this command has written.
    assert f"{40 * 40 * 3} trl rows" in printed
    assert f"{40 * 40 * 2:,} intra relations" in printed
    assert main(words("killed/")) == 0
    assert "40 of 40 parts are already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["notes.txt", "part-00003.parquet", "part-00001.json", ".part-00007.parquet.a-0123456789ab.tmp"]
)
def test_a_folder_with_other_files_is_left_as_it_is(
    data_set: DataSet, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    data_set(3)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("mine")
    assert main(words("out")) == 2
    message = capsys.readouterr().err
    assert f"it holds {name}" in message
    assert "name a new or an empty folder" in message
    assert contents(folder) == {name: b"mine"}
    assert [path.name for path in folder.iterdir()] == [name]


def test_files_of_another_export_are_not_overwritten(
    data_set: DataSet, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data_set(2)
    assert main(words("out/")) == 0
    before = contents(tmp_path / "out")
    assert main(words("out/", format="openrlhf")) == 2
    assert "is from another export" in capsys.readouterr().err
    assert main(words("out/", "--prompts", "implicit")) == 2
    assert contents(tmp_path / "out") == before
    # Other groups under the same names, and a file of pandas' in the place of a part.
    data_set(2, change=lambda group: replace(group, responses=("other " + group.responses[0], group.responses[1])))
    assert main(words("out/")) == 2
    assert contents(tmp_path / "out") == before
    data_set(2)
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "out" / part_name(1))
    (tmp_path / "out" / part_name(0)).unlink()
    assert main(words("out/")) == 2
    assert part_name(1) in capsys.readouterr().err
    assert list(contents(tmp_path / "out")) == [part_name(1)]
    assert source.is_dir()


def test_mistakes_leave_no_folder(data_set: DataSet, words: Callable[..., list[str]], tmp_path: Path) -> None:
    assert main(words("out/")) == 2  # no groups yet
    data_set(2)
    assert main(words("out/", "--prompts", "implicit", format="intra")) == 2
    assert not (tmp_path / "out").exists()
    (tmp_path / "rows.txt").write_text("mine")
    assert main(words("rows.txt", "--parts")) == 2
    assert (tmp_path / "rows.txt").read_text() == "mine"


def test_a_damaged_part_is_named_and_the_others_are_kept(
    data_set: DataSet, words: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data_set(3)
    whole = (source / part_name(1)).read_bytes()
    (source / part_name(1)).write_bytes(whole[:-40])
    assert main(words("out/")) == 2
    assert f"{source / part_name(1)}: missing or damaged" in capsys.readouterr().err
    assert sorted(contents(tmp_path / "out")) == [part_name(0)]
    (source / part_name(1)).write_bytes(whole)
    assert main(words("out/")) == 0
    assert len(contents(tmp_path / "out")) == 3


def test_groups_with_tools_are_refused(
    data_set: DataSet, words: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    tools = '[{"type":"function","function":{"name":"f"}}]'

    def with_tools(group: RelationGroup) -> RelationGroup:
        prompts = [tuple(replace(message, tools=tools) for message in prompt) for prompt in group.prompts]
        return replace(group, prompts=tuple(prompts))

    data_set(2, change=with_tools)
    assert main(words("out/")) == 2
    assert "has tools or tool calls" in capsys.readouterr().err


@pytest.mark.parametrize("output", ["out/", "rows.parquet", "rows.jsonl"])
def test_memory_is_that_of_one_part(
    data_set: DataSet, words: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """Four times as many parts take no more memory, less than a tenth."""
    monkeypatch.setattr(export_files, "_ROWS_AT_ONCE", 40)
    text = (Message("user", "a " * 20_000),)

    def peak(parts: int, name: str) -> int:
        data_set(parts, 20, lambda group: replace(group, prompts=(text, text, text)))
        tracemalloc.start()
        try:
            assert main(words(name)) == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1, f"warm-{output}")  # imports
    few, many = peak(3, f"few-{output}"), peak(12, f"many-{output}")
    assert many < 1.1 * few


@pytest.mark.ray
def test_tasks_write_the_same_files(
    local_ray: None,
    data_set: DataSet,
    words: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mapl_ray import cli
    from mapl_ray.distributed.export_tasks import write_parts

    source = data_set(5)
    assert main(words("here/")) == 0
    monkeypatch.setattr(cli, "PARTS_FOR_A_CLUSTER", 2)
    (tmp_path / "tasks").mkdir()
    kept = tmp_path / "tasks" / part_name(3)
    kept.write_bytes((tmp_path / "here" / part_name(3)).read_bytes())
    when = kept.stat().st_mtime_ns
    assert main(words("tasks/")) == 0
    assert contents(tmp_path / "tasks") == contents(tmp_path / "here")
    assert kept.stat().st_mtime_ns == when
    # A damaged part comes back from its task as the user's mistake, with the others' files kept.
    (source / part_name(2)).write_bytes(b"PAR1")
    export = ExportFolder(source, tmp_path / "damaged", "trl", "explicit")
    manifest = export.manifest()
    with pytest.raises(UserError, match=r"export: .*part-00002\.parquet: missing or damaged"):
        write_parts(export, manifest.parts, ClusterConfig())
    with pytest.raises(RunError, match=r"part-00002\.parquet.* not there after the export"):
        export.exported(manifest)
