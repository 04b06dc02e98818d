"""The experiments in memory: how each prompt stands, who leads, how large the noise is.

A score is one draw from a prompt's distribution, so the highest score flatters whoever had luck.
Each distinct prompt pools the passes of all its records here and is shrunk toward the mean of all
prompts, as far as the noise demands: all of it a pure function of what was added, in that order.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from threading import RLock

from rapidfuzz import fuzz, process

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.intervals import Interval, welch
from autoresearch.text import normalise

NEAR = 97.0  # rapidfuzz ratio, 0-100, from which two prompts are near repeats,
EDITS = 60  # unless so many letters were added or taken out: a sentence is no slip of the pen
NUMBER = re.compile(r"\d+")
SPREAD_FLOOR = 0.25  # points: prompts are never taken to be all alike
TIE = 0.1  # of the noise: a difference that the search does not tell from none
CONTENDERS = 8  # prompts that enter the confirmation
RECENT = 25  # proposals over which a criterion counts as passed by everything


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one prompt stands: `samples` passes with their `mean`; `estimate` and `deviation` are
    the posterior's, in points."""

    prompt: str
    iteration: int | None
    samples: int
    mean: float
    estimate: float
    deviation: float


@dataclass(frozen=True, slots=True)
class StrategyLine:
    name: str
    experiments: int
    mean: float
    leads: int


@dataclass(slots=True)
class _Tally:
    """The pooled passes of a distinct prompt: count, mean, sum of squared deviations (Welford)."""

    prompt: str
    iteration: int | None
    records: list[Experiment] = field(default_factory=list)
    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def take(self, values: Iterable[float]) -> None:
        for value in values:
            self.n += 1
            delta = value - self.mean
            self.mean += delta / self.n
            self.squares += delta * (value - self.mean)


def _letters(text: str) -> int:
    """How often the common letters occur, each in unary.

    The bits in which two texts differ are insertions and deletions that they need at the least:
    nearly all of 10,000 prompts are told apart by that, without being compared.
    """
    bits = 0
    for letter in "etaoinsrhldcumfpgwybvk":
        bits = bits << 60 | (1 << min(text.count(letter), 60)) - 1
    return bits


class _Variances:
    """The one-way random-effects model over prompts, kept up to date by sums.

    Score of pass j of prompt i = mu + a_i + e_ij, a_i ~ N(0, between), e_ij ~ N(0, within).
    `within` is the pooled variance of prompts with several passes, `between` the method-of-moments
    (ANOVA) estimate for unequal group sizes, `mean` the weighted mean of all prompts. Source:
    Searle, Casella, McCulloch, Variance Components (1992), 3.6; shrinkage as in Efron, Morris, Data
    analysis using Stein's estimator, JASA 70 (1975).
    """

    def __init__(self) -> None:
        self.within = 0.0
        self.between = SPREAD_FLOOR**2
        self.mean = 0.0
        self.freedom = 0
        self._squares = self._passes = self._sum = self._sum_squares = self._sizes_squared = 0.0
        self._by_size: dict[int, list[float]] = {}  # passes -> [prompts, sum of their means]

    def count(self, tally: _Tally, sign: int) -> None:
        """Take a prompt's sums in (sign 1) or out (-1)."""
        if not tally.n:
            return
        self._squares += sign * tally.squares
        self.freedom += sign * (tally.n - 1)
        self._passes += sign * tally.n
        self._sum += sign * tally.n * tally.mean
        self._sum_squares += sign * tally.n * tally.mean**2
        self._sizes_squared += sign * tally.n**2
        group = self._by_size.setdefault(tally.n, [0.0, 0.0])
        group[0] += sign
        group[1] += sign * tally.mean

    def estimate(self) -> None:
        prompts = sum(group[0] for group in self._by_size.values())
        self.within = max(self._squares, 0.0) / self.freedom if self.freedom else 0.0
        if prompts > 1:
            spread = (self._sum_squares - self._sum**2 / self._passes) / (prompts - 1)
            size = (self._passes - self._sizes_squared / self._passes) / (prompts - 1)
            self.between = max((spread - self.within) / size, SPREAD_FLOOR**2)
        weights = {n: 1 / (self.between + self.within / n) for n in self._by_size}
        total = sum(weights[n] * group[0] for n, group in self._by_size.items())
        self.mean = sum(weights[n] * group[1] for n, group in self._by_size.items()) / total

    def posterior(self, n: int, mean: float) -> tuple[float, float]:
        """Mean and deviation of a prompt's true score after n passes with this mean."""
        weight = self.between / (self.between + self.within / n)
        return self.mean + weight * (mean - self.mean), math.sqrt(weight * self.within / n)


