"""What the samples say of the prompts: their true scores, the noise, and how hard each input is.

A sample is the mean score over a block of inputs. What an answer scores depends mostly on its
input, so each counts less what its inputs are easier than others: prompts that met different blocks
can be compared, and where all met the same nothing changes. Taking in a record costs the inputs
that were met, never the history.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean

PRIOR = 1.0  # trials' worth of belief that an input is like the others
SPREAD_FLOOR = 0.25  # points: prompts are never taken to be all alike

Block = tuple[str, ...]  # input texts
Sample = tuple[Block, Sequence[float]]  # with their scores, 0..10
# samples, their mean less difficulty, and of the true score the posterior's mean and deviation
Estimate = tuple[int, float, float, float]


@dataclass(slots=True)
class _Tally:
    """A prompt's samples, difficulty still in: count, mean, squared deviations (Welford)."""

    sums: dict[Block, float] = field(default_factory=dict)
    group: _Group | None = None
    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def take(self, block: Block, value: float) -> None:
        self.sums[block] = self.sums.get(block, 0.0) + value
        self.n += 1
        delta = value - self.mean
        self.mean += delta / self.n
        self.squares += delta * (value - self.mean)


class _Group:
    """The prompts that met the same blocks equally often: their ranks, and the sums from which
    follows what difficulty does to all their means and squares."""

    def __init__(self, met: Mapping[Block, int]) -> None:
        self.met = met
        self.n = sum(met.values())
        self.prompts = 0
        self.means = self.squared_means = self.squares = 0.0
        self.apart = dict.fromkeys(met, 0.0)  # block -> sum of scores there less the mean
        self.ranks: list[tuple[float, int, str]] = []  # mean, -length, key: best last
        self.ease = 0.0  # points by which its blocks are easier than others

    def count(self, key: str, tally: _Tally, sign: int) -> None:
        """Take a prompt in (sign 1) or out (-1)."""
        self.prompts += sign
        self.means += sign * tally.mean
        self.squared_means += sign * tally.mean**2
        self.squares += sign * tally.squares
        for block, times in self.met.items():
            self.apart[block] += sign * (tally.sums[block] - times * tally.mean)
        rank = (tally.mean, -len(key), key)
        if sign > 0:
            insort(self.ranks, rank)
        else:
            del self.ranks[bisect_left(self.ranks, rank)]

    def sum(self) -> float:
        return self.means - self.prompts * self.ease

    def squared(self) -> float:
        return self.squared_means - self.ease * (2 * self.means - self.prompts * self.ease)

    def within(self, ease: Mapping[Block, float]) -> float:
        """Squared deviations of the samples from their prompts' means, difficulty out."""
        more = [(ease[b] - self.ease, times, self.apart[b]) for b, times in self.met.items()]
        return self.squares + sum(e * (self.prompts * n * e - 2 * a) for e, n, a in more)


