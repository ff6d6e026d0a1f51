"""A row that kills the process that handles it, every time."""

from __future__ import annotations

import copy
import json
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch

from benchmarks.reliability.commands import start
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    FEW,
    FEW_A_SHARD,
    SPLITS,
    compare_data,
    few_groups,
    leftovers,
    scoring_words,
    source,
    synthesis_words,
    undisturbed_scoring,
    undisturbed_synthesis,
)
from mapl_ray.data.records import GROUP_SCHEMA
from mapl_ray.data.shards import commit, iter_rows, read_manifest, write_part
from mapl_ray.models import load_tokenizer

POISON = "xylothrum"  # a word that does not occur in the data
END_SECONDS = 400.0
TOLERANCE = 1e-4  # tolerance of a score whose batch was halved
_MODULE = f"""\
import os, signal
from mapl_ray.instructions import instruction_function


@instruction_function(family="topic", check=lambda text, args: True, phrasings=lambda args: ["Write."])
def poisoned(case, rng):
    if any({POISON!r} in text.text for text, _ in case.flags):
        os.kill(os.getpid(), signal.SIGKILL)
    return None
"""


def poisoned_model(model: Path, folder: Path) -> Path:
    """A model copy whose tokenizer has one token more than the embedding has rows: vLLM accepts it and fails on it."""
    shutil.copytree(model, folder)
    tokenizer = copy.deepcopy(load_tokenizer(model))
    if tokenizer.add_tokens([POISON]) != 1:
        raise RuntimeError(f"{POISON!r} is a token of {model} already")
    tokenizer.save_pretrained(folder)
    return folder


def in_scoring(scene: Scene) -> Outcome:
    """A group of the held-out split makes every engine fail."""
    there, outcome, run = undisturbed_scoring(scene), Outcome(), few_groups(scene, scene.folder)
    model = poisoned_model(there / "model", scene.folder / "model")
    bad = _poison_one(run / "groups" / "eval")
    words = scoring_words(scene.folder, f"model.name_or_path={model}")
    began, command = time.monotonic(), start(words, scene.folder)
    outcome.check("the command ends with exit code 0", command.finish(END_SECONDS) == 0)
    outcome.seconds.append(time.monotonic() - began)
    rejected = [json.loads(line) for file in run.glob("scored/*/rejected-*.jsonl") for line in file.open()]
    outcome.check("the group is set aside with its reason, and it alone", [r["pair_id"] for r in rejected] == [bad])
    outcome.message = rejected[0]["reason"] if rejected else ""
    for split in SPLITS:
        expected, found = ({r["pair_id"]: r for r in iter_rows(one / "scored" / split)} for one in (there, run))
        outcome.check("the same set of ids but for it", found.keys() == expected.keys() - {bad})
        same = all(
            torch.allclose(
                torch.tensor(row["ref_logps"]), torch.tensor(expected[name]["ref_logps"]), rtol=0, atol=TOLERANCE
            )
            for name, row in found.items()
        )
        outcome.check(f"the others' scores are the undisturbed run's, within {TOLERANCE:g}", same)
    outcome.check("no half-written file is left", leftovers(run) == [])
    outcome.lost = f"1 group of {FEW}, named with its reason"
    return outcome


def in_synthesis(scene: Scene) -> Outcome:
    """A user's instruction function kills its process on one text; then the text is fixed."""
    outcome, folder = Outcome(), scene.folder
    lines = source(scene, FEW).read_text(encoding="utf-8").splitlines()
    bad = json.loads(lines[FEW // 2])
    bad["chosen"] += f" {POISON}"
    lines[FEW // 2] = json.dumps(bad)
    path, module = folder / "pairs.jsonl", folder / "killer.py"
    path.write_text("\n".join(lines), encoding="utf-8")
    module.write_text(_MODULE, encoding="utf-8")
    words = synthesis_words(scene, folder, pairs=FEW, rows_per_shard=FEW_A_SHARD)
    own = [f"synthesis.modules=[{module}]", "synthesis.functions=[poisoned]"]
    began, command = time.monotonic(), start([*words, f"data.path={path}", *own], folder)
    code = command.finish(END_SECONDS)
    outcome.seconds.append(time.monotonic() - began)
    outcome.check("the sentence names the part that the pair is in", _part_of(folder / "run") in command.message())
    outcome.message = command.message().replace(str(folder), "runs")
    outcome.check("exit code 1, with a sentence: tries are counted", code == 1 and "again and again" in outcome.message)
    outcome.check("nothing that a reader would take for groups", not list(folder.glob("run/groups/*/manifest.json")))
    code = start(words, folder).finish(300)
    outcome.check("without what kills, the command ends with exit code 0", code == 0)
    compare_data(outcome, undisturbed_synthesis(scene, FEW, FEW_A_SHARD), folder / "run", "pairs", "groups")
    outcome.lost = "the run, until the row or the function is fixed; finished parts are kept"
    return outcome


def _part_of(run: Path) -> str:
    """The location of the word, as text for a sentence."""
    for file in run.glob("pairs/*/part-*.parquet"):
        if POISON in str(pq.read_table(file).to_pylist()):
            return f"part {int(file.stem.removeprefix('part-'))} of {file.parent}"
    raise RuntimeError(f"{POISON!r} is in no part of {run}")


def _poison_one(folder: Path) -> str:
    """Put the word into a response of the first group; return the group's id."""
    manifest, rows = read_manifest(folder), list(iter_rows(folder))
    rows[0]["responses"][0] = f"a {POISON} in the garden"
    part = write_part(folder, 0, rows, [], GROUP_SCHEMA, "poisoned")
    commit(folder, manifest.stage, "poisoned", [part])
    return str(rows[0]["pair_id"])


FAULTS = (
    Fault(
        name="poison-scoring",
        of_issue="poison row",
        title="A group that kills its vLLM engine at every try",
        happens="its batch is halved until it stands alone; then it is set aside, and all others are scored",
        user=(
            "The count of rejected groups; `scored/*/rejected-*.jsonl` names the group with the reason below. An "
            "engine is lost at every halving and at two more tries."
        ),
        recovery="from the start of the command to its end, engines restarted in between",
        rounds=1,
        limit_seconds=900,
        measure=in_scoring,
    ),
    Fault(
        name="poison-synthesis",
        of_issue="poison row",
        title="A pair that kills its synthesis worker at every try",
        happens="the run ends after a few tries; no function of the project's own does this, a user's own may",
        user="The sentence below, and exit code 1. Fix the function or the row, and give the same command again.",
        recovery="from the start of the command to its end",
        rounds=1,
        limit_seconds=600,
        measure=in_synthesis,
    ),
)
