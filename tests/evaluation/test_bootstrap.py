"""Intervals resample prompts: the items of a prompt move together."""

import numpy as np
import pytest

from mapl_ray.evaluation.bootstrap import estimate, p_value


def test_duplicates_of_a_prompt_move_together():
    # 4 prompts with 100 equal items each, two all right and two all wrong. Resampling prompts, the mean is
    # Binomial(4, 1/2) / 4; P(0) = P(1) = 1/16 > 2.5 %, so the interval is [0, 1]. Resampling the 400 rows it
    # would be 0.5 +- 1.96 * sqrt(0.25 / 400) = [0.45, 0.55].
    values = np.repeat([1.0, 1.0, 0.0, 0.0], 100)
    by_prompt = estimate(values, np.repeat([0, 1, 2, 3], 100), samples=2000, seed=0)
    assert (by_prompt["low"], by_prompt["high"]) == (0.0, 1.0)
    assert (by_prompt["count"], by_prompt["prompts"]) == (400, 4)
    by_row = estimate(values, np.arange(400), samples=2000, seed=0)
    assert by_row["low"] == pytest.approx(0.451, abs=0.015)
    assert by_row["high"] == pytest.approx(0.549, abs=0.015)


def test_prompts_of_unequal_size_weigh_by_their_items():
    # Prompt 0: one item, right; prompt 1: three items, wrong. The mean is over items, 1/4.
    assert estimate(np.array([1.0, 0, 0, 0]), np.array([0, 1, 1, 1]), 10, 0)["value"] == 0.25


def test_same_seed_same_interval():
    values, prompts = np.tile([1.0, 0.0, 0.0], 30), np.arange(90)
    assert estimate(values, prompts, 300, 7) == estimate(values, prompts, 300, 7)
    assert p_value(values, prompts, 300, 7) == p_value(values, prompts, 300, 7)


@pytest.mark.parametrize(("prompts", "samples"), [([5, 5], 100), ([0, 1], 0)])
def test_no_interval_where_none_can_be_had(prompts, samples):
    result = estimate(np.array([1.0, 0.0]), np.array(prompts), samples, 0)
    assert (result["value"], result["low"], result["high"]) == (0.5, None, None)
    assert p_value(np.array([1.0, 0.0]), np.array(prompts), samples, 0) is None


def test_no_items_no_estimate():
    assert estimate(np.array([]), np.array([], dtype=np.int64), 10, 0) is None
