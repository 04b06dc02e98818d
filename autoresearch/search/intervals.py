"""95 % intervals for means and for paired differences; standard library only.

Which method holds on how few inputs `python -m tests.benchmarks.intervals` measures.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, fmean, variance

ALPHA = 0.05
PSEUDO = 1.25  # pseudo-pairs at each end of a difference
SEEN = 8  # degrees of freedom that a variance known from elsewhere weighs,
TRUSTED = 4  # and those that the quantile takes from it: tails are longer than the normal's
FLOOR = 0.1  # points: no standard deviation is taken to be less

Groups = Sequence[Sequence[float]]
Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval, in points; it rests on so many samples."""

    mean: float
    low: float
    high: float
    samples: int


def within(groups: Groups) -> float | None:
    """The variance of values around the mean of their group; None where each has but one."""
    freedom = sum(len(group) - 1 for group in groups if group)
    squares = sum((x - fmean(group)) ** 2 for group in groups if group for x in group)
    return squares / freedom if freedom else None


def student(groups: Groups, seen: float | None, bounds: Bounds, alpha: float = ALPHA) -> Interval:
    """Student's t interval for the mean of all values, from the variance within their groups.

    `seen` is that variance as it was elsewhere: the one of these few values is shrunk toward it,
    for a handful of scores may not show their long tail. What they show of it lengthens that side.
    Source: Johnson, Modified t tests and confidence intervals for asymmetrical populations, JASA 73
    (1978).
    """
    values = [value for group in groups for value in group]
    mean, freedom = fmean(values), len(values) - len(groups)
    known, trusted = (0, 0) if seen is None else (SEEN, TRUSTED)
    if freedom + trusted < 1:
        return Interval(mean, *bounds, len(values))
    squares = freedom * (within(groups) or 0.0) + known * (seen or 0.0)
    deviation = max(math.sqrt(squares / (freedom + known)), FLOOR)
    t = t_quantile(freedom + trusted, 1 - alpha / 2)
    half = t * deviation / math.sqrt(len(values))
    cubes = sum((x - fmean(group)) ** 3 for group in groups for x in group)
    tail = (1 + 2 * t * t) / 6 * cubes / (len(values) * deviation) ** 2
    low, high = mean - half + min(tail, 0.0), mean + half + max(tail, 0.0)
    return Interval(mean, max(bounds[0], low), min(bounds[1], high), len(values))


def binomial(values: Sequence[float], bounds: Bounds) -> Interval:
    """Blaker's interval for the mean of values within bounds that are mostly at either of them.

    Values in between spread less than a coin of the same mean, so that it holds for them too.
    Source: Blaker, Confidence curves and improved exact confidence intervals for discrete
    distributions, Canadian Journal of Statistics 28 (2000).
    """
    (low, high), n = bounds, len(values)
    right = sum((value - low) / (high - low) for value in values)
    whole = min(math.floor(right + 1e-9), n - 1)
    part = max(0.0, right - whole)
    least = (1 - part) * _least(whole, n) + part * _least(whole + 1, n)
    most = 1 - (1 - part) * _least(n - whole, n) - part * _least(n - whole - 1, n)
    mean = fmean(values)
    ends = low + least * (high - low), low + most * (high - low)
    return Interval(mean, min(ends[0], mean), max(ends[1], mean), n)


def pseudo_paired(differences: Sequence[float], most: float, alpha: float = ALPHA) -> Interval:
    """Interval for a mean of paired differences within -most..most, with pseudo-pairs at both
    ends, so that it does not collapse where all pairs agree.

    Source: Bonett, Price, Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data, Journal of Educational and Behavioral Statistics 37 (2012).
    """
    n = len(differences) + 2 * PSEUDO
    centre = sum(differences) / n
    squares = sum(x * x for x in differences) + 2 * PSEUDO * most**2
    half = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt((squares / n - centre**2) / n)
    low, high = max(-most, centre - half), min(most, centre + half)
    return Interval(fmean(differences), low, high, len(differences))


def welch(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Interval for mean(a) - mean(b), variances unequal; at least two values each.

    Source: Welch, The generalization of 'Student's' problem, Biometrika 34 (1947).
    """
    errors = [variance(values) / len(values) for values in (a, b)]
    difference, error, samples = fmean(a) - fmean(b), sum(errors), min(len(a), len(b))
    if error == 0:
        return Interval(difference, difference, difference, samples)
    terms = (e * e / (len(values) - 1) for e, values in zip(errors, (a, b), strict=True))
    half = t_quantile(error**2 / sum(terms)) * math.sqrt(error)
    return Interval(difference, difference - half, difference + half, samples)


@lru_cache(maxsize=4096)
def _least(right: int, n: int) -> float:
    """The least share of successes that Blaker's test accepts after `right` of n."""
    if right == 0:
        return 0.0

    def accepted(share: float) -> bool:
        own = 1 - _at_most(right - 1, n, share)
        fewer = bisect_right(range(right), own, key=lambda k: _at_most(k, n, share))
        return own + (_at_most(fewer - 1, n, share) if fewer else 0.0) >= ALPHA

    return _first(accepted, 0.0, right / n)


def _at_most(k: int, n: int, share: float) -> float:
    """P(at most k successes of n)."""
    return 1.0 if k >= n else 1 - _beta(k + 1, n - k, share)


def _first(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where a condition that holds at `high` begins to hold, by bisection."""
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@lru_cache(maxsize=4096)
def t_quantile(freedom: float, level: float = 1 - ALPHA / 2) -> float:
    """Quantile of Student's t for `freedom` > 0 and 0.5 < level < 1, by bisection.

    P(T <= t) comes from the incomplete beta function (Abramowitz, Stegun 26.7.1).
    """

    def reached(t: float) -> bool:
        return 1 - _beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2 >= level

    most = 2.0
    while not reached(most):
        most *= 2
    return _first(reached, 0.0, most)


def _beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function, by its continued fraction (Lentz; DLMF 8.17.22)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on this side only
        return 1 - _beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front += a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 300):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for step in (even, odd):
            d, c = 1 / (1 + step * d), 1 + step / c
            value *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return math.exp(front) * value / a
