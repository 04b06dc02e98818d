"""95 % intervals for a mean and for the difference of two means; standard library only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % interval, in points; `samples` values, of two groups the smaller."""

    mean: float
    low: float
    high: float
    samples: int


def mean_interval(values: Sequence[float], floor: float = 0.0) -> Interval:
    """Student's t interval, within 0..10. `floor` is the least standard deviation taken as
    possible.

    Without a floor fifteen equal scores would claim no uncertainty at all. One value alone has no
    interval: it spans all scores.
    """
    mean, n = fmean(values), len(values)
    if n < 2:
        return Interval(mean, 0.0, 10.0, n)
    half = _half(values, floor)
    return Interval(mean, max(0.0, mean - half), min(10.0, mean + half), n)


def paired(a: Sequence[float], b: Sequence[float], floor: float = 0.0) -> Interval:
    """Student's t interval for the mean of a[i] - b[i], at least two pairs."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, half = fmean(differences), _half(differences, floor)
    return Interval(mean, mean - half, mean + half, len(differences))


def welch(a: Sequence[float], b: Sequence[float], floor: float = 0.0) -> Interval:
    """Interval for mean(a) - mean(b), variances unequal; at least two values each.

    Source: Welch, The generalization of 'Student's' problem, Biometrika 34 (1947).
    """
    error_a, error_b = _variance(a, floor) / len(a), _variance(b, floor) / len(b)
    difference, error = fmean(a) - fmean(b), error_a + error_b
    samples = min(len(a), len(b))
    if error == 0:
        return Interval(difference, difference, difference, samples)
    freedom = error**2 / (error_a**2 / (len(a) - 1) + error_b**2 / (len(b) - 1))
    half = t_quantile(freedom) * math.sqrt(error)
    return Interval(difference, difference - half, difference + half, samples)


def _half(values: Sequence[float], floor: float) -> float:
    return t_quantile(len(values) - 1) * math.sqrt(_variance(values, floor) / len(values))


def _variance(values: Sequence[float], floor: float) -> float:
    return max(variance(values), floor**2)


def t_quantile(freedom: float, level: float = 0.975) -> float:
    """Quantile of Student's t for `freedom` > 0 and 0.5 < level < 1, by bisection of its CDF."""
    low, high = 0.0, 2.0
    while _t_cdf(high, freedom) < level:
        low, high = high, high * 2
    while high - low > 1e-10 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, freedom) < level else (low, middle)
    return high


def _t_cdf(t: float, freedom: float) -> float:
    """P(T <= t) for t >= 0, from the incomplete beta function (Abramowitz, Stegun 26.7.1)."""
    return 1 - _beta(freedom / 2, 0.5, freedom / (freedom + t * t)) / 2


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
