"""The section on a search: its plots from the rows of trials.json, and what it makes of rows that hold less."""

import itertools
import re
from typing import Any

import pytest

from mapl_ray.report.tuning_charts import Axis, pareto
from mapl_ray.report.tuning_section import rank_correlation, tuning_section

NAMES = ("pref accuracy", "multi-instruction accuracy")


def row(number: int, rate: float, pref: float, multi: float, **more: Any) -> dict[str, Any]:
    accuracies = {"objective": (pref + multi) / 2, "pref_accuracy": pref, "multi_accuracy": multi}
    cost = {"seconds": 12.5, "worker_seconds": 25.0, "gpu_seconds": 0.0, "groups": 160}
    params = {"train.learning_rate": rate, "train.schedule": "linear"}
    return {"trial_id": f"{number:04d}", "params": params, **accuracies, "status": "finished", "cost": cost, **more}


def test_axes_by_hand() -> None:
    log = Axis.of("rate", [1e-5, 1e-3])
    assert (log.kind, log.places) == ("log", [-5.0, -3.0])
    assert log.marks() == [(-5.0, "1e-05"), (-4.0, "0.0001"), (-3.0, "0.001")]
    linear = Axis.of("ratio", [0, 0.5])  # no logarithm of nothing
    assert (linear.kind, linear.places, linear.marks()) == ("linear", [0.0, 0.5], None)
    names = Axis.of("schedule", ["linear", None, "cosine"])
    assert (names.kind, names.places) == ("names", [2.0, 0.0, 1.0])
    assert names.marks() == [(0.0, "None"), (1.0, "cosine"), (2.0, "linear")]


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3], [1, 10, 100]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    # Ranks 0, 1.5, 1.5, 3 and 0, 1, 2, 3: covariance 4.5 over the root of 4.5 * 5.
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation([1, 1], [1, 2]) is None


def test_the_front_is_a_staircase_that_falls_to_the_right() -> None:
    plot = pareto([(0.7, 0.6, True, "b"), (0.6, 0.7, True, "a"), (0.6, 0.6, False, "c")], NAMES)
    line = re.search(r'<polyline points="([^"]*)"', plot)
    assert line is not None
    points = [tuple(map(float, pair.split(","))) for pair in line[1].split()]
    assert len(points) == 5  # from the left, a, down, b, to the ground
    assert all(x <= right and y <= below for (x, y), (right, below) in itertools.pairwise(points))
    assert plot.count("mark s0") == 2
    assert plot.count("mark s6") == 1


def test_every_plot_is_there_and_costs_are_told() -> None:
    rows = [row(0, 1e-3, 0.7, 0.6, on_front=True), row(1, 1e-4, 0.6, 0.5), row(2, 1e-5, 0.5, 0.4)]
    found = tuning_section(rows)
    assert found is not None
    assert re.findall(r"<h3>(.*?)</h3>", found) == [
        "Pareto front", "All values of all trials", "Sensitivity", "Trials and their cost",
    ]  # fmt: skip
    assert "All 3 trials together took 37.5 s, 75 worker s, 480 groups." in found
    assert "trial 0000, train.learning_rate 0.001, train.schedule linear, objective 0.65, 12.5 s" in found
    assert "<figcaption>train.learning_rate: rank correlation +1.00</figcaption>" in found
    assert "<figcaption>train.schedule" not in found  # the same in every trial
    assert "GPU s" not in found  # none was used
    moved = tuning_section([*rows, row(3, 1e-3, 0.5, 0.4, moves=[{"step": 5, "from": 1}])])
    assert moved is not None
    assert "<h3>Copied checkpoints</h3>" in moved


@pytest.mark.parametrize(
    "rows",
    [
        [{"params": {"lambda_intra": 0.5}, "objective": 0.5}, {"params": {"lambda_intra": 1.5}, "objective": 0.6}],
        [{"params": None, "objective": "bad", "cost": 3, "moves": ["x"]}],
        [{"trial_id": "a", "params": {"x": float("nan")}, "objective": 0.5, "pref_accuracy": "<b>"}, {}],
    ],
)
def test_rows_of_earlier_releases_and_damaged_ones_are_shown(rows: list[dict[str, Any]]) -> None:
    found = tuning_section(rows)
    assert found is not None
    assert "<h3>Trials and their cost</h3>" in found
    assert "<b>" not in found
