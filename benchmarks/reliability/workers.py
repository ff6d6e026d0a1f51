"""SIGKILL of workers of the data stages: a synthesis actor, a vLLM actor."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.reliability.commands import Command, kill, start, wait_until
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    batches,
    compare_data,
    few_groups,
    parts,
    scoring_words,
    synthesis_words,
    undisturbed_scoring,
    undisturbed_synthesis,
)


def synthesis_worker(scene: Scene) -> Outcome:
    """Kill the only synthesis worker, so that no work is done until it is replaced."""
    there, outcome, points = undisturbed_synthesis(scene), Outcome(), list[int]()
    total = parts(there, "groups")
    for number in range(scene.rounds):
        folder = scene.folder / str(number)
        command = start(synthesis_words(scene, folder, "cluster.synthesis_workers=1"), folder)
        _kill(
            scene, outcome, command, "SynthesizeShard", lambda run=folder / "run": parts(run, "groups"), total, points
        )
        compare_data(outcome, there, folder / "run", "pairs", "groups")
    outcome.lost = f"the part in hand, of {total}; killed after parts {', '.join(map(str, points))}"
    return outcome


def vllm_actor(scene: Scene) -> Outcome:
    """Kill the only engine."""
    there, outcome, points = undisturbed_scoring(scene), Outcome(), list[int]()
    total = batches(there)
    for number in range(scene.rounds):
        folder = scene.folder / str(number)
        run = few_groups(scene, folder)
        command = start(scoring_words(folder), folder)
        _kill(scene, outcome, command, "ScoreShard", lambda run=run: batches(run), total, points)
        compare_data(outcome, there, run, "scores/ref_logps", "scored")
    outcome.lost = f"the batch in hand, of {total}; killed after batches {', '.join(map(str, points))}"
    return outcome


def _kill(
    scene: Scene,
    outcome: Outcome,
    command: Command,
    title: str,
    done: Callable[[], int],
    total: int,
    points: list[int],
) -> None:
    """Kill at a random point of the first half; seconds are until new work is done."""
    target = scene.rng.randint(2, total // 2)
    wait_until(lambda: done() >= target, command)
    victims = command.workers(title)
    outcome.check("killed in mid-work", bool(victims))
    for victim in victims:
        kill(victim)
    began = time.monotonic()
    time.sleep(0.05)
    at = done()
    points.append(at)
    wait_until(lambda: done() > at, command)
    outcome.seconds.append(time.monotonic() - began)
    outcome.check("the same command goes on by itself, and ends with exit code 0", command.finish(300) == 0)


FAULTS = (
    Fault(
        name="data-worker",
        of_issue="data worker",
        title="SIGKILL of a synthesis worker",
        happens="Ray starts another, which gets its parts again",
        user="Nothing has to be done. A part that kills its worker at every try ends the run: see the poison row.",
        recovery="from the kill of the only worker to the next finished part",
        rounds=3,
        limit_seconds=200,
        measure=synthesis_worker,
    ),
    Fault(
        name="vllm-actor",
        of_issue="vLLM actor",
        title="SIGKILL of a vLLM actor",
        happens="Ray starts another engine; the journal beside the part says which batches are scored",
        user="Nothing has to be done. A group that kills its engine at every try is set aside: see the poison row.",
        recovery="from the kill of the only engine to the next scored batch",
        rounds=2,
        limit_seconds=400,
        measure=vllm_actor,
    ),
)
