"""What is trusted, what is passed over, and when a run stops. Nothing is unpickled here: the shards are no pickles."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from mapl_ray.config import TrainConfig
from mapl_ray.errors import RunError, UserError
from mapl_ray.training import saving
from mapl_ray.training.checkpoint import begin_checkpoint, commit_checkpoint, committed, remove_old, written_files
from mapl_ray.training.resume import Found, find_checkpoint, find_or_restart, run_settings
from mapl_ray.training.saving import Checkpoints, save_rng
from mapl_ray.unfinished import becomes

SHARDS = ("state/latest", "state/zero_rank_0.pt", "state/zero_rank_1.pt", "rng-00000.pt")


def settings(world_size: int = 2, **changes: Any) -> dict[str, Any]:
    return run_settings(TrainConfig(**changes), "dpo", model="m", data="d", world_size=world_size)


def make(directory: Path, step: int, **changes: Any) -> Path:
    written = begin_checkpoint(directory, step)
    for number, name in enumerate(SHARDS):
        (written / name).parent.mkdir(exist_ok=True)
        (written / name).write_bytes(b"%d weights of %d" % (number, step))
    # As two ranks report what each of them has written.
    files = [written_files(written, [written / name for name in SHARDS[rank::2]]) for rank in (0, 1)]
    return commit_checkpoint(written, step, files=files, world_size=2, zero_stage=3, settings=settings(**changes))


def test_newest_whole_one_is_taken(tmp_path: Path) -> None:
    make(tmp_path, 2)
    newest = make(tmp_path, 10)
    begin_checkpoint(tmp_path, 12)  # a run that was killed while it wrote
    found = find_checkpoint(tmp_path, settings())
    assert found is not None
    assert (found.path, found.step, found.world_size) == (str(newest), 10, 2)


def test_no_checkpoints_are_no_mistake(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "none", settings()) is None
    begin_checkpoint(tmp_path, 2)
    assert find_checkpoint(tmp_path, settings()) is None


def damages(path: Path) -> list[tuple[str, bytes | None]]:
    """Every file cut short, emptied, deleted, and with one byte of it flipped, at every place."""
    found: list[tuple[str, bytes | None]] = []
    for name in (*SHARDS, "manifest.json"):
        content = (path / name).read_bytes()
        found += [(name, None), (name, b""), (name, content[:-1]), (name, content[: len(content) // 2])]
        found += [(name, content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]) for i in range(len(content))]
    return [*found, ("state/stray.pt", b"a file of another checkpoint")]


def test_every_damage_is_found_and_the_one_before_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = make(tmp_path, 2), make(tmp_path, 4)
    kinds = damages(bad)
    assert len(kinds) > 500
    for name, content in kinds:
        file = bad / name
        before = file.read_bytes() if file.exists() else None
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        found = find_checkpoint(tmp_path, settings())
        assert found is not None
        assert found.path == str(good), (name, content)
        said = capsys.readouterr().out
        assert "step-00000004 skipped" in said
        assert ("manifest" if name == "manifest.json" else name) in said
        if before is None:
            file.unlink()
        else:
            file.write_bytes(before)
    found = find_checkpoint(tmp_path, settings())
    assert found is not None
    assert found.path == str(bad)


def test_a_digest_of_another_file_does_not_help(tmp_path: Path) -> None:
    """A manifest whose entries were edited by hand: its own digest gives it away."""
    path = make(tmp_path, 2)
    values = json.loads((path / "manifest.json").read_text())
    values["step"] = 3
    (path / "manifest.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    with pytest.raises(UserError, match="its manifest is damaged"):
        find_checkpoint(tmp_path, settings())


def test_nothing_whole_stops_the_run(tmp_path: Path) -> None:
    for step in (2, 4):
        (make(tmp_path, step) / SHARDS[1]).unlink()
    with pytest.raises(UserError) as caught:
        find_checkpoint(tmp_path, settings())
    for word in (str(tmp_path), "step-00000002", "step-00000004", SHARDS[1], "train.on_unusable_checkpoint=restart"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 1e-4}, "train.learning_rate: 5e-06 there, 0.0001 now"),
        ({"weights": {"lambda_inter": 0.5}}, "train.weights.lambda_inter: 1.0 there, 0.5 now"),
        ({"zero_stage": 3}, "train.zero_stage: 2 there, 3 now"),
        ({"world_size": 3}, "must stay 8; 2 worker(s) wrote it"),
    ],
)
def test_other_settings_stop_the_run_and_are_named(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    make(tmp_path, 2)
    with pytest.raises(UserError) as caught:
        find_checkpoint(tmp_path, settings(**changes))
    assert named in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_what_does_not_change_the_run_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path, 2)
    for changes in (
        {"checkpoint_every_steps": 7, "max_failures": 3},
        {"world_size": 1, "gradient_accumulation_steps": 2, "num_workers": 1},  # the same eight groups per step
    ):
        assert find_checkpoint(tmp_path, settings(**changes)) is not None


def test_restart_on_demand_loses_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoints"
    config = TrainConfig(learning_rate=1e-4, on_unusable_checkpoint="restart")
    for number in (1, 2):
        make(folder, 2)
        here = run_settings(config, "dpo", model="m", data="d", world_size=2)
        assert find_or_restart(folder, here, config) is None
        assert committed(folder) == []
        assert len(committed(tmp_path / f"checkpoints.aside-{number}")) == 1
        assert "starting again from step 0" in capsys.readouterr().out
    make(folder, 2)
    assert find_or_restart(folder, settings(), TrainConfig(on_unusable_checkpoint="restart")) is not None


def test_old_ones_are_removed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        make(tmp_path, step)
    begin_checkpoint(tmp_path, 4)
    remove_old(tmp_path, keep=2)
    begin_checkpoint(tmp_path, 5)
    third, first, second = sorted(path.name for path in tmp_path.iterdir())
    assert (first, second) == ("step-00000002", "step-00000003")
    assert becomes(third) == "step-00000005"


def test_a_commit_takes_what_the_ranks_report_and_nothing_else(tmp_path: Path) -> None:
    """As where another run works in the same folder: nothing is committed, and a good checkpoint of the step stays."""
    good = make(tmp_path, 2)
    before = (good / "manifest.json").read_bytes()

    def commit(written: Path, names: list[str]) -> None:
        files = [written_files(written, [written / name for name in names if (written / name).is_file()])]
        files[0] |= dict.fromkeys(names, "of a rank")
        commit_checkpoint(written, 2, files=files, world_size=1, zero_stage=2, settings=settings())

    empty = begin_checkpoint(tmp_path, 2)
    with pytest.raises(RunError, match="not saved: no rank has written a file"):
        commit(empty, [])
    first = begin_checkpoint(tmp_path, 2)
    (first / "a").touch()
    with pytest.raises(RunError, match=r"not saved: b is gone. Does another run use"):
        commit(first, ["a", "b"])
    (first / "c").touch()
    with pytest.raises(RunError, match="not saved: c was not written by this run"):
        commit(first, ["a"])
    begin_checkpoint(tmp_path, 4)  # another run's, which removes this one's
    with pytest.raises(RunError, match="not saved: a is gone"):
        commit(first, ["a"])
    assert not first.exists()
    assert (good / "manifest.json").read_bytes() == before
    assert committed(tmp_path) == [good]


def test_random_states_come_back(tmp_path: Path) -> None:
    import random

    import numpy as np
    import torch

    from mapl_ray.training.saving import load_rng, save_rng, seed_all

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_all(1, 0)
    draw()
    save_rng(tmp_path / "rng.pt")
    expected = [draw() for _ in range(3)]
    seed_all(1, 1)
    assert draw() != expected[0]
    load_rng(tmp_path / "rng.pt")
    assert [draw() for _ in range(3)] == expected


class OneOfTwoRanks:
    """Rank 1 of two; rank 0 has read the checkpoint as it was."""

    rank, world_size = 1, 2

    def __init__(self, found: Found) -> None:
        self.found, self.loaded = found, False

    def from_rank_0(self, act: Any) -> Found:
        return self.found

    def gather(self, value: str) -> list[str]:
        return ["", value]

    def load(self, path: Path, world_size: int) -> None:
        self.loaded = True


@pytest.mark.parametrize(
    ("name", "is_own"),
    [
        ("state/zero_pp_rank_1_mp_rank_00_optim_states.pt", True),
        ("state/zero_pp_rank_0_mp_rank_00_optim_states.pt", False),
        ("state/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt", True),
        ("state/bf16_zero_pp_rank_11_mp_rank_00_optim_states.pt", False),
        ("state/zero_pp_rank_1_mp_rank_00_model_states.pt", True),
        ("state/mp_rank_00_model_states.pt", True),
        ("latest", True),
        ("rng-00001.pt", True),
        ("rng-00000.pt", False),
    ],
)
@pytest.mark.parametrize("content", [b"other bytes", None])
def test_every_rank_verifies_what_it_loads(name: str, is_own: bool, content: bytes | None, tmp_path: Path) -> None:
    """Storage that shows a node other bytes than rank 0's, as a cache that is behind does."""
    written = begin_checkpoint(tmp_path, 4)
    for file in {name, "rng-00001.pt"}:
        (written / file).parent.mkdir(exist_ok=True)
        save_rng(written / file)
    reported = written_files(written, [path for path in written.rglob("*") if path.is_file()])
    path = commit_checkpoint(written, 4, files=[reported], world_size=2, zero_stage=3, settings=settings())
    found = find_checkpoint(tmp_path, settings())
    assert found is not None
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(content)
    engine = OneOfTwoRanks(found)
    checkpoints = Checkpoints(cast(Any, engine), TrainConfig(), tmp_path, settings())
    if is_own:
        state = "missing" if content is None else "damaged"
        with pytest.raises(RunError, match=rf"not loaded: on rank 1 {name} is {state}, but not on rank 0"):
            checkpoints.resume()
        assert not engine.loaded
    else:
        assert checkpoints.resume() == 4
        assert engine.loaded


