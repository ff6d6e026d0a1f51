"""Output of a search: a table of all trials, and configs of the best trial and of the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mapl_ray.config import RunConfig, Scalar, parse_config
from mapl_ray.config.searched import with_params
from mapl_ray.data.shards import write_atomically, write_json
from mapl_ray.tuning.objectives import MULTI, PREF, on_front
from mapl_ray.tuning.trial import Trial

_HISTORY = ("status", "error", "steps", "starts")
_NAME_ROOM = 58  # characters of the run's name to keep; a name has at most 64


def write_trials(output: Path, trials: Sequence[Trial], fingerprint: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Write `trials.json` and `trials.parquet`, best trial first; returns the rows. `names`: those in the space."""
    rows = _rows(trials)
    write_json(output / "trials.json", {"fingerprint": fingerprint, "space": list(names), "trials": rows})
    schema = _schema(rows, names)
    texts = {field.name for field in schema if field.type == pa.string()}
    flat = [
        {name: str(value) if name in texts and value is not None else value for name, value in _flat(row).items()}
        for row in rows
    ]
    table = pa.Table.from_pylist(flat, schema=schema)
    write_atomically(output / "trials.parquet", lambda aside: pq.write_table(table, aside, compression="zstd"))
    return rows


def best_config(config: RunConfig, params: dict[str, Scalar], suffix: str = "tuned") -> dict[str, Any]:
    """Build the run's config with a trial's values in the section of the tuned method.

    It has another run name, so that its models do not replace those of the run, and uses the run's data.
    """
    values = with_params(config, params).model_dump(mode="json")
    name = f"{config.name[: _NAME_ROOM - max(0, len(suffix) - 5)]}-{suffix}"
    values |= {"name": name, "data_run": config.data_run or config.name}
    parse_config(values, f"{suffix}.yaml")
    return values


def write_config(path: Path, values: dict[str, Any]) -> None:
    """Write a config as YAML, for `mapl train --config`."""
    text = yaml.safe_dump(values, sort_keys=False)
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_front(output: Path, config: RunConfig, rows: Sequence[dict[str, Any]]) -> list[Path]:
    """Write one config per trial on the Pareto front, such as `front/0003.yaml`; older ones are removed."""
    folder = output / "front"
    for stale in folder.glob("[0-9][0-9][0-9][0-9].yaml"):
        stale.unlink()
    paths = []
    for row in rows:
        if row["on_front"]:
            paths.append(folder / f"{row['trial_id']}.yaml")
            write_config(paths[-1], best_config(config, row["params"], f"tuned-{row['trial_id']}"))
    return paths


def _rows(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    measured = [trial for trial in trials if trial.objective is not None and trial.status != "failed"]
    flags = on_front([(trial.last[PREF], trial.last[MULTI]) for trial in measured])
    front = {trial.number for trial, flag in zip(measured, flags, strict=True) if flag}
    known = {trial.number for trial in measured}
    ranked = sorted(trials, key=lambda trial: (trial.number not in known, -(trial.objective or 0.0), trial.number))
    return [_row(trial, trial.number in known, trial.number in front) for trial in ranked]


def _row(trial: Trial, measured: bool, on_the_front: bool) -> dict[str, Any]:
    last = trial.last
    return {
        "trial_id": trial.name,
        "params": trial.params,
        "objective": trial.objective if measured else None,
        PREF: last.get(PREF),
        MULTI: last.get(MULTI),
        "on_front": on_the_front,
        "status": trial.status,
        "error": trial.error,
        "steps": trial.steps,
        "starts": trial.starts,
        "cost": asdict(trial.cost),
        "metrics": {name: value for name, value in last.items() if name.startswith("eval/")},
        "reports": [dict(report) for report in trial.reports],
        "moves": [dict(move) for move in trial.moves],
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Flatten a row to one level."""
    flat = {name: row[name] for name in ("trial_id", "objective", PREF, MULTI, "on_front", *_HISTORY)}
    flat |= {f"param/{name}": value for name, value in row["params"].items()}
    flat |= {f"cost/{name}": value for name, value in row["cost"].items()}
    return {**flat, **row["metrics"]}


def _schema(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> pa.Schema:
    text, number, whole = pa.string(), pa.float64(), pa.int64()
    fields = [("trial_id", text), ("objective", number), (PREF, number), (MULTI, number), ("on_front", pa.bool_())]
    fields += [("status", text), ("error", text), ("steps", whole), ("starts", whole)]
    fields += [(f"param/{name}", _kind([row["params"].get(name) for row in rows])) for name in names]
    fields += [(f"cost/{name}", number) for name in ("seconds", "worker_seconds", "gpu_seconds")]
    fields.append(("cost/groups", whole))
    return pa.schema([*fields, *((name, number) for name in sorted({n for row in rows for n in row["metrics"]}))])


def _kind(values: Sequence[Scalar]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return pa.int64() if kinds == {int} else pa.float64()
    return pa.bool_() if kinds == {bool} else pa.string()
