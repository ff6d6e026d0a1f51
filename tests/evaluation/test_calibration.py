"""Calibration and paired tests against numbers derived by hand."""

import math

import numpy as np
import pytest

from mapl_ray.evaluation.calibration import calibration
from mapl_ray.evaluation.paired import mcnemar_exact, paired_difference


def test_calibration_error_by_hand() -> None:
    # sigmoid(log 4) = 0.8: four relations, three right. sigmoid(log 1.5) = 0.6: two, both right.
    margins = [math.log(4)] * 3 + [-math.log(4)] + [math.log(1.5)] * 2
    found = calibration(np.array(margins))
    # (4 * |0.75 - 0.8| + 2 * |1 - 0.6|) / 6
    assert found["ece"] == pytest.approx((4 * 0.05 + 2 * 0.4) / 6)
    assert [(one["count"], one["accuracy"]) for one in found["bins"]] == [(2, 1.0), (4, 0.75)]
    assert [one["confidence"] for one in found["bins"]] == [pytest.approx(0.6), pytest.approx(0.8)]
    assert found["confidence"] == pytest.approx((4 * 0.8 + 2 * 0.6) / 6)


def test_the_ends_of_the_scale() -> None:
    found = calibration(np.array([0.0, 1e4, -1e4]))  # a tie is sure to 1/2 and wrong; the others are sure to 1
    assert [(one["low"], one["count"], one["accuracy"]) for one in found["bins"]] == [
        (0.5, 1, 0.0),
        (pytest.approx(0.95), 2, 0.5),
    ]
    assert found["ece"] == pytest.approx((0.5 + 2 * 0.5) / 3)


def test_mcnemar_by_hand() -> None:
    # 1 against 5 of 6: 2 * (C(6, 0) + C(6, 1)) / 2^6 = 14 / 64.
    assert mcnemar_exact(1, 5) == mcnemar_exact(5, 1) == pytest.approx(14 / 64)
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(4, 4) == 1.0
    binomtest = pytest.importorskip("scipy.stats").binomtest
    assert mcnemar_exact(2800, 3000) == pytest.approx(binomtest(2800, 5800).pvalue, rel=1e-6)


def test_differences_know_who_was_right_alone() -> None:
    first, second = np.array([1.0, 1.0, 1.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0, 0.0])
    found = paired_difference(first, second, np.arange(5), samples=50, seed=0)
    assert (found["only_model"], found["only_baseline"]) == (3, 1)
    assert found["mcnemar_p"] == mcnemar_exact(3, 1)
    assert found["accuracy"]["value"] == pytest.approx(0.4)
    shares = paired_difference(first / 2, second, np.arange(5), samples=50, seed=0)  # of several comparisons a row
    assert shares["mcnemar_p"] is None
    assert paired_difference(np.empty(0), np.empty(0), np.empty(0, dtype=np.int64), 50, 0) is None
