"""95 % intervals for means and paired differences, and how sure the fresh scores of a few prompts
make us, given what the search saw of them. Which method holds on how few inputs
`python -m tests.benchmarks.intervals` measures."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from statistics import NormalDist, fmean
from typing import NamedTuple

ALPHA = 0.05
PSEUDO = 1.25  # pseudo-pairs at each end of a difference
SEEN = 8  # degrees of freedom that a variance known from elsewhere weighs,
TRUSTED = 4  # and those that the quantile takes from it: tails are longer than the normal's
FLOOR = 0.1  # points: no standard deviation is taken to be less
FEW = 4  # distinct scores up to which they are taken for labels
FRESH, SEARCHED = 0.64, 0.48  # deviations from 0 that count for the chance: fitted to simulations

Groups = Sequence[Sequence[float]]
Bounds = tuple[float, float]
Scores = Mapping[str, list[float]]  # input -> the score of each pass
ByPrompt = Mapping[str, Scores]


class Interval(NamedTuple):
    """A mean with its 95 % interval, in points."""

    mean: float
    low: float
    high: float


class Evidence:
    """`fresh`: prompt -> input -> passes, on samples that no choice was made on; `seen`: those of
    the search, of more prompts, which help to tell how much answers vary. Where they `generalise`
    an input is one sample, however many its passes; otherwise the inputs are given. `scale`: the
    ends of the scale where the scores are labels; None where they are grades."""

    def __init__(self, fresh: ByPrompt, seen: ByPrompt, generalises: bool) -> None:
        self.fresh, self.seen, self.generalises = fresh, seen, generalises
        every = (*seen.values(), *fresh.values())
        values = {score for scores in every for each in scores.values() for score in each}
        few = generalises and 2 <= len(values) <= FEW
        self.scale = (min(values), max(values)) if few else None
        if values <= {0.0, 10.0}:
            self.scale = 0.0, 10.0

    def score(self, prompt: str) -> Interval:
        groups = self._groups(self.fresh[prompt])
        if self.scale:
            return binomial([*chain(*groups)], self.scale)
        return student(groups, self._expected(prompt, self.seen), (0.0, 10.0))

    def difference(self, prompt: str, other: str, alpha: float = ALPHA) -> Interval:
        """The first prompt's score minus the other's, input by input."""
        if prompt == other:
            return Interval(0.0, 0.0, 0.0)
        groups = self._groups(_less(self.fresh[prompt], self.fresh[other]))
        if self.scale:
            return pseudo_paired([*chain(*groups)], self.scale[1] - self.scale[0], alpha)
        return student(groups, self._expected(prompt, self._seen_less(other)), (-10.0, 10.0), alpha)

    def chance(self, prompt: str, other: str) -> float:
        """The probability that the first prompt is truly the better: what the search saw counts
        less, for its winner was chosen by it."""
        if prompt == other:
            return 0.5
        fresh, seen, pairs = self.difference(prompt, other), 0.0, self._seen_less(other)
        deviation = (fresh.high - fresh.low) / 2 / NormalDist().inv_cdf(1 - ALPHA / 2)
        values, spread = [*chain(*self._groups(pairs[prompt]))], self._expected(prompt, pairs)
        if values and spread is not None:
            seen = fmean(values) / max(math.sqrt(spread / len(values)), FLOOR / 2)
        return NormalDist().cdf(FRESH * fresh.mean / deviation + SEARCHED * seen)

    def _seen_less(self, other: str) -> ByPrompt:
        """What the search saw of each prompt, less what it saw of the other."""
        return {p: _less(s, self.seen[other]) for p, s in self.seen.items() if p != other}

    def _expected(self, prompt: str, seen: ByPrompt) -> float | None:
        """The larger of the prompt's own variance in the search and that of all."""
        variances = {p: within(self._groups(scores)) for p, scores in seen.items()}
        known = [value for value in variances.values() if value is not None]
        return max(fmean(known), variances[prompt] or 0.0) if known else None

    def _groups(self, scores: Scores) -> Groups:
        return [[fmean(x) for x in scores.values()]] if self.generalises else [*scores.values()]


def _less(mine: Scores, other: Scores) -> Scores:
    return {t: [a - b for a, b in zip(mine[t], other[t], strict=False)] for t in mine if t in other}


def within(groups: Groups) -> float | None:
    """The variance of values around the mean of their group; None where each has but one."""
    freedom = sum(len(group) - 1 for group in groups if group)
    squares = sum((x - mean) ** 2 for g in groups if g for mean in [fmean(g)] for x in g)
    return squares / freedom if freedom else None