class History:
    """The experiments of one series; `add` is the only way in.

    Hold `lock` to read several things that belong together while another thread adds.
    """

    def __init__(
        self,
        experiments: Iterable[Experiment] = (),
        *,
        deterministic: bool = False,
        inherited: str | None = None,
        series: str = "",
    ) -> None:
        self.lock = RLock()
        self.deterministic = deterministic
        self.inherited = inherited
        self.series = series  # the digest of what is asked
        self.experiments: list[Experiment] = []
        self.leader: Standing | None = None
        self.completed = 0
        self.repeats = 0
        self.since_lead = 0
        self.failures: Counter[str] = Counter()
        self.best_line: list[tuple[int, float]] = []  # iteration and estimate as it took the lead
        # By target, as they were before its confirmation: the best prompts, and the noise.
        self.contenders: dict[int, list[Standing]] = {}
        self.noise_before: dict[int, float] = {}
        self.measured: list[Experiment] = []  # scored confirmations and ablations
        self._baseline: _Tally | None = None
        self.inputs: set[str] = set()  # of the search
        # Where program.md is known: its inputs and held-out inputs.
        self.searched: tuple[str, ...] | None = None
        self.held_out: tuple[str, ...] | None = None
        self._numbers: set[int] = set()
        self._lowest = 1
        self._leads: Counter[str] = Counter()
        self._proposals: list[Experiment] = []
        self._tallies: dict[str, _Tally] = {}
        self._ranks: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
        self._lengths: list[tuple[int, str, str, int]] = []
        self._variances = _Variances()
        for experiment in experiments:
            self.add(experiment)

    def add(self, experiment: Experiment) -> bool:
        """Take in an ended experiment; true when its prompt took the lead by it."""
        with self.lock:
            self.experiments.append(experiment)
            if experiment.score is None:
                self.failures[(experiment.error or "unknown").split(":")[0][:60]] += 1
                return False
            if experiment.kind == "proposal":
                self._count_proposal(experiment)
            if experiment.kind in ("confirmation", "ablation"):
                self.measured.append(experiment)
            if experiment.kind == "confirmation" and experiment.iteration is not None:
                self.contenders.setdefault(experiment.iteration, self.top(CONTENDERS))
                self.noise_before.setdefault(experiment.iteration, self.noise or 0.0)
            if experiment.kind == "ablation" or not self._on_search_inputs(experiment):
                return False
            self._pool(experiment)
            return self._crown(experiment)

    def _count_proposal(self, experiment: Experiment) -> None:
        self.completed += 1
        self.since_lead += 1
        self.repeats += normalise(experiment.prompt) in self._tallies
        self._proposals.append(experiment)
        if experiment.iteration is not None:
            self._numbers.add(experiment.iteration)
        while self._lowest in self._numbers:
            self._lowest += 1

    def _on_search_inputs(self, experiment: Experiment) -> bool:
        inputs = {trial.input for trial in experiment.trials}
        if not self.inputs:
            self.inputs = inputs
        return inputs == self.inputs

    def _pool(self, experiment: Experiment) -> None:
        key = normalise(experiment.prompt)
        tally = self._tallies.get(key)
        if tally is None:
            tally = self._tallies[key] = _Tally(experiment.prompt, experiment.iteration)
            folded = key.casefold()
            insort(self._lengths, (len(folded), folded, key, _letters(folded)))
        if experiment.kind == "baseline":
            self._baseline = tally
        self._variances.count(tally, -1)
        if tally.n:
            ranks = self._ranks[tally.n]
            del ranks[bisect_left(ranks, (tally.mean, -len(key), key))]
        tally.take(experiment.passes())
        tally.records.append(experiment)
        insort(self._ranks[tally.n], (tally.mean, -len(key), key))
        self._variances.count(tally, 1)
        self._variances.estimate()

    def _crown(self, experiment: Experiment) -> bool:
        """Set the leader: the highest posterior mean, or the shortest prompt tied with it."""
        ranked = self.top(CONTENDERS)
        tied = [s for s in ranked if s.estimate >= ranked[0].estimate - self.tie]
        before, self.leader = self.leader, min(tied, key=lambda s: len(s.prompt))
        if not self.best_line or self.best_line[-1][1] != self.leader.estimate:
            self.best_line.append((len(self.experiments), self.leader.estimate))
        unchanged = before and normalise(before.prompt) == normalise(self.leader.prompt)
        if unchanged or normalise(self.leader.prompt) != normalise(experiment.prompt):
            return False
        if experiment.kind in ("baseline", "proposal"):
            self.since_lead = 0
            self._leads[experiment.strategy] += 1
        return True

    def _standing(self, tally: _Tally) -> Standing:
        estimate, deviation = self._variances.posterior(tally.n, tally.mean)
        return Standing(tally.prompt, tally.iteration, tally.n, tally.mean, estimate, deviation)

    def standing(self, prompt: str) -> Standing:
        """Where a prompt that has been tried stands; KeyError for any other."""
        return self._standing(self._tallies[normalise(prompt)])

    @property
    def baseline(self) -> Standing | None:
        return self._standing(self._baseline) if self._baseline else None

    @property
    def noise(self) -> float | None:
        """Standard deviation of a prompt's passes, in points; None until one has two passes."""
        return math.sqrt(self._variances.within) if self._variances.freedom else None

    @property
    def tie(self) -> float:
        """Differences of posterior means up to this many points are ties."""
        return TIE * (self.noise or 0.0)

    def top(self, k: int) -> list[Standing]:
        """The k best distinct prompts by posterior mean, best first, the shorter of equals."""
        # among equal numbers of passes the posterior mean rises with the mean: k of each suffice
        best = (entry[2] for ranks in self._ranks.values() for entry in islice(reversed(ranks), k))
        standings = [self._standing(self._tallies[key]) for key in best]
        return sorted(standings, key=lambda s: (-s.estimate, len(s.prompt)))[:k]

    def recent(self, k: int) -> list[Experiment]:
        """The last k scored proposals, oldest first."""
        return self._proposals[-k:]

    def trials(self, prompt: str) -> list[Trial]:
        """All trials of a prompt on the search's inputs."""
        tally = self._tallies.get(normalise(prompt))
        return [trial for record in tally.records for trial in record.trials] if tally else []

    def posterior(self, prompt: str, scores: Sequence[float] = ()) -> tuple[int, float, float]:
        """(samples, estimate, deviation) of a prompt when these passes come to those it has."""
        tally = self._tallies.get(normalise(prompt)) or _Tally(prompt, None)
        n = tally.n + len(scores)
        total = sum(scores) + (tally.n * tally.mean if tally.n else 0.0)
        return n, *self._variances.posterior(n, total / n)

    def next_number(self, running: Container[object] = ()) -> int:
        """The lowest iteration that is neither scored nor running; a failed one is tried again."""
        number = self._lowest
        while number in self._numbers or number in running:
            number += 1
        return number

    def twin(self, prompt: str) -> str | None:
        """The earlier prompt that this one repeats, exactly or nearly; None when it is new.

        Another number makes a new prompt, however alike: "at most 60 words" is not "90 words".
        """
        key = normalise(prompt)
        with self.lock:
            if key in self._tallies:
                return self._tallies[key].prompt
            folded = key.casefold()
            # ratio r allows a length difference of at most (2 - 2r)/r of the shorter
            longest = len(folded) * (1 + (200 - 2 * NEAR) / NEAR) + 1
            low = bisect_left(self._lengths, (math.floor(len(folded) ** 2 / longest) - 1,))
            high = bisect_right(self._lengths, (math.ceil(longest),))
            window = self._lengths[low:high]
        edits, mine = (1 - NEAR / 100) * (len(folded) + longest), _letters(folded)
        near = [entry for entry in window if (entry[3] ^ mine).bit_count() <= edits]
        texts = [entry[1] for entry in near]
        cutoff = max(NEAR, 100 - 50 * EDITS / len(folded)) if folded else NEAR
        numbers = NUMBER.findall(folded)
        for text, _, at in process.extract(
            folded, texts, scorer=fuzz.ratio, score_cutoff=cutoff, limit=None
        ):
            if NUMBER.findall(text) == numbers:
                return self._tallies[near[at][2]].prompt
        return None

    def passed_by_all(self) -> list[str]:
        """Labels of the criteria that every trial of the latest proposals passed in full."""
        lowest: dict[str, float] = {}
        for experiment in self.recent(RECENT):
            for trial in experiment.trials:
                for label, mark in trial.criteria.items():
                    lowest[label] = min(mark, lowest.get(label, 1.0))
        return [label for label, mark in lowest.items() if mark >= 1.0]

    def strategies(self) -> list[StrategyLine]:
        scores: dict[str, list[float]] = defaultdict(list)
        for experiment in self._proposals:
            scores[experiment.strategy].append(experiment.score or 0.0)
        return [
            StrategyLine(name, len(values), fmean(values), self._leads[name])
            for name, values in scores.items()
        ]

    def history_gain(self) -> Interval | None:
        """How much proposals that saw the history beat `fresh` ones; on first passes, which no
        choice touched."""
        first = [(e.strategy, e.passes()[0]) for e in self._proposals]
        saw = [score for strategy, score in first if strategy not in ("fresh", "carry over")]
        fresh = [score for strategy, score in first if strategy == "fresh"]
        return welch(saw, fresh) if len(saw) > 1 and len(fresh) > 1 else None
