"""Intervals against scipy's. Run: pytest tests/test_intervals.py"""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from autoresearch.search.intervals import Interval, mean_interval, t_quantile, welch

FREEDOMS = [1, 1.5, 2, 2.7, 3, 7, 14, 29.4, 100, 1000, 12345.6, 1e6]


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("level", [0.6, 0.9, 0.975, 0.995])
def test_t_quantiles_are_those_of_scipy(freedom: float, level: float) -> None:
    assert t_quantile(freedom, level) == pytest.approx(stats.t.ppf(level, freedom), rel=1e-7)


def test_a_mean_has_the_t_interval() -> None:
    values = [6.1, 7.4, 5.9, 8.0, 6.6, 7.1, 6.8]
    found = mean_interval(values)
    error = stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / 7, scale=error)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-8)
    assert found.mean == pytest.approx(sum(values) / 7)
    assert found.samples == 7


def test_an_interval_of_scores_stays_within_0_and_10() -> None:
    assert mean_interval([9.9, 10.0, 9.0]).high == 10.0
    assert mean_interval([0.1, 0.0, 1.0]).low == 0.0


def test_one_value_alone_says_nothing() -> None:
    assert mean_interval([7.0]) == Interval(7.0, 0.0, 10.0, 1)


def test_equal_scores_claim_no_more_certainty_than_the_floor_allows() -> None:
    assert mean_interval([7.0] * 4).low == 7.0
    half = stats.t.ppf(0.975, 3) * 0.5 / 2
    found = mean_interval([7.0] * 4, floor=0.5)
    assert (found.low, found.high) == pytest.approx((7 - half, 7 + half))


def test_a_floor_below_the_deviation_changes_nothing() -> None:
    values = [5.0, 6.0, 8.0]
    assert mean_interval(values, floor=0.1) == mean_interval(values)
    assert welch(values, [1.0, 4.0], floor=0.1) == welch(values, [1.0, 4.0])


@pytest.mark.parametrize("sizes", [(2, 2), (3, 15), (15, 15), (60, 4)])
def test_differences_have_welchs_interval(sizes: tuple[int, int]) -> None:
    draw = random.Random(sizes[0])
    a = [draw.gauss(7, 1) for _ in range(sizes[0])]
    b = [draw.gauss(6, 0.3) for _ in range(sizes[1])]
    found = welch(a, b)
    known = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((known.low, known.high), rel=1e-7)
    assert found.mean == pytest.approx(sum(a) / len(a) - sum(b) / len(b))
    assert found.samples == min(sizes)


def test_a_difference_without_any_spread_is_exact() -> None:
    assert welch([7.0, 7.0], [5.0, 5.0, 5.0]) == Interval(2.0, 2.0, 2.0, 2)


def test_one_group_without_spread_leaves_the_other_ones_freedom() -> None:
    found = welch([7.0, 7.0, 7.0], [5.0, 6.0, 7.0, 8.0])
    half = stats.t.ppf(0.975, 3) * math.sqrt(5 / 3 / 4)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_the_interval_holds_the_truth_in_about_95_of_100_draws() -> None:
    draw = random.Random(1)
    drawn = [mean_interval([draw.gauss(5, 1) for _ in range(5)]) for _ in range(1000)]
    assert 930 <= sum(each.low <= 5 <= each.high for each in drawn) <= 970
