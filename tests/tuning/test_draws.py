"""Draws, the Pareto front and a population's moves: pure, so checked without a trial."""

import math
import random

import pytest

from mapl_ray.config import Dimension
from mapl_ray.tuning import draw, next_moves, on_front
from mapl_ray.tuning.population import explore

SPACE = {
    "train.weights.lambda_intra": Dimension(loguniform=(0.1, 10.0)),
    "train.warmup_ratio": Dimension(uniform=(0.0, 0.5)),
    "train.weight_decay": Dimension(quniform=(0.1, 0.45, 0.1)),
    "train.micro_batch_size": Dimension(randint=(1, 4)),
    "train.schedule": Dimension(choice=("cosine", "linear")),
}


def test_draws_lie_in_their_ranges_and_reach_all_of_them() -> None:
    found = [draw(SPACE, 0, number) for number in range(400)]
    column = {name: [values[name] for values in found] for name in SPACE}
    assert set(column["train.weight_decay"]) == {0.1, 0.2, 0.3, 0.4}  # no dust, and no step beyond the end
    assert set(column["train.micro_batch_size"]) == {1, 2, 3}  # the end itself is left out
    assert set(column["train.schedule"]) == {"cosine", "linear"}
    assert all(0.1 <= value <= 10.0 for value in column["train.weights.lambda_intra"])
    assert all(0.0 <= value <= 0.5 for value in column["train.warmup_ratio"])
    # Log-uniform: half of the draws lie below the geometric middle, 1; uniform: below 0.25.
    assert 160 < sum(value < 1.0 for value in column["train.weights.lambda_intra"]) < 240
    assert 160 < sum(value < 0.25 for value in column["train.warmup_ratio"]) < 240


def test_a_draw_depends_on_number_and_seed_alone() -> None:
    assert draw(SPACE, 0, 7) == draw(SPACE, 0, 7)
    assert draw(SPACE, 0, 7) != draw(SPACE, 0, 8)
    assert draw(SPACE, 0, 7) != draw(SPACE, 1, 7)
    fewer = {name: SPACE[name] for name in list(SPACE)[1:]}  # a further name leaves the others as they were
    assert draw(fewer, 0, 7).items() <= draw(SPACE, 0, 7).items()


def test_points_of_the_grid_come_in_turn() -> None:
    grid = {
        "train.zero_stage": Dimension(grid=(0, 2)),
        "train.learning_rate": Dimension(loguniform=(1e-5, 1e-3)),
        "train.schedule": Dimension(grid=("cosine", "linear", "constant")),
    }
    found = [draw(grid, 0, number) for number in range(12)]
    points = [(values["train.zero_stage"], values["train.schedule"]) for values in found]
    assert points[:6] == [(stage, name) for stage in (0, 2) for name in ("cosine", "linear", "constant")]
    assert points[6:] == points[:6]
    assert len({values["train.learning_rate"] for values in found}) == 12


def test_the_front_by_hand() -> None:
    points = [(0.7, 0.5), (0.6, 0.6), (0.6, 0.5), (0.7, 0.5), (0.5, 0.6), (0.4, 0.7)]
    assert on_front(points) == [True, True, False, True, False, True]
    assert on_front([]) == []


def params_of(values: list[float]) -> dict[int, dict[str, object]]:
    return {number: {"train.learning_rate": value} for number, value in enumerate(values)}


RATE = {"train.learning_rate": Dimension(loguniform=(1e-6, 1e-2))}


def test_the_lowest_quarter_goes_on_from_the_highest() -> None:
    scores = dict(enumerate([0.5, 0.9, 0.1, 0.7, 0.8, 0.2, 0.3, 0.4]))
    params = params_of([10.0 ** -(3 + number / 4) for number in range(8)])
    moves = next_moves(scores, params, RATE, "0/10")
    assert {move.member for move in moves} == {2, 5}
    assert {move.donor for move in moves} <= {1, 4}
    for move in moves:
        old = params[move.donor]["train.learning_rate"]
        new = move.params["train.learning_rate"]
        assert new != old
        assert 1e-6 <= new <= 1e-2
    assert next_moves(scores, params, RATE, "0/10") == moves  # whoever asks, after whatever death
    seeds = {tuple(next_moves(scores, params, RATE, f"0/{step}")[0].params.items()) for step in range(20)}
    assert len(seeds) > 10


def test_who_does_not_move() -> None:
    assert next_moves({0: 0.5}, params_of([1e-3]), RATE, "s") == []
    assert next_moves({0: 0.5, 1: 0.5, 2: 0.5}, params_of([1e-3] * 3), RATE, "s") == []  # nobody is better
    (move,) = next_moves({0: 0.5, 3: 0.6}, params_of([1e-3] * 4), RATE, "s")
    assert (move.member, move.donor) == (0, 3)  # half of two, not a quarter


def test_explored_values_stay_in_their_dimension() -> None:
    space = {**SPACE, "train.beta": Dimension(choice=(0.1, 0.2, 0.4))}
    start = {**draw(SPACE, 0, 0), "train.beta": 0.4}
    found = [explore(start, space, random.Random(number)) for number in range(200)]
    assert {values["train.beta"] for values in found} == {0.1, 0.2, 0.4}  # above 0.4 is nothing; 0.1 is drawn anew
    assert {values["train.micro_batch_size"] for values in found} == {1, 2, 3}
    assert {values["train.weight_decay"] for values in found} <= {0.1, 0.2, 0.3, 0.4}
    ratios = [values["train.weights.lambda_intra"] / start["train.weights.lambda_intra"] for values in found]
    changed = [ratio for ratio in ratios if math.isclose(ratio, 0.8) or math.isclose(ratio, 1.2)]
    assert 120 < len(changed) < 180  # three of four are changed, the fourth is drawn anew


@pytest.mark.parametrize(("value", "low"), [(1e-6, 1e-6), (1e-2, 1e-6)])
def test_changes_end_at_the_bounds(value: float, low: float) -> None:
    found = {explore({"train.learning_rate": value}, RATE, random.Random(n))["train.learning_rate"] for n in range(50)}
    assert value in found
    assert all(1e-6 <= one <= 1e-2 for one in found)
