"""SIGKILL of the driver at random points; every other time also of all processes that it started."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import psutil

from benchmarks.reliability.commands import (
    Command,
    kill,
    kill_alone,
    kill_with_family,
    start,
    still_running,
    wait_until,
)
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    INTERVAL,
    STEPS,
    batches,
    compare_data,
    compare_weights,
    few_groups,
    parts,
    resumed_step,
    scoring_words,
    steps_done,
    synthesis_words,
    training_words,
    undisturbed_scoring,
    undisturbed_synthesis,
    undisturbed_training,
    unreadable_as_whole,
)

WORK_SECONDS = 20.0  # workers of a dead driver must exit within this time
AGENTS_SECONDS = 90.0  # all processes must exit within this time: Ray's agents look for a lost GCS for 60 s
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def _kill(outcome: Outcome, command: Command, number: int, orphans: list[psutil.Process]) -> None:
    """Kill the driver or everything, and check that no worker continues. Remaining processes are added to `orphans`."""
    if number % 2:
        kill_with_family(command)
        return
    family = command.family
    kill_alone(command)
    orphans.extend(family)
    workers = [member for member in family if _name(member) not in _AGENTS]
    gone = _end(workers, WORK_SECONDS)
    outcome.check(f"within {WORK_SECONDS:.0f} s of the driver's end, nothing that it had started works on", gone)


def _nothing_is_left(outcome: Outcome, orphans: Sequence[psutil.Process]) -> None:
    gone = _end(orphans, AGENTS_SECONDS)
    outcome.check(f"within {AGENTS_SECONDS:.0f} s nothing at all that it had started is there", gone)


def _end(members: Sequence[psutil.Process], seconds: float) -> bool:
    """Whether the processes end by themselves in time; those that do not are reported and killed."""
    deadline = time.monotonic() + seconds
    while (left := still_running(members)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for member in left:
        print(f"still there after {seconds:.0f} s: {member.pid} {_name(member)}", flush=True)
        kill(member)
    return not left


def _name(member: psutil.Process) -> str:
    try:
        return member.name()
    except psutil.NoSuchProcess:
        return ""


def _killed_again_and_again(
    scene: Scene, words: Sequence[str], done: Callable[[], int], total: int, after_each: Callable[[Outcome], None]
) -> tuple[Outcome, list[int]]:
    """Kill at `rounds` random points, each later than the last; seconds are from a start to its first new work."""
    outcome, points, orphans = Outcome(), list[int](), list[psutil.Process]()
    for number in range(scene.rounds):
        command, began, before = start(words, scene.folder), time.monotonic(), done()
        # Spread the kills evenly, so that work remains for the following ones.
        room = max(1, (total - before) // (scene.rounds - number + 1))
        target = before + scene.rng.randint(1, room)
        if not wait_until(lambda before=before: done() > before, command):
            break
        outcome.seconds.append(time.monotonic() - began)
        wait_until(lambda target=target: done() >= target, command)
        time.sleep(scene.rng.uniform(0.0, 0.02))
        if command.process.poll() is not None:
            break
        _kill(outcome, command, number, orphans)
        points.append(done())
        after_each(outcome)
    outcome.check(f"killed at {scene.rounds} points of one run", len(points) == scene.rounds)
    last = start(words, scene.folder)
    outcome.check("the same command, given again, ends with exit code 0", last.finish(300) == 0)
    _nothing_is_left(outcome, orphans)
    return outcome, points


def in_synthesis(scene: Scene) -> Outcome:
    """One run that is killed repeatedly."""
    there, run = undisturbed_synthesis(scene), scene.folder / "run"
    total = parts(there)

    def whole(outcome: Outcome) -> None:
        lying = unreadable_as_whole(run, "pairs", "groups")
        outcome.check("after every kill: what has a manifest is whole", not lying)

    outcome, points = _killed_again_and_again(
        scene, synthesis_words(scene, scene.folder), lambda: parts(run), total, whole
    )
    compare_data(outcome, there, run, "pairs", "groups")
    outcome.lost = f"the parts in hand, at most 4 of {total}; killed at parts {_few(points)}"
    return outcome


def in_scoring(scene: Scene) -> Outcome:
    """Kill when some batches are scored; batches are counted by journal lines and finished parts."""
    there, run = undisturbed_scoring(scene), few_groups(scene, scene.folder)
    total = batches(there)
    outcome, points = _killed_again_and_again(
        scene, scoring_words(scene.folder), lambda: batches(run), total, lambda _: None
    )
    compare_data(outcome, there, run, "scores/ref_logps", "scored")
    outcome.lost = f"the batches in hand, at most 2 of {total}; killed after batches {_few(points)}"
    return outcome


def in_training(scene: Scene) -> Outcome:
    """Kill between two checkpoints, or while one is written."""
    there, run = undisturbed_training(scene), few_groups(scene, scene.folder)
    words, outcome, points, orphans = training_words(scene.folder), Outcome(), list[int](), list[psutil.Process]()
    for number in range(scene.rounds):
        command, before, began = start(words, scene.folder), steps_done(run), time.monotonic()
        target = max(before + 1, round(STEPS * (number + scene.rng.uniform(0.2, 1.0)) / (scene.rounds + 0.5)))
        wait_until(lambda target=target: steps_done(run) >= target, command)
        outcome.seconds.append(time.monotonic() - began)
        time.sleep(scene.rng.uniform(0.0, 0.1))
        points.append(steps_done(run))
        _kill(outcome, command, number, orphans)
    last = start(words, scene.folder)
    outcome.check("the same command, given again, ends with exit code 0", last.finish(300) == 0)
    _nothing_is_left(outcome, orphans)
    attempts = last.text().split("== train rm\n")[2:]  # the attempts after a kill
    resumed = [re.search(r"resumed after step (\d+)", attempt) for attempt in attempts]
    gone = [at - (int(found[1]) if found else 0) for at, found in zip(points, resumed, strict=True)]
    outcome.check("at most one checkpoint interval of steps is done again", max(gone) <= INTERVAL)
    outcome.check("the last attempt goes on from a checkpoint", resumed_step(run) > 0)
    compare_weights(outcome, there, run)
    outcome.lost = f"at most {max(gone)} of {STEPS} steps (a checkpoint every {INTERVAL}); killed after {_few(points)}"
    return outcome


def _few(points: Sequence[int]) -> str:
    return ", ".join(map(str, points))


_AGAIN = (
    "The command is gone without a word, and so is all that worked for it (two idle agents of Ray's leave a minute "
    "later). Give the same command again: what is finished is taken over."
)
FAULTS = (
    Fault(
        name="driver-synthesis",
        of_issue="driver",
        title="SIGKILL of the driver in synthesis",
        happens="finished parts stay; the same command makes the others",
        user=_AGAIN,
        recovery="from the start of the same command to its first new part",
        rounds=20,
        limit_seconds=120,
        measure=in_synthesis,
    ),
    Fault(
        name="driver-scoring",
        of_issue="driver",
        title="SIGKILL of the driver in scoring",
        happens="finished parts and batches stay; the same command scores the others",
        user=_AGAIN,
        recovery="from the start of the same command to its first new part",
        rounds=3,
        limit_seconds=300,
        measure=in_scoring,
    ),
    Fault(
        name="driver-training",
        of_issue="driver",
        title="SIGKILL of the driver in training",
        happens="the same command goes on from the newest whole checkpoint",
        user=_AGAIN,
        recovery="from the start of the same command to the step that it is killed after next",
        rounds=3,
        limit_seconds=300,
        measure=in_training,
    ),
)
