"""Intervals against scipy's. Run: pytest tests/test_intervals.py"""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from autoresearch.search.intervals import (
    Interval,
    binomial,
    pseudo_paired,
    student,
    t_quantile,
    welch,
)

SCORES = (0.0, 10.0)
FREEDOMS = [1, 1.5, 2, 2.7, 3, 7, 14, 29.4, 100, 1000, 12345.6, 1e6]


@pytest.mark.parametrize("freedom", FREEDOMS)
@pytest.mark.parametrize("level", [0.6, 0.9, 0.975, 0.995])
def test_t_quantiles_are_those_of_scipy(freedom: float, level: float) -> None:
    assert t_quantile(freedom, level) == pytest.approx(stats.t.ppf(level, freedom), rel=1e-7)


def test_without_earlier_knowledge_it_is_students_interval() -> None:
    values = [6.1, 7.4, 5.9, 8.0, 6.6, 7.1, 6.8]
    found = student([values], None, SCORES)
    low, high = stats.t.interval(0.95, 6, loc=sum(values) / 7, scale=stats.sem(values))
    assert found.low == pytest.approx(low) and found.high > high  # its longer tail is above
    even = student([[5.0, 6.0, 7.0]], None, SCORES)
    low, high = stats.t.interval(0.95, 2, loc=6, scale=1 / math.sqrt(3))
    assert (even.low, even.high) == pytest.approx((low, high))
    assert found.mean == pytest.approx(sum(values) / 7)


def test_within_groups_only_what_varies_around_their_own_means_counts() -> None:
    apart = student([[2.0, 2.4], [8.0, 8.4], [5.0, 5.4]], None, SCORES)
    half = stats.t.ppf(0.975, 3) * 0.2 * math.sqrt(2) / math.sqrt(6)
    assert (apart.low, apart.high) == pytest.approx((apart.mean - half, apart.mean + half))


def test_a_variance_seen_before_widens_what_a_lucky_handful_shows() -> None:
    handful = [8.0, 8.1, 8.0, 8.1]
    alone, known = student([handful], None, SCORES), student([handful], 1.0, SCORES)
    assert known.high - known.low > 3 * (alone.high - alone.low)
    one = student([[7.0]], 1.0, SCORES)
    assert 0 < one.low < 7 < one.high < 10


def test_intervals_stay_within_their_bounds_and_never_collapse() -> None:
    assert student([[9.9, 10.0, 9.0]], None, SCORES).high == 10.0
    assert student([[0.1, 0.0, 1.0]], None, SCORES).low == 0.0
    assert student([[7.0]], None, SCORES) == Interval(7.0, 0.0, 10.0)
    for found in (
        student([[10.0] * 9], 0.0, SCORES),
        binomial([10.0] * 9, SCORES),
        pseudo_paired([0.0] * 9, 10.0),
        pseudo_paired([10.0] * 9, 10.0),
    ):
        assert -10 <= found.low < found.mean <= found.high <= 10


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 12, 30, 60])
def test_the_binomial_interval_holds_for_every_true_share_and_is_narrow(n: int) -> None:
    """At most 1.2 times as wide as Wilson's, which holds in 83 % of nights at .97 of 5."""
    found = [binomial([10.0] * k + [0.0] * (n - k), SCORES) for k in range(n + 1)]
    for share in (0.5, 0.61, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99):
        weights = stats.binom.pmf(range(n + 1), n, share)
        holds = [i.low <= 10 * share + 1e-9 and 10 * share <= i.high + 1e-9 for i in found]
        assert sum(weights[holds]) >= 0.95 - 1e-9
        width = sum(w * (i.high - i.low) / 10 for w, i in zip(weights, found, strict=True))
        wilson = [stats.binomtest(k, n).proportion_ci(method="wilson") for k in range(n + 1)]
        known = sum(w * (i.high - i.low) for w, i in zip(weights, wilson, strict=True))
        assert width <= 1.2 * known


def test_eight_of_eight_supports_no_more_than_it_does() -> None:
    found = binomial([10.0] * 8, SCORES)
    assert (found.mean, found.high) == (10.0, 10.0) and 6.3 < found.low < 6.5


def test_values_between_the_ends_lie_between_the_counts() -> None:
    four, half, five = (binomial([10.0] * 4 + [x] + [0.0] * 3, SCORES) for x in (0.0, 5.0, 10.0))
    assert four.low < half.low < five.low and four.high < half.high < five.high


@pytest.mark.parametrize("sizes", [(2, 2), (3, 15), (15, 15), (60, 4)])
def test_differences_have_welchs_interval(sizes: tuple[int, int]) -> None:
    draw = random.Random(sizes[0])
    a = [draw.gauss(7, 1) for _ in range(sizes[0])]
    b = [draw.gauss(6, 0.3) for _ in range(sizes[1])]
    found = welch(a, b)
    known = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    ends = max(-10, known.low), min(10, known.high)
    assert (found.low, found.high) == pytest.approx(ends, rel=1e-7)
    assert found.mean == pytest.approx(sum(a) / len(a) - sum(b) / len(b))


def test_a_difference_is_never_certain_nor_beyond_the_scale() -> None:
    found = welch([7.0, 7.0], [5.0, 5.0, 5.0])
    assert 1.5 < found.low < 1.9 and found.mean == 2 and 2.1 < found.high < 2.5
    wide = welch([10.0, 2.0], [1.0, 9.0])
    assert (wide.low, wide.high) == (-10, 10)


def test_one_group_without_spread_leaves_the_other_ones_freedom() -> None:
    found = welch([7.0, 7.0, 7.0], [5.0, 6.0, 7.0, 8.0])
    half = stats.t.ppf(0.975, 3) * math.sqrt(5 / 3 / 4)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