class OnlyRank:
    """A world of one rank, whose state is one file."""

    rank, world_size = 0, 1

    def from_rank_0(self, act: Any) -> Any:
        return act()

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def save(self, folder: Path) -> list[Path]:
        (folder / "state").write_bytes(b"weights")
        return [folder / "state"]


def test_training_goes_on_while_files_reach_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk, real, threads = threading.Event(), saving.written_files, []

    def slow(folder: Path, files: Sequence[Path]) -> dict[str, str]:
        threads.append(threading.current_thread())
        assert on_disk.wait(60)
        return real(folder, files)

    monkeypatch.setattr(saving, "written_files", slow)
    checkpoints = Checkpoints(cast(Any, OnlyRank()), TrainConfig(checkpoints_to_keep=1), tmp_path, settings(1))
    checkpoints.commit()  # of nothing
    checkpoints.save(1)  # returns, or this test ends here
    assert committed(tmp_path) == []
    on_disk.set()
    checkpoints.commit()
    assert [path.name for path in committed(tmp_path)] == ["step-00000001"]
    checkpoints.save(2)
    checkpoints.save(3)  # commits the one before
    assert [path.name for path in committed(tmp_path)] == ["step-00000002"]
    checkpoints.commit()
    checkpoints.commit()
    assert [path.name for path in committed(tmp_path)] == ["step-00000003"]
    assert find_checkpoint(tmp_path, settings(1)) is not None
    assert threading.main_thread() not in threads


