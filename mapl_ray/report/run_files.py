"""Read a run directory for the report. Missing parts are tolerated, so that an unfinished run has a report, too."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from mapl_ray.aside import is_aside
from mapl_ray.data.records import RelationGroup
from mapl_ray.data.shards import Manifest, iter_rows, json_lines, read_manifest, verify_part
from mapl_ray.errors import UserError
from mapl_ray.report.data_stats import function_names, sample_batches, sampled_parts

_EXAMPLES = 4
_CURVE_ROWS = 5_000  # rows kept of a metrics.jsonl; more than a plot needs
_DATA_SETS = ("pairs", "pair-judgements", "pair-rewards", "pairs-scored", "groups")


@dataclass(slots=True)
class DataSet:
    """One finished data set with counts of rejection reasons and functions."""

    name: str  # for example groups/train
    manifest: Manifest
    reasons: Counter[str] = field(default_factory=Counter)
    functions: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class RunFiles:
    """The parts of a run. Missing or unreadable parts are empty; `notes` lists the unreadable ones."""

    run_dir: Path
    evaluation: dict[str, Any] | None = None
    data_sets: list[DataSet] = field(default_factory=list)
    metrics: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # run name -> rows
    costs: dict[str, dict[str, Any]] = field(default_factory=dict)  # run name -> result.json
    trials: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_run(run_dir: Path, data_dir: Path | None = None) -> RunFiles:
    """Read everything below `run_dir`, with the data sets from `data_dir` if given.

    Raises `UserError` if `run_dir` does not exist.
    """
    if not run_dir.is_dir():
        raise UserError(f"{run_dir}: no such run directory. Run the pipeline first, or check name and output_dir.")
    files = RunFiles(run_dir)
    evaluation = _read_json(run_dir / "evaluation.json", files.notes)
    if isinstance(evaluation, dict):
        files.evaluation = evaluation
    for manifest in sorted((data_dir or run_dir).glob("*/*/manifest.json")):
        if manifest.parent.parent.name in _DATA_SETS and not is_aside(manifest.parent):
            _read_data_set(manifest.parent, files)
    for path in (path for path in sorted(run_dir.glob("*/metrics.jsonl")) if not is_aside(path.parent)):
        if rows := _sampled_lines(path):
            files.metrics[path.parent.name] = rows
    for path in (path for path in sorted(run_dir.glob("*/result.json")) if not is_aside(path.parent)):
        result = _read_json(path, files.notes)
        if isinstance(result, dict):
            files.costs[path.parent.name] = result
    tune = _read_json(run_dir / "tune" / "trials.json", files.notes)
    trials = tune.get("trials") if isinstance(tune, dict) else tune
    files.trials = [trial for trial in trials if isinstance(trial, dict)] if isinstance(trials, list) else []
    if files.evaluation and files.evaluation.get("examples"):
        files.examples = files.evaluation["examples"]
    return files


def finite_or_none(value: Any) -> float | None:
    """The value as float if it is a finite number; None for anything else, including bools, text and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def short(value: Any) -> str:
    """Format a number with four digits; anything else with `str`."""
    as_number = finite_or_none(value)
    if as_number is None:
        return "-" if value is None else str(value)
    return f"{as_number:,.0f}" if abs(as_number) >= 1000 or as_number.is_integer() else f"{as_number:.4g}"


def _read_data_set(directory: Path, files: RunFiles) -> None:
    name = f"{directory.parent.name}/{directory.name}"
    try:
        data_set = DataSet(name, read_manifest(directory, verify=False))
        for part in sampled_parts(data_set.manifest):  # checking all digests would take as long as reading all parts
            verify_part(directory, part)
    except UserError as error:
        files.notes.append(str(error))
        return
    for path in sorted(directory.glob("rejected-*.jsonl")):
        for row in _read_lines(path):
            data_set.reasons[f"{row.get('stage', '?')}: {_generalised(str(row.get('reason', '?')))}"] += 1
    if directory.parent.name == "groups":
        for batch in sample_batches(directory, data_set.manifest, ["instructions"]):
            data_set.functions.update(function_names(batch))
        first = islice(iter_rows(directory, data_set.manifest), _EXAMPLES - len(files.examples))
        files.examples += [{"group": RelationGroup.from_row(row).to_row(), "rewards": {}} for row in first]
    files.data_sets.append(data_set)


def _generalised(reason: str) -> str:
    """The reason without the row's values, so that equal reasons are counted together."""
    reason = re.sub(r"'[^']*'|\"[^\"]*\"|`[^`]*`", "'…'", reason)
    return re.sub(r"\d+(\.\d+)?", "n", reason)[:160]


def _read_json(path: Path, notes: list[str]) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} of {path.parent.name} could not be read: {error}")
        return None


def _sampled_lines(path: Path, most: int = _CURVE_ROWS) -> list[dict[str, Any]]:
    """All rows of `metrics.jsonl`; evenly spaced ones if there are more than 2 * `most`. Evaluations are separate."""
    kept: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    every, seen = {False: 1, True: 1}, {False: 0, True: 0}
    for row in _read_lines(path):
        evaluation = any(key.startswith("eval") for key in row)
        if seen[evaluation] % every[evaluation] == 0:
            kept[evaluation].append(row)
        seen[evaluation] += 1
        if len(kept[evaluation]) > 2 * most:
            kept[evaluation], every[evaluation] = kept[evaluation][::2], 2 * every[evaluation]
    return kept[False] + kept[True]


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    yield from (row for row in json_lines(path) if row is not None)
