"""Truncated input: a compressed file, and a line of JSON."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

from benchmarks.reliability.commands import run, start
from benchmarks.reliability.fault import Fault, Outcome, Scene
from benchmarks.reliability.runs import (
    FEW,
    FEW_A_SHARD,
    SPLITS,
    leftovers,
    source,
    synthesis_words,
    undisturbed_synthesis,
)
from mapl_ray.data.shards import iter_rows

END_SECONDS = 60.0


def cut_archive(scene: Scene) -> Outcome:
    """A gzip file without its second half, later replaced by the complete file."""
    there, outcome = undisturbed_synthesis(scene, FEW, FEW_A_SHARD), Outcome()
    whole = gzip.compress(source(scene, FEW).read_bytes())
    path = scene.folder / source(scene, FEW).with_suffix(".jsonl.gz").name
    path.write_bytes(whole[: len(whole) // 2])
    words = [*_words(scene), f"data.path={path}"]
    began, command = time.monotonic(), start(words, scene.folder)
    code = command.finish(END_SECONDS * 3)
    outcome.seconds.append(time.monotonic() - began)
    outcome.message = command.message().replace(str(scene.folder), "data")
    outcome.check("exit code 2, with a sentence that names the file", code == 2 and path.name in outcome.message)
    outcome.check("nothing that a reader would take for data", not list(scene.folder.rglob("manifest.json")))
    outcome.check("no half-written file is left", leftovers(scene.folder / "run") == [])
    path.write_bytes(whole)
    run(words, scene.folder)
    _compare_rows(outcome, there, scene.folder / "run")
    outcome.lost = "nothing: no data is made of half a file"
    return outcome


def cut_line(scene: Scene) -> Outcome:
    """The last line is truncated: only this line is rejected, and the rejection is reported."""
    there, outcome = undisturbed_synthesis(scene, FEW, FEW_A_SHARD), Outcome()
    lines = source(scene, FEW).read_text(encoding="utf-8").splitlines()
    gone = json.loads(lines[-1])["id"]
    path = scene.folder / source(scene, FEW).name
    path.write_text("\n".join([*lines[:-1], lines[-1][: len(lines[-1]) // 2]]), encoding="utf-8")
    began, command = time.monotonic(), start([*_words(scene), f"data.path={path}"], scene.folder)
    outcome.check("exit code 0: the other rows are used", command.finish(END_SECONDS * 3) == 0)
    outcome.seconds.append(time.monotonic() - began)
    here = scene.folder / "run"
    rejected = [json.loads(line) for file in here.glob("pairs/*/rejected-*.jsonl") for line in file.open()]
    outcome.check("the line is among the rejected rows, with its number and reason", len(rejected) == 1)
    outcome.message = rejected[0]["reason"] if rejected else ""
    outcome.check("the line is among the rejected rows, with its number and reason", f"line {FEW}" in outcome.message)
    _compare_rows(outcome, there, here, without=gone)
    outcome.check("no half-written file is left", leftovers(here) == [])
    outcome.lost = f"1 of {FEW} rows, counted and named"
    return outcome


def _words(scene: Scene) -> list[str]:
    return synthesis_words(scene, scene.folder, pairs=FEW, rows_per_shard=FEW_A_SHARD)


def _compare_rows(outcome: Outcome, there: Path, here: Path, without: str = "") -> None:
    """Compare row by row: records contain the file name, so file digests differ."""

    def rows(run: Path, split: str) -> dict[str, object]:
        found = list(iter_rows(run / "groups" / split))
        by_id = {row["pair_id"]: {**row, "source": ""} for row in found}
        outcome.check("no id twice", len(by_id) == len(found))
        return by_id

    for split in SPLITS:
        expected = {name: row for name, row in rows(there, split).items() if name != without}
        outcome.check("every other group is that of the undisturbed run", rows(here, split) == expected)


FAULTS = (
    Fault(
        name="truncated-gzip",
        of_issue="truncated input",
        title="A gzip file that ends in its middle",
        happens="the run stops before any data is made of it",
        user="The sentence below. Copy the file again, and give the same command.",
        recovery="from the start of the command to its end",
        rounds=1,
        limit_seconds=300,
        measure=cut_archive,
    ),
    Fault(
        name="truncated-line",
        of_issue="truncated input",
        title="A JSON line that ends in its middle",
        happens="the line is left out, all others are used",
        user=(
            "The count of rejected rows. `pairs/train/rejected-*.jsonl` holds the line's number and the reason below; "
            "fix the line and give the same command to have it too."
        ),
        recovery="from the start of the command to its end, all data made",
        rounds=1,
        limit_seconds=300,
        measure=cut_line,
    ),
)
