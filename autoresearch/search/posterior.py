"""What the samples say of the prompts: their true scores, the noise, and how hard each input is.

What an answer scores depends mostly on its input, so each sample counts less what its inputs are
easier than others: prompts that met different blocks can be compared, and where all met the same
nothing changes. A record costs the inputs that were met and its prompt's samples, not the history.
"""

import math
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

PRIOR = 1.0  # trials' worth of belief that an input is like the others
SPREAD_FLOOR = 0.25  # points: prompts are never taken to be all alike

Block = tuple[str, ...]  # input texts
Sample = tuple[Block, Sequence[float]]  # with their scores, 0..10
Mean = tuple[Block, float]  # of a sample, difficulty still in
Estimate = tuple[int, float, float, float]  # samples, mean less difficulty; posterior: mean, sd


class _Group:
    """The prompts that met the same blocks equally often: their ranks, and the sums from which
    follows what difficulty does to all their means and squares."""

    def __init__(self, met: Mapping[Block, int]) -> None:
        self.met, self.n = met, sum(met.values())
        self.ranks: list[tuple[float, int, str]] = []  # mean, -length, key: best last
        self.means = self.squared_means = self.squares = 0.0
        self.apart = dict.fromkeys(met, 0.0)  # block -> sum of scores there less the mean
        self.ease = 0.0  # points by which its blocks are easier than others

    def count(self, key: str, samples: Sequence[Mean], sign: int) -> None:
        """Take a prompt in (sign 1) or out (-1)."""
        mean = fmean(value for _, value in samples)
        self.means += sign * mean
        self.squared_means += sign * mean**2
        self.squares += sign * sum((value - mean) ** 2 for _, value in samples)
        for block, value in samples:
            self.apart[block] += sign * (value - mean)
        rank = (mean, -len(key), key)
        if sign > 0:
            insort(self.ranks, rank)
        else:
            del self.ranks[bisect_left(self.ranks, rank)]

    def without(self, ease: Mapping[Block, float]) -> tuple[int, int, float, float, float]:
        """Samples each, prompts; difficulty out, sums of means, of these squared, of squares."""
        k, met = len(self.ranks), self.met.items()
        self.ease = sum(n * ease[block] for block, n in met) / self.n
        means = self.means - k * self.ease
        more = [(ease[block] - self.ease, n, self.apart[block]) for block, n in met]
        squares = self.squares + sum(e * (k * n * e - 2 * apart) for e, n, apart in more)
        return self.n, k, means, self.squared_means - self.ease * (self.means + means), squares


class Posterior:
    """The one-way random-effects model over prompts, kept up to date by sums.

    Sample j of prompt i = mu + a_i + ease + e_ij, a_i ~ N(0, between), e_ij ~ N(0, within).
    `between` is the method-of-moments (ANOVA) estimate for unequal group sizes: Searle, Casella,
    McCulloch, Variance Components (1992), 3.6; shrinkage as in Efron, Morris, Data analysis using
    Stein's estimator, JASA 70 (1975). The ease of an input is the shrunk mean of its scores over
    what each prompt was taken for when it met it.
    """

    def __init__(self) -> None:
        self.mean = self.within = 0.0
        self.between, self.freedom = SPREAD_FLOOR**2, 0
        self._samples: dict[str, list[Mean]] = defaultdict(list)  # by prompt
        self._groups: dict[frozenset[tuple[Block, int]], _Group] = {}
        self._over: dict[str, tuple[float, int]] = {}  # input -> sum and number of its residuals
        self._ease: dict[str, float] = {}  # of each input; empty while all met the same

    def add(self, key: str, samples: Sequence[Sample]) -> None:
        """Take in the samples, at least one, of the prompt with this key."""
        level = self.of(key, samples)[2]
        if key in self._samples:
            self._group(key).count(key, self._samples[key], -1)
        for block, scores in samples:
            self._samples[key].append((block, fmean(scores)))
            for text, score in zip(block, scores, strict=False):
                total, n = self._over.get(text, (0.0, 0))
                self._over[text] = total + score - level, n + 1
        self._group(key).count(key, self._samples[key], 1)
        self._groups = {met: group for met, group in self._groups.items() if group.ranks}
        self._fit()

    def _group(self, key: str) -> _Group:
        met = self.met(key)
        return self._groups.setdefault(frozenset(met.items()), _Group(met))

    def _fit(self) -> None:
        blocks = {block for group in self._groups.values() for block in group.met}
        if len(blocks) > 1:
            shrunk = {text: total / (n + PRIOR) for text, (total, n) in self._over.items()}
            centre = fmean(shrunk.values())
            self._ease = {text: ease - centre for text, ease in shrunk.items()}
        eases = {block: self.ease({block: 1}) for block in blocks}
        sums = [group.without(eases) for group in self._groups.values()]
        samples, prompts = sum(n * k for n, k, *_ in sums), len(self._samples)
        self.freedom = samples - prompts
        self.within = max(sum(squares for *_, squares in sums), 0.0) / max(1, self.freedom)
        if prompts > 1:
            total = sum(n * means for n, _, means, *_ in sums)
            spread = sum(n * squared for n, _, _, squared, _ in sums) - total**2 / samples
            size = samples - sum(k * n**2 for n, k, *_ in sums) / samples
            self.between = max((spread - self.within * (prompts - 1)) / size, SPREAD_FLOOR**2)
        weighed = [(k, means, 1 / (self.between + self.within / n)) for n, k, means, *_ in sums]
        self.mean = sum(w * means for _, means, w in weighed) / sum(w * k for k, _, w in weighed)

    def ease(self, met: Mapping[Block, int]) -> float:
        """Points by which blocks met so often are easier than the mean of all inputs met."""
        each = [(n, [self._ease.get(text, 0.0) for text in block]) for block, n in met.items()]
        return sum(n * sum(eases) / max(1, len(eases)) for n, eases in each) / sum(met.values())

    def of(self, key: str, samples: Sequence[Sample] = ()) -> Estimate:
        """Of a prompt when these samples come to those it has; there must be one in all."""
        values = [value for _, value in self._samples.get(key, ())]
        values += [fmean(scores) for _, scores in samples]
        return self._estimate(len(values), fmean(values) - self.ease(self.met(key, samples)))

    def _estimate(self, n: int, mean: float) -> Estimate:
        weight = self.between / (self.between + self.within / n)
        estimate = self.mean + weight * (mean - self.mean)
        return n, mean, estimate, math.sqrt(weight * self.within / n)

    def best(self, k: int) -> Iterator[tuple[str, Estimate]]:
        """The k best keys, and some more: in a group the posterior mean rises with the mean."""
        for group in self._groups.values():
            for mean, _, key in group.ranks[: -k - 1 : -1]:
                yield key, self._estimate(group.n, mean - group.ease)

    def met(self, key: str, samples: Sequence[Sample] = ()) -> Counter[Block]:
        """How often the prompt met each block, these samples included."""
        return Counter(block for block, _ in (*self._samples.get(key, ()), *samples))
