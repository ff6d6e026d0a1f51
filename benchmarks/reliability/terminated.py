"""SIGTERM to the command, as a scheduler sends it before it takes the machine away."""

from __future__ import annotations

import signal
import time

from benchmarks.reliability.commands import Command, start, wait_until
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
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
)

END_SECONDS = 60.0
SENTENCE = "mapl: interrupted; finished work is kept: run the same command again to go on"


def all_stages(scene: Scene) -> Outcome:
    """Terminate each stage once in the middle, then run the same command again."""
    outcome = Outcome()
    folder = scene.folder / "synthesis"
    there, words = undisturbed_synthesis(scene), synthesis_words(scene, folder)
    command = start(words, folder)
    wait_until(lambda: parts(folder / "run", "groups") >= 20, command)
    _terminate(outcome, command)
    outcome.check("the same command, given again, ends with exit code 0", start(words, folder).finish(300) == 0)
    compare_data(outcome, there, folder / "run", "pairs", "groups")

    folder = scene.folder / "scoring"
    there, words, run = undisturbed_scoring(scene), scoring_words(folder), few_groups(scene, folder)
    command = start(words, folder)
    wait_until(lambda: batches(run) >= 5, command)
    _terminate(outcome, command)
    outcome.check("the same command, given again, ends with exit code 0", start(words, folder).finish(300) == 0)
    compare_data(outcome, there, run, "scores/ref_logps", "scored")

    folder = scene.folder / "training"
    there, words, run = undisturbed_training(scene), training_words(folder), few_groups(scene, folder)
    command = start(words, folder)
    wait_until(lambda: steps_done(run) >= 2, command)
    _terminate(outcome, command)
    at = steps_done(run)
    outcome.check("the same command, given again, ends with exit code 0", start(words, folder).finish(300) == 0)
    lost = at - resumed_step(run)
    outcome.check("training loses no step", lost == 0)
    compare_weights(outcome, there, run)
    outcome.lost = f"the parts or batches in hand; of training {lost} of {STEPS} steps"
    return outcome


def _terminate(outcome: Outcome, command: Command) -> None:
    outcome.check("the signal came before the end", command.process.poll() is None)
    family, began = command.family, time.monotonic()
    command.process.send_signal(signal.SIGTERM)
    code = command.finish(END_SECONDS)
    outcome.seconds.append(time.monotonic() - began)
    outcome.message = command.message()
    outcome.check(f"exit code 130 within {END_SECONDS:.0f} s, with a sentence", code == 130)
    outcome.check(f"exit code 130 within {END_SECONDS:.0f} s, with a sentence", outcome.message == SENTENCE)
    wait_until(lambda: not any(member.is_running() for member in family), None, END_SECONDS)


FAULTS = (
    Fault(
        name="sigterm",
        of_issue="SIGTERM",
        title="SIGTERM to the command, in synthesis, scoring and training",
        happens="training writes a checkpoint after the current step; all leave with exit code 130",
        user="The sentence below. Give the same command again.",
        recovery="from the signal to the end of the command, one stage after the other",
        rounds=1,
        limit_seconds=900,
        measure=all_stages,
    ),
)
