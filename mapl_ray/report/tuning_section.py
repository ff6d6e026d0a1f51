"""The report's section on a search: trials with their values, results and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mapl_ray.report.markup import Markup, el, join, table
from mapl_ray.report.run_files import finite_or_none, short
from mapl_ray.report.svg import legend
from mapl_ray.report.tuning_charts import BEHIND, FRONT, THIRDS, Axis, parallel, pareto, sensitivity

_COSTS = {"seconds": "s", "worker_seconds": "worker s", "gpu_seconds": "GPU s", "groups": "groups"}
_OBJECTIVES = {"pref_accuracy": "pref", "multi_accuracy": "multi"}
_FEWEST = 3  # trials needed to report a rank correlation


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    params: dict[str, Any]
    objective: float | None
    pref: float | None
    multi: float | None
    trial: Mapping[str, Any]
    cost: Mapping[str, Any]

    def said(self) -> str:
        """The text of a tooltip."""
        found = [f"trial {self.name}", *(f"{key} {short(value)}" for key, value in self.params.items())]
        found += [f"objective {short(self.objective)}"]
        found += [
            f"{short(self.cost[key])} {unit}" for key, unit in _COSTS.items() if finite_or_none(self.cost.get(key))
        ]
        return ", ".join(found)


def tuning_section(trials: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Pareto front, parallel coordinates, sensitivities, and a table of trials from best to worst with their cost."""
    rows = sorted((_row(index, trial) for index, trial in enumerate(trials)), key=_order, reverse=True)
    if not rows:
        return None
    measured = [row for row in rows if row.objective is not None]
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    parts: list[Markup] = [_note(rows)]
    if figure := _front(measured):
        parts += [el("h3", "Pareto front"), figure]
    complete = [row for row in measured if all(name in row.params for name in names)]
    if figure := _parallel(complete, names):
        parts += [el("h3", "All values of all trials"), figure]
    if figures := _sensitivities(measured, names):
        parts += [el("h3", "Sensitivity"), el("div", *figures, class_="panels")]
    parts += [el("h3", "Trials and their cost"), _table(rows, names), *_moves(rows)]
    return join(parts)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, with average ranks for ties; None if one side is constant."""
    a, b = _ranks(x), _ranks(y)
    if a.std() == 0.0 or b.std() == 0.0:
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _row(index: int, trial: Mapping[str, Any]) -> _Row:
    params, cost = trial.get("params") or trial.get("config"), trial.get("cost")
    return _Row(
        name=str(trial.get("trial_id", index)),
        params=params if isinstance(params, dict) else {},
        objective=finite_or_none(trial.get("objective")),
        pref=finite_or_none(trial.get("pref_accuracy")),
        multi=finite_or_none(trial.get("multi_accuracy")),
        trial=trial,
        cost=cost if isinstance(cost, dict) else {},
    )


def _order(row: _Row) -> float:
    return float("-inf") if row.objective is None else row.objective


def _note(rows: Sequence[_Row]) -> Markup:
    sums = {key: sum(finite_or_none(row.cost.get(key)) or 0.0 for row in rows) for key in _COSTS}
    cost = ", ".join(f"{short(round(value, 1))} {_COSTS[key]}" for key, value in sums.items() if value)
    in_all = f" All {len(rows)} trials together took {cost}." if cost else ""
    return el(
        "p",
        "Objective: the weighted mean of the held-out level accuracies; higher is better, the best is ringed. "
        "multi: the mean of intra and inter accuracy." + in_all,
    )


def _front(rows: Sequence[_Row]) -> Markup | None:
    points = [  # best first, like the rows
        (row.pref, row.multi, row.trial.get("on_front") is True, row.said())
        for row in rows
        if row.pref is not None and row.multi is not None
    ]
    if not any(point[2] for point in points):
        return None
    names = ("pref accuracy", "multi-instruction accuracy")
    key = legend(["on the front: no trial is better in both", "others"], [FRONT, BEHIND])
    return join([key, el("div", el("figure", pareto(points, names)), class_="panels")])


def _parallel(rows: Sequence[_Row], names: Sequence[str]) -> Markup | None:
    axes = [axis for axis in (Axis.of(name, [row.params[name] for row in rows]) for name in names) if _varies(axis)]
    if len(rows) < 2 or not axes:
        return None
    objectives = [row.objective for row in rows]
    thirds = [min(index * 3 // len(rows), 2) for index in range(len(rows))]  # rows are sorted, best first
    shown = [*axes, Axis.of("objective", objectives)]
    key = legend(["best third", "middle third", "last third"], list(THIRDS))
    figure = el("figure", parallel(shown, thirds, 0, [row.said() for row in rows]))
    return join([key, el("div", figure, class_="panels")])


def _sensitivities(rows: Sequence[_Row], names: Sequence[str]) -> list[Markup]:
    figures = []
    for name in names:
        found = [row for row in rows if name in row.params]
        axis = Axis.of(name, [row.params[name] for row in found]) if found else None
        if axis is None or not _varies(axis):
            continue
        objectives = [row.objective or 0.0 for row in found]
        rho = None if axis.kind == "names" or len(found) < _FEWEST else rank_correlation(axis.places, objectives)
        caption = name if rho is None else f"{name}: rank correlation {rho:+.2f}"
        plot = sensitivity(axis, objectives, [row.said() for row in found])
        figures.append(el("figure", el("figcaption", caption), plot))
    return figures


def _varies(axis: Axis) -> bool:
    return len({str(value) for value in axis.values}) > 1


def _table(rows: Sequence[_Row], names: Sequence[str]) -> Markup:
    costs = [key for key in _COSTS if any(finite_or_none(row.cost.get(key)) for row in rows)]
    objectives = [key for key in _OBJECTIVES if any(finite_or_none(row.trial.get(key)) is not None for row in rows)]
    head = ["trial", *names, "objective", *(_OBJECTIVES[key] for key in objectives), "front", "steps"]
    cells = [
        [
            row.name,
            *(short(row.params.get(name)) for name in names),
            short(row.objective),
            *(short(finite_or_none(row.trial.get(key))) for key in objectives),
            "yes" if row.trial.get("on_front") is True else "",
            short(finite_or_none(row.trial.get("steps"))),
            *(short(None if (cost := finite_or_none(row.cost.get(key))) is None else round(cost, 1)) for key in costs),
            short(row.trial.get("status")),
        ]
        for row in rows
    ]
    return table([*head, *(_COSTS[key] for key in costs), "status"], cells)


def _moves(rows: Sequence[_Row]) -> list[Markup]:
    """The checkpoints that trials copied from each other under PBT."""
    found = []
    for row in rows:
        moves = row.trial.get("moves")
        for move in moves if isinstance(moves, list) else []:
            if isinstance(move, dict):
                found.append([row.name, short(move.get("step")), f"{int(finite_or_none(move.get('from')) or 0):04d}"])
    if not found:
        return []
    return [el("h3", "Copied checkpoints"), table(["trial", "after step", "from trial"], sorted(found))]


def _ranks(values: Sequence[float]) -> Any:
    found = np.asarray(values, dtype=float)
    return np.array([(found < value).sum() + ((found == value).sum() - 1) / 2 for value in found])