def test_files_that_do_not_reach_the_disk_are_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, files: Sequence[Path]) -> dict[str, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "written_files", full)
    checkpoints = Checkpoints(cast(Any, OnlyRank()), TrainConfig(), tmp_path, settings(1))
    checkpoints.save(1)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.commit()
    assert committed(tmp_path) == []


def test_a_commit_keeps_the_digests_that_ranks_report(tmp_path: Path) -> None:
    """Bytes that another run puts there between report and commit are damage, not this run's weights."""
    written = begin_checkpoint(tmp_path, 2)
    (written / "a").write_bytes(b"weights")
    files = [written_files(written, [written / "a"])]
    (written / "a").write_bytes(b"another run's")
    commit_checkpoint(written, 2, files=files, world_size=2, zero_stage=3, settings=settings())
    with pytest.raises(UserError, match="a is damaged"):
        find_checkpoint(tmp_path, settings())


def test_unfinished_folders_of_others_among_checkpoints_stay(tmp_path: Path) -> None:
    others = {".mine.tmp", ".step-00000001.tmp", ".notes.node-7-0123456789ab.tmp", ".step-1.node-7-0123456789ab.tmp"}
    for name in (*others, ".step-00000001.node-7-0123456789ab.tmp"):
        (tmp_path / name).mkdir()
    begun = begin_checkpoint(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {*others, begun.name}


def test_folders_of_others_among_checkpoints_stay(tmp_path: Path) -> None:
    others = {"step-by-step", "step-00000001.bak", "step-00000001.aside-1"}
    for name in others:
        (tmp_path / name).mkdir()
    for step in (2, 3):
        make(tmp_path, step)
    remove_old(tmp_path, keep=1)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "step-00000003"}