def student(groups: Groups, seen: float | None, bounds: Bounds, alpha: float = ALPHA) -> Interval:
    """Student's t interval for the mean of all values, from the variance within their groups.

    `seen` is that variance as it was elsewhere: the one of these few values is shrunk toward it,
    for a handful of scores may not show their long tail. What they show of it lengthens that side:
    Johnson, Modified t tests and confidence intervals for asymmetrical populations, JASA 73 (1978).
    """
    values = [*chain(*groups)]
    mean, freedom = fmean(values), len(values) - len(groups)
    known, trusted = (0, 0) if seen is None else (SEEN, TRUSTED)
    if freedom + trusted < 1:
        return Interval(mean, *bounds)
    squares = freedom * (within(groups) or 0.0) + known * (seen or 0.0)
    deviation = max(math.sqrt(squares / (freedom + known)), FLOOR)
    t = t_quantile(freedom + trusted, 1 - alpha / 2)
    half = t * deviation / math.sqrt(len(values))
    cubes = sum((x - centre) ** 3 for g in groups if g for centre in [fmean(g)] for x in g)
    tail = (1 + 2 * t * t) / 6 * cubes / (len(values) * deviation) ** 2
    low, high = mean - half + min(tail, 0.0), mean + half + max(tail, 0.0)
    return Interval(mean, max(bounds[0], low), min(bounds[1], high))


def binomial(values: Sequence[float], bounds: Bounds) -> Interval:
    """Interval for the mean of values within bounds, mostly at either of them: those in between
    spread less than a coin of the same mean. Source: Blaker, Confidence curves and improved exact
    confidence intervals for discrete distributions, Canadian Journal of Statistics 28 (2000)."""
    mean, n, points = fmean(values), len(values), bounds[1] - bounds[0]
    right = sum((value - bounds[0]) / points for value in values)
    low = bounds[0] + points * _least(right, n)
    high = bounds[1] - points * _least(n - right, n)
    return Interval(mean, min(low, mean), max(high, mean))


def pseudo_paired(differences: Sequence[float], most: float, alpha: float = ALPHA) -> Interval:
    """Interval for a mean of paired differences within -most..most, with pseudo-pairs at both ends,
    so that it does not collapse where all pairs agree. Source: Bonett, Price, Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired data, Journal of
    Educational and Behavioral Statistics 37 (2012)."""
    n = len(differences) + 2 * PSEUDO
    centre = sum(differences) / n
    squares = sum(x * x for x in differences) + 2 * PSEUDO * most**2
    half = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt((squares / n - centre**2) / n)
    return Interval(fmean(differences), max(-most, centre - half), min(most, centre + half))


def welch(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Interval for mean(a) - mean(b), variances unequal; at least two values each. Source: Welch,
    The generalization of 'Student's' problem, Biometrika 34 (1947)."""
    errors = [(within([values]) or 0.0) / len(values) for values in (a, b)]
    errors = errors if any(errors) else [FLOOR**2 / len(values) for values in (a, b)]
    difference, error = fmean(a) - fmean(b), sum(errors)
    terms = (e * e / (len(values) - 1) for e, values in zip(errors, (a, b), strict=True))
    half = t_quantile(error**2 / sum(terms)) * math.sqrt(error)
    return Interval(difference, max(-10.0, difference - half), min(10.0, difference + half))


@lru_cache(maxsize=4096)
def _least(right: float, n: int) -> float:
    """The least share of successes that Blaker's test accepts after `right` of n."""
    whole = math.floor(right + 1e-9)
    if (part := right - whole) > 1e-9:
        return (1 - part) * _least(whole, n) + part * _least(whole + 1, n)

    def accepted(step: int) -> bool:
        def below(k: int) -> float:
            """P(fewer than k successes)."""
            return 1 - _beta(k, n - k + 1, step / 1e12) if k else 0.0

        own = 1 - below(whole)
        fewer = bisect_right(range(1, whole + 1), own, key=below)
        return own + below(fewer) >= ALPHA

    return bisect_left(range(whole * 10**12 // n), True, key=accepted) / 1e12


@lru_cache(maxsize=4096)
def t_quantile(freedom: float, level: float = 1 - ALPHA / 2) -> float:
    """Quantile of Student's t, for 0.5 < level < 1, up to 1e6 (Abramowitz, Stegun 26.7.1)."""

    def reached(step: int) -> float:
        return 1 - _beta(freedom / 2, 0.5, freedom / (freedom + (step / 1e10) ** 2)) / 2

    return bisect_left(range(10**16), level, key=reached) / 1e10


def _beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x in (0.0, 1.0):
        return x
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on this side only
        return 1 - _beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front += a * math.log(x) + b * math.log1p(-x)
    rest = 1.0
    for m in range(20 + round(math.sqrt(a + b)), 0, -1):
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        rest = 1 + even / (1 + odd / rest)
    return math.exp(front) / a / (1 - (a + b) * x / (a + 1) / rest)