class Posterior:
    """The one-way random-effects model over prompts, kept up to date by sums.

    Sample j of prompt i = mu + a_i + ease + e_ij, a_i ~ N(0, between), e_ij ~ N(0, within).
    `within` is the pooled variance of prompts with several samples, `between` the method-of-moments
    (ANOVA) estimate for unequal group sizes, `mean` the weighted mean of all prompts. Source:
    Searle, Casella, McCulloch, Variance Components (1992), 3.6; shrinkage as in Efron, Morris, Data
    analysis using Stein's estimator, JASA 70 (1975). The ease of an input is the shrunk mean of its
    scores over what each prompt was taken for when it met it.
    """

    def __init__(self) -> None:
        self.within = 0.0
        self.between = SPREAD_FLOOR**2
        self.mean = 0.0
        self.freedom = 0
        self._tallies: dict[str, _Tally] = {}
        self._groups: dict[frozenset[tuple[Block, int]], _Group] = {}
        self._over: dict[str, tuple[float, int]] = {}  # input -> sum and number of its residuals
        self._centre = 0.0
        self._ease: dict[Block, float] = {}

    def add(self, key: str, samples: Sequence[Sample]) -> None:
        """Take in the samples, at least one, of the prompt with this key."""
        level, met = self.of(key, samples)[2], self.met(key, samples)
        tally = self._tallies.setdefault(key, _Tally())
        if tally.group:
            tally.group.count(key, tally, -1)
            if not tally.group.prompts:
                del self._groups[frozenset(tally.group.met.items())]
        for block, scores in samples:
            tally.take(block, math.fsum(scores) / len(scores))
            self._ease.setdefault(block, 0.0)
            for text, score in zip(block, scores, strict=False):
                total, n = self._over.get(text, (0.0, 0))
                self._over[text] = total + score - level, n + 1
        tally.group = self._groups.setdefault(frozenset(met.items()), _Group(met))
        tally.group.count(key, tally, 1)
        self._settle()
        self._fit()

    def _settle(self) -> None:
        """With every input's ease, relative to their mean, that of the blocks and groups."""
        if len(self._ease) > 1:
            self._centre = fmean(total / (n + PRIOR) for total, n in self._over.values())
            self._ease = {block: self._easier(block) for block in self._ease}
            for group in self._groups.values():
                group.ease = self.ease(group.met)

    def _easier(self, block: Block) -> float:
        met = (self._over[text] for text in block if text in self._over)
        return sum(total / (n + PRIOR) - self._centre for total, n in met) / max(1, len(block))

    def ease(self, met: Mapping[Block, int]) -> float:
        """Points by which blocks met so often are easier than the mean of all inputs met."""
        if len(self._ease) < 2:
            return 0.0
        total = 0.0
        for block, times in met.items():
            total += times * (self._ease[block] if block in self._ease else self._easier(block))
        return total / sum(met.values())

    def _fit(self) -> None:
        groups = self._groups.values()
        prompts, self.freedom = len(self._tallies), sum(g.prompts * (g.n - 1) for g in groups)
        squares = sum(g.within(self._ease) for g in groups)
        self.within = max(squares, 0.0) / self.freedom if self.freedom else 0.0
        if prompts > 1:
            samples = self.freedom + prompts
            total = sum(g.n * g.sum() for g in groups)
            spread = (sum(g.n * g.squared() for g in groups) - total**2 / samples) / (prompts - 1)
            size = (samples - sum(g.prompts * g.n**2 for g in groups) / samples) / (prompts - 1)
            self.between = max((spread - self.within) / size, SPREAD_FLOOR**2)
        weights = [(1 / (self.between + self.within / g.n), g) for g in groups]
        total = sum(weight * g.prompts for weight, g in weights)
        self.mean = sum(weight * g.sum() for weight, g in weights) / total

    def of(self, key: str, samples: Sequence[Sample] = ()) -> Estimate:
        """Of a prompt when these samples come to those it has; there must be one in all."""
        tally = self._tallies.get(key) or _Tally()
        n, mean = tally.n + len(samples), tally.mean
        if samples:
            total = sum(math.fsum(scores) / len(scores) for _, scores in samples)
            mean = (total + tally.n * tally.mean) / n
        return self._estimate(n, mean - self.ease(self.met(key, samples)))

    def _estimate(self, n: int, mean: float) -> Estimate:
        weight = self.between / (self.between + self.within / n)
        estimate = self.mean + weight * (mean - self.mean)
        return n, mean, estimate, math.sqrt(weight * self.within / n)

    def best(self, k: int) -> Iterator[tuple[str, Estimate]]:
        """The keys of k prompts or more, among them the k best by the posterior mean."""
        # in a group the posterior mean rises with the mean: k of each suffice
        for group in self._groups.values():
            for mean, _, key in islice(reversed(group.ranks), k):
                yield key, self._estimate(group.n, mean - group.ease)

    def met(self, key: str, samples: Sequence[Sample] = ()) -> Counter[Block]:
        """How often the prompt met each block, these samples included."""
        tally = self._tallies.get(key)
        met = Counter(tally.group.met if tally and tally.group else {})
        met.update(block for block, _ in samples)
        return met
