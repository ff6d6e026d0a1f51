"""Lost nodes: a killed raylet, a drained node, and the loss of the last node."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.reliability.commands import Command, kill, start, wait_until
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.hosts import Cluster, cluster, lose, raylet_of
from benchmarks.reliability.ranks import WORKER
from benchmarks.reliability.runs import (
    INTERVAL,
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
)
from mapl_ray.training.checkpoint import committed

_SYNTHESIS = "SynthesizeShard"
# Ranks without a raylet continue for seconds until Ray notices.
LONG_STEPS = 240
NEVER = 9999  # steps between checkpoints, so that only a drained node triggers one
NOTICE_SECONDS = 20  # between the notice and the removal of a node
PATIENCE_MINUTES = 0.5  # how long a run without nodes waits in this benchmark


def raylet_in_synthesis(scene: Scene) -> Outcome:
    """Kill the raylet of the node with the only worker, out of two nodes."""
    there, outcome, folder = undisturbed_synthesis(scene), Outcome(), scene.folder
    total = parts(there, "groups")
    with cluster(folder / "ray") as ray:
        ray.add(1), ray.add(1)
        words = synthesis_words(scene, folder, f"cluster.address={ray.address}", "cluster.synthesis_workers=1")
        command = start(words, folder)
        target = scene.rng.randint(2, total // 2)
        wait_until(lambda: parts(folder / "run", "groups") >= target, command)
        node, workers = ray.with_worker(_SYNTHESIS)
        outcome.check("killed in mid-work", bool(workers))
        kill(raylet_of(node))
        began = time.monotonic()
        time.sleep(0.2)
        at = parts(folder / "run", "groups")
        wait_until(lambda: parts(folder / "run", "groups") > at, command)
        outcome.seconds.append(time.monotonic() - began)
        outcome.check("the same command goes on by itself, and ends with exit code 0", command.finish(300) == 0)
        compare_data(outcome, there, folder / "run", "pairs", "groups")
    outcome.lost = f"the parts in hand; killed after part {at} of {total}"
    return outcome


def nodes_in_scoring(scene: Scene) -> Outcome:
    """Add a node, then lose the one with the only engine."""
    there, outcome, folder = undisturbed_scoring(scene), Outcome(), scene.folder
    run, total = few_groups(scene, folder), batches(there)
    with cluster(folder / "ray") as ray:
        ray.add(1)
        command = start(scoring_words(folder, f"cluster.address={ray.address}"), folder)
        target = scene.rng.randint(2, total // 2)
        wait_until(lambda: batches(run) >= target, command)
        node, workers = ray.with_worker("ScoreShard")
        outcome.check("lost in mid-work", bool(workers))
        ray.add(1)
        lose(node)
        began = time.monotonic()
        time.sleep(0.2)
        at = batches(run)
        wait_until(lambda: batches(run) > at, command, 300)
        outcome.seconds.append(time.monotonic() - began)
        outcome.check("the same command goes on by itself, and ends with exit code 0", command.finish(300) == 0)
        compare_data(outcome, there, run, "scores/ref_logps", "scored")
    outcome.lost = f"the batches in hand; lost after batch {at} of {total}"
    return outcome


def raylet_in_training(scene: Scene) -> Outcome:
    """Kill the raylet of the node with the ranks, out of two nodes; the ranks restart on the other one."""
    return _training(scene, drained=False)


def drained_in_training(scene: Scene) -> Outcome:
    """Drain the node with the ranks, and kill it at its deadline."""
    return _training(scene, drained=True)


def _training(scene: Scene, *, drained: bool) -> Outcome:
    interval = NEVER if drained else 5 * INTERVAL
    more = (f"train.max_steps={LONG_STEPS}", "train.epochs=99", f"train.checkpoint_every_steps={interval}")
    there, outcome, folder = undisturbed_training(scene, *more), Outcome(), scene.folder
    run = few_groups(scene, folder)
    with cluster(folder / "ray") as ray:
        ray.add(2), ray.add(2)
        command = start(training_words(folder, *more, f"cluster.address={ray.address}"), folder)
        wait_until(lambda: steps_done(run) >= 5 * INTERVAL + 1, command)
        node, workers = ray.with_worker(WORKER)
        outcome.check("both ranks were on the node", len(workers) == 2)
        if drained:
            outcome.check("Ray takes the word that the node will go", "0:" in ray.drain(node, NOTICE_SECONDS)[:2])
            folders = run / "rm" / "checkpoints"
            saved = wait_until(lambda: committed(folders), command, NOTICE_SECONDS)
            outcome.check("a checkpoint that was not due is written before the node goes", saved)
        kill(raylet_of(node)) if not drained else lose(node)
        began = time.monotonic()
        at = _last_step(run, command)
        wait_until(lambda: steps_done(run) > at, command, 300)
        outcome.seconds.append(time.monotonic() - began)
        outcome.check("the same command goes on by itself, and ends with exit code 0", command.finish(300) == 0)
        lost = at - resumed_step(run)
        outcome.check("training goes on from a checkpoint", resumed_step(run) > 0)
        outcome.check("at most one checkpoint interval of steps is done again", lost <= interval)
        compare_weights(outcome, there, run)
    every = "when the node was drained" if drained else f"every {interval}"
    outcome.lost = f"{lost} of {LONG_STEPS} steps (a checkpoint {every}); the last one before was step {at}"
    return outcome


def _last_step(run: Path, command: Command) -> int:
    """The last step of the lost ranks, which continue without a raylet until they notice."""
    last = 0

    def resumed() -> bool:
        nonlocal last
        again = "resumed after step" in command.text()
        if not again:
            last = max(last, steps_done(run))
        return again

    wait_until(resumed, command, 300)
    return last


def last_node(scene: Scene) -> Outcome:
    """The only worker node is lost and not replaced: the command ends with a message; with a new node it resumes."""
    there, outcome, folder = undisturbed_synthesis(scene), Outcome(), scene.folder
    total = parts(there, "groups")
    with cluster(folder / "ray") as ray:
        node = ray.add(1)
        more = (f"cluster.address={ray.address}", f"cluster.wait_minutes={PATIENCE_MINUTES}")
        words = synthesis_words(scene, folder, *more)
        command = start(words, folder)
        wait_until(lambda: parts(folder / "run", "groups") >= total // 4, command)
        lose(node)
        began = time.monotonic()
        code = command.finish(PATIENCE_MINUTES * 60 + 90)
        outcome.seconds.append(time.monotonic() - began)
        outcome.message = command.message()
        outcome.check("exit code 1, with a sentence that says what is wrong", code == 1)
        outcome.check("exit code 1, with a sentence that says what is wrong", "has room for 0" in outcome.message)
        at = parts(folder / "run", "groups")
        _again(ray, words, folder, outcome)
        compare_data(outcome, there, folder / "run", "pairs", "groups")
    outcome.lost = f"the parts in hand; {at} of {total} were taken over"
    return outcome


def _again(ray: Cluster, words: list[str], folder: Path, outcome: Outcome) -> None:
    ray.add(1)
    code = start(words, folder).finish(300)
    outcome.check("with a node, the same command ends with exit code 0", code == 0)


_BY_ITSELF = "Nothing has to be done, where the nodes that are left have room: Ray's log names the node that died."
FAULTS = (
    Fault(
        name="raylet-synthesis",
        of_issue="raylet",
        title="SIGKILL of a raylet in synthesis",
        happens="its workers die with it; they are started on another node, and get their parts again",
        user=_BY_ITSELF,
        recovery="from the kill to the next part, made on the other node",
        rounds=1,
        limit_seconds=400,
        measure=raylet_in_synthesis,
    ),
    Fault(
        name="nodes-scoring",
        of_issue="raylet",
        title="In scoring a node comes, and the one that has the only engine is lost",
        happens="the engine is started on the node that came, and goes on where the journal beside the part ends",
        user=_BY_ITSELF,
        recovery="from the loss to the next scored batch, an engine's start included",
        rounds=1,
        limit_seconds=600,
        measure=nodes_in_scoring,
    ),
    Fault(
        name="raylet-training",
        of_issue="raylet",
        title="SIGKILL of a raylet in training",
        happens="all ranks are started again on other nodes, from the newest whole checkpoint",
        user=f"{_BY_ITSELF} It counts as one of `train.max_failures`.",
        recovery="from the kill to the first step that had not been done before",
        rounds=1,
        limit_seconds=600,
        measure=raylet_in_training,
    ),
    Fault(
        name="drained-node",
        of_issue="drained node",
        title="A drained node in training (`ray drain-node`), killed when its time is up",
        happens="a checkpoint is written as soon as Ray says that the node will go; the ranks go on elsewhere",
        user=f"{_BY_ITSELF} It does not count as one of `train.max_failures`.",
        recovery="from the end of the node, after the checkpoint, to the first step that had not been done before",
        rounds=1,
        limit_seconds=600,
        measure=drained_in_training,
    ),
    Fault(
        name="last-node",
        of_issue="raylet",
        title="The last node that works is lost, and none comes",
        happens="the run waits `cluster.wait_minutes` for a node, then ends",
        user="The sentence below, and exit code 1. Add a node, and give the same command again.",
        recovery=f"from the loss to the end of the command, with `cluster.wait_minutes={PATIENCE_MINUTES}`",
        rounds=1,
        limit_seconds=600,
        measure=last_node,
    ),
)
