"""A full disk: the output is a small tmpfs, which is enlarged after the run has reported the error."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.reliability.commands import start
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    INTERVAL,
    STEPS,
    compare_data,
    compare_weights,
    few_groups,
    leftovers,
    parts,
    resumed_step,
    steps_done,
    synthesis_words,
    training_words,
    undisturbed_synthesis,
    undisturbed_training,
    unreadable_as_whole,
)
from mapl_ray.training.checkpoint import committed

END_SECONDS = 180.0


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """Mount a file system of this size on `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def enlarge(folder: Path) -> None:
    """Enlarge the file system so that everything fits."""
    subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)


def no_mount() -> str:
    """Why no file system can be mounted on this machine; empty if one can."""
    return "" if os.geteuid() == 0 else "a small tmpfs is mounted, which takes root"


def _kib(run: Path, *folders: str) -> int:
    """Size of these folders of a finished run, in KiB, rounded up to full pages."""
    files = [file for folder in folders for file in (run / folder).rglob("*") if file.is_file()]
    return sum(-(-file.stat().st_size // 4096) * 4 for file in files)


def in_synthesis(scene: Scene) -> Outcome:
    """The disk has room for the pairs and half of the groups."""
    there, outcome, folder = undisturbed_synthesis(scene), Outcome(), scene.folder / "disk"
    with small_disk(folder, _kib(there, "pairs") + _kib(there, "groups") // 2):
        words = synthesis_words(scene, folder)
        _fills(outcome, scene, words, folder)
        outcome.check("what has a manifest is whole", not unreadable_as_whole(folder / "run", "pairs", "groups"))
        made, total = parts(folder / "run"), parts(there)
        outcome.check("finished parts are kept", made > parts(there, "pairs"))
        enlarge(folder)
        outcome.check("with room, the same command ends with exit code 0", start(words, scene.folder).finish(300) == 0)
        compare_data(outcome, there, folder / "run", "pairs", "groups")
    outcome.lost = f"nothing that was finished: {made} of {total} parts were taken over"
    return outcome


def in_training(scene: Scene) -> Outcome:
    """The disk has room for the first checkpoint and half of the second."""
    there, outcome, folder = undisturbed_training(scene), Outcome(), scene.folder / "disk"
    one = _kib(there, f"rm/checkpoints/{committed(there / 'rm' / 'checkpoints')[0].name}")
    with small_disk(folder, _kib(there, "pairs", "groups", "model", "tokens") + 200 + one * 3 // 2):
        run = few_groups(scene, folder)
        words = training_words(folder)
        _fills(outcome, scene, words, folder)
        at = steps_done(run)
        outcome.check("the checkpoint before is kept", len(committed(run / "rm" / "checkpoints")) == 1)
        enlarge(folder)
        outcome.check("with room, the same command ends with exit code 0", start(words, scene.folder).finish(300) == 0)
        lost = at - resumed_step(run)
        outcome.check("at most one checkpoint interval of steps is done again", lost <= INTERVAL)
        compare_weights(outcome, there, run)
    outcome.lost = f"{lost} of {STEPS} steps (a checkpoint every {INTERVAL})"
    return outcome


def _fills(outcome: Outcome, scene: Scene, words: Sequence[str], folder: Path) -> None:
    began, command = time.monotonic(), start(words, scene.folder)
    code = command.finish(END_SECONDS)
    outcome.seconds.append(time.monotonic() - began)
    outcome.message = command.message().replace(str(folder), "runs")
    outcome.check("exit code 1, with a sentence that says what is wrong", code == 1)
    outcome.check("exit code 1, with a sentence that says what is wrong", "no space is left" in outcome.message)
    # Lines printed by workers, which Ray forwards, start with the worker's name.
    bare = any(line.startswith("Traceback") for line in command.text().splitlines())
    outcome.check("the command itself shows no traceback", not bare)
    outcome.check("no half-written file is left on the full disk", leftovers(folder / "run") == [])


_SENTENCE = "The sentence below, and exit code 1. Free some room, and give the same command again."
FAULTS = (
    Fault(
        name="full-disk-synthesis",
        of_issue="full disk",
        title="The disk is full in synthesis",
        happens="the run ends; finished parts stay, half-written files are removed",
        user=_SENTENCE,
        recovery="from the start of the command to its end on the full disk",
        rounds=1,
        limit_seconds=600,
        measure=in_synthesis,
        missing=no_mount,
    ),
    Fault(
        name="full-disk-training",
        of_issue="full disk",
        title="The disk is full in mid-checkpoint",
        happens="the run ends; the checkpoint before stays, the half-written one is removed",
        user=_SENTENCE,
        recovery="from the start of the command to its end on the full disk",
        rounds=1,
        limit_seconds=600,
        measure=in_training,
        missing=no_mount,
    ),
)
