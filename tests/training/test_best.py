"""The best model is that of the best evaluation, whenever a run is killed: every file operation is one to die before.

Weights are the number of the step here; tests/training/test_best_ranks.py trains.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mapl_ray.config import TrainConfig
from mapl_ray.errors import RunError
from mapl_ray.training import loop
from mapl_ray.training.best import Best, find_best, remove_bests
from mapl_ray.training.checkpoint import (
    best_directory,
    checkpoint_path,
    committed,
    damage,
    drop_unfinished,
    read_checkpoint_manifest,
    step_of,
)
from mapl_ray.training.export import _at_once
from mapl_ray.training.loop import Progress
from mapl_ray.training.result import TrainResult, finished_result
from mapl_ray.training.resume import run_settings
from mapl_ray.training.saving import Checkpoints
from mapl_ray.unfinished import becomes

SETTINGS = run_settings(TrainConfig(), "rm", model="m", data="d", world_size=1)
TOTAL, EVERY, SAVED_EVERY = 12, 2, 3  # of steps: all, evaluated, with a checkpoint
# Held-out accuracy by step. The best so far: without a checkpoint at 2, 4, 8 and 10, with one at 6, and at the end.
SCORES = {
    "between two checkpoints": {2: 0.1, 4: 0.5, 6: 0.7, 8: 0.6, 10: 0.8, 12: 0.75},
    "between two checkpoints, twice": {2: 0.1, 4: 0.5, 6: 0.7, 8: 0.8, 10: 0.9, 12: 0.75},
    "at a checkpoint": {2: 0.5, 4: 0.4, 6: 0.7, 8: 0.6, 10: 0.7, 12: 0.6},
    "at the end": {2: 0.5, 4: 0.4, 6: 0.7, 8: 0.6, 10: 0.7, 12: 0.8},
}


def best_step(scores: dict[int, float], up_to: int) -> int | None:
    """The first of the best evaluations."""
    return max((step for step in scores if step <= up_to), key=lambda step: scores[step], default=None)


class OnlyRank:
    """A world of one rank, whose weights are a number."""

    rank, world_size, weights = 0, 1, 0

    def from_rank_0(self, act: Any) -> Any:
        return act()

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        pass

    def save(self, folder: Path) -> list[Path]:
        (folder / "state").mkdir()
        (folder / "state" / "moments").write_bytes(b"moments")
        return [*self.save_weights(folder), folder / "state" / "moments"]

    def save_weights(self, folder: Path) -> list[Path]:
        (folder / "state").mkdir(exist_ok=True)
        (folder / "state" / "weights").write_text(str(self.weights))
        return [folder / "state" / "weights"]

    def files_of_weights(self, saved: list[Path]) -> list[Path]:
        return [path for path in saved if path.name == "weights"]

    def load(self, folder: Path, world_size: int) -> None:
        self.weights = int((folder / "state" / "weights").read_text())

    load_weights = load

    def reads_all(self, world_size: int) -> bool:
        return True


class FileExporter:
    """Writes the weights of the moment, and counts."""

    def __init__(self, engine: OnlyRank) -> None:
        self.engine, self.written = engine, list[str]()

    def write(self, directory: Path, adapter: Path, step: int, metrics: dict[str, float]) -> None:
        self.written.append(directory.name)
        with _at_once(directory) as aside:
            (aside / "config.json").write_text("{}")
            (aside / "model.safetensors").write_text(f"weights of {self.engine.weights}")
            (aside / "README.md").write_text(f"step {step}, {metrics}")


def run_in(output: Path, **changes: Any) -> Any:
    """What the loop needs of a run."""
    engine = OnlyRank()
    config = TrainConfig(checkpoints_to_keep=1, **changes)
    return SimpleNamespace(
        engine=engine,
        trainer=SimpleNamespace(config=config),
        checkpoints=Checkpoints(cast(Any, engine), config, output / "checkpoints", SETTINGS),
        output_dir=output,
        exporter=FileExporter(engine),
        held_out=object(),
    )


def train(output: Path, scores: dict[int, float], last: int = TOTAL) -> Any:
    """As the loop does, with the files that it writes; a finished run is left as it is."""
    if finished_result(output, "f") is not None:
        remove_bests(output / "checkpoints")  # as the driver does
        return None
    run = run_in(output)
    done = run.checkpoints.resume()
    progress = Progress(resumed_step=done, done=done, best=loop._best_so_far(run, done))
    assert (None if progress.best is None else progress.best.step) == best_step(scores, done)
    for step in range(done + 1, last + 1):
        run.engine.weights = progress.done = step
        run.checkpoints.commit()
        best = None
        if step in scores:
            progress.metrics = {"eval/loss": 1.0, "eval/rewards/accuracies/pref": scores[step]}
            best = loop._new_best(run, progress)
        due = step % SAVED_EVERY == 0 and step < TOTAL
        if due or (best is not None and step < TOTAL):
            run.checkpoints.save(step, due=due, best=best)
    run.checkpoints.commit()
    if last == TOTAL:
        result = TrainResult("rm", "f", TOTAL, str(output / "model"), progress.metrics, 1.0, 1.0, 1, 2, 10, 0)
        loop._export(run, run.exporter, progress, result)
    return run


def check(output: Path, scores: dict[int, float]) -> None:
    expected = best_step(scores, TOTAL)
    assert (output / "model" / "model.safetensors").read_text() == f"weights of {TOTAL}"
    assert (output / "best" / "model.safetensors").read_text() == f"weights of {expected}"
    assert f"step {expected}, " in (output / "best" / "README.md").read_text()
    result = finished_result(output, "f")
    assert result is not None
    assert result.best_weights
    assert not best_directory(output / "checkpoints").exists()
    there = committed(output / "checkpoints")
    assert step_of(there[-1]) == 9
    left = {*(output / "checkpoints").iterdir()} - {*there}
    assert all(becomes(path.name) for path in left)  # what the next run that holds the lease removes


class Killed(BaseException):
    """No handler of the code under test runs after it."""


class Killer:
    """Lets so many file operations happen, and none after them."""

    NAMES = ("rename", "replace", "link", "mkdir", "unlink", "rmdir")

    def __init__(self, patch: pytest.MonkeyPatch, links: bool) -> None:
        self.left: float = float("inf")
        self.calls = 0
        patch.setattr(os, "fsync", lambda handle: None)  # in one kernel it changes nothing; see tests/invariants
        for name in self.NAMES:
            patch.setattr(os, name, self._counted(getattr(os, name), name == "link" and not links))

    def _counted(self, original: Any, missing: bool) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self.left <= 0:
                raise Killed
            self.left -= 1
            self.calls += 1
            if missing:
                raise OSError(errno.EPERM, "no links here")
            return original(*args, **options)

        return call

    @contextmanager
    def after(self, calls: int) -> Iterator[None]:
        self.left = calls
        try:
            yield
        finally:
            self.left = float("inf")


@pytest.mark.parametrize(("where", "links"), [*((where, True) for where in SCORES), ("at a checkpoint", False)])
def test_a_kill_at_any_moment_changes_nothing(
    where: str, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer, scores = Killer(monkeypatch, links), SCORES[where]
    train(tmp_path / "whole", scores)
    check(tmp_path / "whole", scores)
    assert killer.calls > 50
    for number in range(killer.calls):
        output = tmp_path / str(number)
        with killer.after(number), pytest.raises(Killed):
            train(output, scores)
        train(output, scores)
        check(output, scores)


def test_two_kills_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second while the run recovers from the first: every 7th operation of the one, and 8th of the other."""
    killer, scores = Killer(monkeypatch, True), SCORES["between two checkpoints, twice"]
    train(tmp_path / "whole", scores)
    for first in range(0, killer.calls, 7):
        for second in range(0, 40, 8):
            output = tmp_path / f"{first}-{second}"
            for number in (first, second):
                with killer.after(number):
                    try:
                        train(output, scores)
                    except Killed:
                        continue
            train(output, scores)
            check(output, scores)


