"""What the samples say of the prompts: their true scores, the noise, and how hard each input is.

What an answer scores depends mostly on its input, so each sample counts less what its inputs are
easier than others: prompts that met different blocks can be compared, and where all met the same
nothing changes. A record costs the inputs that were met and its prompt's samples, not the history.
"""

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from statistics import fmean

PRIOR = 1.0  # trials' worth of belief that an input is like the others
SPREAD_FLOOR = 0.25  # points: prompts are never taken to be all alike

Block = tuple[str, ...]  # input texts
Sample = tuple[Block, Sequence[float]]  # with their scores, 0..10
# samples, their mean less difficulty, and of the true score the posterior's mean and deviation
Estimate = tuple[int, float, float, float]


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

    def count(self, key: str, values: Mapping[Block, list[float]], sign: int) -> None:
        """Take a prompt in (sign 1) or out (-1)."""
        every = [value for each in values.values() for value in each]
        mean = fmean(every)
        self.prompts += sign
        self.means += sign * mean
        self.squared_means += sign * mean**2
        self.squares += sign * sum((value - mean) ** 2 for value in every)
        for block, each in values.items():
            self.apart[block] += sign * (sum(each) - len(each) * mean)
        rank = (mean, -len(key), key)
        if sign > 0:
            insort(self.ranks, rank)
        else:
            del self.ranks[bisect_left(self.ranks, rank)]

    def without(self, ease: Mapping[Block, float]) -> tuple[float, float, float]:
        """The sums of the prompts' means, of the squares of these, and of the squared deviations of
        the samples from them, difficulty out."""
        means = self.means - self.prompts * self.ease
        more = [(ease[b] - self.ease, times, self.apart[b]) for b, times in self.met.items()]
        squares = self.squares + sum(e * (self.prompts * n * e - 2 * a) for e, n, a in more)
        return means, self.squared_means - self.ease * (self.means + means), squares


class Posterior:
    """The one-way random-effects model over prompts, kept up to date by sums.

    Sample j of prompt i = mu + a_i + ease + e_ij, a_i ~ N(0, between), e_ij ~ N(0, within).
    `between` is the method-of-moments (ANOVA) estimate for unequal group sizes: Searle, Casella,
    McCulloch, Variance Components (1992), 3.6; shrinkage as in Efron, Morris, Data analysis using
    Stein's estimator, JASA 70 (1975). The ease of an input is the shrunk mean of its scores over
    what each prompt was taken for when it met it.
    """

    def __init__(self) -> None:
        self.within = 0.0
        self.between = SPREAD_FLOOR**2
        self.mean = 0.0
        self.freedom = 0
        self._values: dict[str, dict[Block, list[float]]] = {}  # by prompt, difficulty still in
        self._groups: dict[frozenset[tuple[Block, int]], _Group] = {}
        self._over: dict[str, tuple[float, int]] = {}  # input -> sum and number of its residuals
        self._centre = 0.0
        self._ease: dict[Block, float] = {}

    def add(self, key: str, samples: Sequence[Sample]) -> None:
        """Take in the samples, at least one, of the prompt with this key."""
        level = self.of(key, samples)[2]
        values = self._values.setdefault(key, {})
        if values:
            self._count(key, -1)
        for block, scores in samples:
            values.setdefault(block, []).append(fmean(scores))
            self._ease.setdefault(block, 0.0)
            for text, score in zip(block, scores, strict=False):
                total, n = self._over.get(text, (0.0, 0))
                self._over[text] = total + score - level, n + 1
        self._count(key, 1)
        self._fit()

    def _count(self, key: str, sign: int) -> None:
        met = self.met(key)
        group = self._groups.setdefault(frozenset(met.items()), _Group(met))
        group.count(key, self._values[key], sign)
        if not group.prompts:
            del self._groups[frozenset(met.items())]

    def _fit(self) -> None:
        groups = self._groups.values()
        if len(self._ease) > 1:
            self._centre = fmean(total / (n + PRIOR) for total, n in self._over.values())
            self._ease = {block: self._easier(block) for block in self._ease}
            for group in groups:
                group.ease = self.ease(group.met)
        sums = [(g.n, g.prompts, *g.without(self._ease)) for g in groups]
        samples, prompts = sum(n * k for n, k, *_ in sums), len(self._values)
        self.freedom = samples - prompts
        squares = max(sum(within for *_, within in sums), 0.0)
        self.within = squares / self.freedom if self.freedom else 0.0
        if prompts > 1:
            total = sum(n * means for n, _, means, *_ in sums)
            spread = sum(n * squared for n, _, _, squared, _ in sums) - total**2 / samples
            size = samples - sum(k * n**2 for n, k, *_ in sums) / samples
            between = (spread - self.within * (prompts - 1)) / size
            self.between = max(between, SPREAD_FLOOR**2)
        weights = [1 / (self.between + self.within / n) for n, *_ in sums]
        weighed = [(w * k, w * means) for w, (_, k, means, *_) in zip(weights, sums, strict=True)]
        self.mean = sum(mean for _, mean in weighed) / sum(weight for weight, _ in weighed)

    def ease(self, met: Mapping[Block, int]) -> float:
        """Points by which blocks met so often are easier than the mean of all inputs met."""
        if len(self._ease) < 2:
            return 0.0
        each = ((times, self._ease.get(block), block) for block, times in met.items())
        total = sum(n * (self._easier(b) if ease is None else ease) for n, ease, b in each)
        return total / sum(met.values())

    def _easier(self, block: Block) -> float:
        met = (self._over[text] for text in block if text in self._over)
        return sum(total / (n + PRIOR) - self._centre for total, n in met) / max(1, len(block))

    def of(self, key: str, samples: Sequence[Sample] = ()) -> Estimate:
        """Of a prompt when these samples come to those it has; there must be one in all."""
        known = self._values.get(key, {}).values()
        values = [value for each in known for value in each]
        values += [fmean(scores) for _, scores in samples]
        return self._estimate(len(values), fmean(values) - self.ease(self.met(key, samples)))

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
        known = self._values.get(key, {})
        met = Counter({block: len(each) for block, each in known.items()})
        return met + Counter(block for block, _ in samples)
