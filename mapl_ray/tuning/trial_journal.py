"""The journal of a search: one folder per trial, written before the trial starts and after every change.

    tune/search.json                 fingerprint of the search
    tune/trials/0003/trial.json      `Trial`
    tune/trials/0003/run-0/          its training: metrics.jsonl, checkpoints/
                     run-0/done.json, failure.json   written by the trial when it ends

It has all values, reports and checkpoints, so a killed search resumes from it, without any state of Ray Tune.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mapl_ray.aside import is_aside, set_aside
from mapl_ray.awaited import list_again
from mapl_ray.data.shards import json_lines, write_json
from mapl_ray.errors import first_line
from mapl_ray.tuning.objectives import values_of
from mapl_ray.tuning.trial import Trial

DONE, FAILURE = "done.json", "failure.json"


class TrialJournal:
    """The trials of one search, in memory and on disk."""

    def __init__(self, output: Path, weights: dict[str, float]) -> None:
        """Read existing trials; one with a damaged `trial.json` is set aside. `weights`: of the objective, by level."""
        self.output, self._weights = output, weights
        self.trials: dict[int, Trial] = {}
        for path in sorted((output / "trials").glob("*/trial.json")):
            if is_aside(path.parent):
                continue
            try:
                trial = Trial.from_json(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                set_aside(path.parent, f"its trial.json is damaged ({first_line(error)}) and the trial is run again")
                continue
            self.trials[trial.number] = trial

    @classmethod
    def of_search(cls, output: Path, fingerprint: str, weights: dict[str, float]) -> TrialJournal:
        """Open the journal of the search with this fingerprint. That of another search is set aside, with a message."""
        mark = output / "search.json"
        if output.is_dir() and _mark(mark) != fingerprint and any(output.iterdir()):
            set_aside(output, "of a search with other settings or data")
        write_json(mark, {"fingerprint": fingerprint})
        return cls(output, weights)

    def folder(self, trial: Trial) -> Path:
        """Folder of a trial's training."""
        return self.output / "trials" / trial.name / f"run-{trial.run}"

    def put(self, trial: Trial) -> Trial:
        """Write a trial's `trial.json`."""
        write_json(self.output / "trials" / trial.name / "trial.json", trial.to_json())
        self.trials[trial.number] = trial
        return trial

    def refreshed(self, trial: Trial) -> Trial:
        """Update a trial from the files in its folder: evaluations, and whether it finished or failed."""
        folder = self.folder(trial)
        list_again(folder)
        trial = trial.with_reports([{**row, **values_of(row, self._weights)} for row in _evaluations(folder)])
        if (failure := _read(folder / FAILURE)) is not None:
            return replace(trial, status="failed", error=str(failure.get("text")))
        done = _read(folder / DONE) or {}
        return replace(trial, status="finished") if done.get("steps", 0) >= done.get("total_steps", 1) else trial

    def begun(self, trial: Trial) -> Trial:
        """Record that a trial is about to start, and clear its last failure."""
        (self.folder(trial) / FAILURE).unlink(missing_ok=True)
        return self.put(replace(trial, status="running", error=None, starts=trial.starts + 1))

    def reached(self, trial: Trial) -> int:
        """Step from which a member of a population continues: that of its last stop, or of the checkpoint it copied."""
        done = _read(self.folder(trial) / DONE) or {}
        return max(int(done.get("steps", 0)), int(trial.moves[-1]["step"]) if trial.moves else 0)

    def in_order(self) -> list[Trial]:
        """Trials, sorted by number."""
        return [self.trials[number] for number in sorted(self.trials)]


def _evaluations(folder: Path) -> list[dict[str, float]]:
    """Read step and held-out metrics from the rows of `metrics.jsonl` that have held-out metrics."""
    found = []
    for row in json_lines(folder / "metrics.jsonl"):
        if row is None or not isinstance(row.get("step"), int | float):
            continue
        held_out = {name: float(value) for name, value in row.items() if name.startswith("eval/")}
        if held_out:
            found.append({"step": float(row["step"]), **held_out})
    return found


def _mark(path: Path) -> str | None:
    found = _read(path)
    return None if found is None else str(found.get("fingerprint"))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