def test_nothing_is_gathered_before_the_end_and_a_last_step_that_is_the_best_is_gathered_once(tmp_path: Path) -> None:
    for where, scores in SCORES.items():
        half = train(tmp_path / where, scores, last=TOTAL - 1)
        assert half.exporter.written == []
        assert not (tmp_path / where / "best").exists()
        whole = train(tmp_path / where, scores)
        assert whole.exporter.written == (["model"] if where == "at the end" else ["model", "best"])
        check(tmp_path / where, scores)


def inodes(folder: Path) -> dict[str, int]:
    return {str(file.relative_to(folder)): file.stat().st_ino for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("links", [True, False])
def test_files_of_a_checkpoint_are_kept_by_links_or_as_copies(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Killer(monkeypatch, links)
    scores = SCORES["at a checkpoint"]
    train(tmp_path, scores, last=7)
    checkpoints = tmp_path / "checkpoints"
    kept, there = checkpoint_path(best_directory(checkpoints), 6), checkpoint_path(checkpoints, 6)
    assert set(inodes(kept)) == {"state/weights", "best.json", "manifest.json"}  # no moments, no random states
    assert (inodes(kept)["state/weights"] == inodes(there)["state/weights"]) is links
    manifest = read_checkpoint_manifest(kept)[0]
    assert manifest is not None
    assert damage(kept, manifest) == ""
    said = capsys.readouterr().out
    assert (f"  {checkpoints}: no hard links there: the best checkpoint is copied\n" in said) is not links
    train(tmp_path, scores, last=11)
    assert [step_of(path) for path in committed(checkpoints)] == [9]  # that of step 6 is removed
    assert committed(best_directory(checkpoints)) == [kept]
    assert damage(kept, manifest) == ""


def test_a_copy_with_other_bytes_is_no_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mapl_ray.data import shards

    def worse(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"other bytes")

    Killer(monkeypatch, links=False)
    monkeypatch.setattr(shards.shutil, "copyfile", worse)
    with pytest.raises(RunError, match=r"state/weights: the copy differs from"):
        train(tmp_path, SCORES["at a checkpoint"])


def test_the_best_before_stays_until_a_checkpoint_passes_the_new_one(tmp_path: Path) -> None:
    scores = SCORES["between two checkpoints, twice"]
    kept = {}
    for last in range(1, TOTAL):
        train(tmp_path, scores, last)
        kept[last] = [step_of(path) for path in committed(best_directory(tmp_path / "checkpoints"))]
    # Every second start resumes from the checkpoint before, drops what came after it, and evaluates it again.
    assert kept == {
        1: [], 2: [2], 3: [2], 4: [2, 4], 5: [2, 4], 6: [6], 7: [6], 8: [6, 8], 9: [8], 10: [8, 10], 11: [8, 10],
    }  # fmt: skip


def test_a_damaged_best_is_dropped_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = SCORES["between two checkpoints"]
    train(tmp_path, scores, last=10)
    directory = best_directory(tmp_path / "checkpoints")
    assert [step_of(path) for path in committed(directory)] == [6, 10]
    (checkpoint_path(directory, 6) / "state" / "weights").write_text("7")
    run = run_in(tmp_path)
    assert run.checkpoints.resume() == 9
    assert run.checkpoints.resume_best("pref_accuracy") is None
    assert "best model of step 6 dropped: state/weights is damaged" in capsys.readouterr().out
    assert committed(directory) == []


def test_weights_that_are_damaged_at_the_end_are_not_exported(tmp_path: Path) -> None:
    scores = SCORES["at a checkpoint"]
    run = train(tmp_path, scores, last=TOTAL - 1)
    folder = checkpoint_path(best_directory(tmp_path / "checkpoints"), 6)
    best = find_best(tmp_path / "checkpoints", "pref_accuracy", SETTINGS, 6)
    assert best is not None
    (folder / "state" / "weights").write_text("7")
    with pytest.raises(RunError, match="is not exported: on rank 0 state/weights is damaged"):
        run.checkpoints.load_best(best.best)
    assert run.engine.weights == TOTAL - 1
    remove_bests(tmp_path / "checkpoints")
    with pytest.raises(RunError, match="the best model, of step 6, is missing"):
        run.checkpoints.load_best(best.best)


@pytest.mark.parametrize(("by", "left"), [("eval_loss", False), (None, False), ("pref_accuracy", True)])
def test_another_measure_takes_no_model_of_the_one_before(
    by: Any, left: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, SCORES["at a checkpoint"], last=8)
    run = run_in(tmp_path, best_by=by)
    assert run.checkpoints.resume() == 6
    assert (run.checkpoints.resume_best(by) is not None) is left
    assert (committed(best_directory(tmp_path / "checkpoints")) != []) is left
    said = "best model of step 6 dropped: it is the best by pref_accuracy or of other settings"
    assert (said in capsys.readouterr().out) is (by == "eval_loss")


def test_a_restart_from_step_0_takes_no_earlier_best(tmp_path: Path) -> None:
    """Whether the checkpoints were deleted by hand or set aside: those of the best are with them, or are dropped."""
    scores = SCORES["at a checkpoint"]
    train(tmp_path, scores, last=8)
    for path in committed(tmp_path / "checkpoints"):
        for file in (path, *path.rglob("*")):
            if file.is_file():
                file.write_bytes(b"")
    run = run_in(tmp_path, on_unusable_checkpoint="restart")
    assert run.checkpoints.resume() == 0
    assert run.checkpoints.resume_best("pref_accuracy") is None
    assert not (tmp_path / "checkpoints").exists()
    aside = best_directory(tmp_path / "checkpoints.aside-1")
    assert [step_of(path) for path in committed(aside)] == [6]
    train(tmp_path, scores, last=8)
    for path in committed(tmp_path / "checkpoints"):
        path.rename(tmp_path / path.name)
    run = run_in(tmp_path)
    assert run.checkpoints.resume() == 0
    assert run.checkpoints.resume_best("pref_accuracy") is None
    assert committed(best_directory(tmp_path / "checkpoints")) == []


def test_a_finished_run_whose_model_is_damaged_keeps_its_exported_best(tmp_path: Path) -> None:
    scores = SCORES["at a checkpoint"]
    train(tmp_path, scores)
    (tmp_path / "model" / "model.safetensors").write_text("weights of 1")
    assert finished_result(tmp_path, "f") is None
    run = train(tmp_path, scores)  # from the checkpoint of step 9; the best one is of step 6
    assert run.exporter.written == ["model"]
    check(tmp_path, scores)


def test_a_finished_run_whose_best_model_is_damaged_is_not_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, SCORES["at a checkpoint"])
    weights = tmp_path / "best" / "model.safetensors"
    for content, word in (("weights of 7", "is damaged"), ("weights", "has 7 bytes of 12"), ("", "is empty")):
        weights.write_text(content)
        assert finished_result(tmp_path, "f") is None
        assert f"  {tmp_path / 'best'}: model.safetensors {word}; trained again" in capsys.readouterr().out


def test_leftovers_of_the_best_are_removed(tmp_path: Path) -> None:
    """Of a run that was killed while it wrote one, and of one that was killed while it removed them all."""
    from mapl_ray.distributed.train import say_skipped
    from mapl_ray.training.checkpoint import begin_checkpoint
    from mapl_ray.unfinished import unfinished

    checkpoints = tmp_path / "checkpoints"
    begun = begin_checkpoint(best_directory(checkpoints), 4)
    drop_unfinished(checkpoints)
    assert not begun.exists()
    train(tmp_path, SCORES["at a checkpoint"], last=8)
    half = unfinished(best_directory(checkpoints))
    half.mkdir()
    say_skipped(TrainResult("rm", "f", 3, "model", {}, 1.0, 1.0, 1, 2, 10, 0), tmp_path)
    assert not half.exists()
    assert not best_directory(checkpoints).exists()


def test_a_mark_gives_back_what_was_marked(tmp_path: Path) -> None:
    metrics = {"eval/loss": 0.1 + 0.2, "eval/rewards/accuracies/pref": 1 / 3}
    best = Best.of("pref_accuracy", metrics, 3, SETTINGS)
    assert best is not None
    assert best.score == (1 / 3, -(0.1 + 0.2))
    assert Best.of("eval_loss", metrics, 3, SETTINGS) != best
    assert Best.of("pref_accuracy", {"eval/loss": 1.0}, 3, SETTINGS) is None
    run = run_in(tmp_path)
    run.checkpoints.save(3, due=False, best=best)
    run.checkpoints.commit()
    found = find_best(tmp_path / "checkpoints", "pref_accuracy", SETTINGS, 3)
    assert found is not None
    assert found.best == best
