"""The experiments in memory: how each prompt stands, who leads, how large the noise is.

A score is one draw from a prompt's distribution, so the highest score flatters whoever had luck.
Each distinct prompt pools the samples of all its records here and is shrunk toward the mean of all
prompts, as far as the noise demands. A sample is a pass over the inputs or, where there are many,
a block of them. All is a pure function of what was added, in that order.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from statistics import fmean
from threading import RLock

from rapidfuzz import fuzz, process

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.intervals import Interval, welch
from autoresearch.search.posterior import Block, Estimate, Posterior, Sample
from autoresearch.text import normalise, short

WHOLE = 24  # inputs up to which a pass is all of them; beyond
BLOCK = 8  # it is a block of so many
NEAR = 97.0  # rapidfuzz ratio, 0-100, from which two prompts are near repeats,
EDITS = 60  # unless so many letters were added or taken out: a sentence is no slip of the pen
NUMBER = re.compile(r"\d+")
TIE = 0.1  # of the noise: a difference that the search does not tell from none
CONTENDERS = 8  # prompts that enter the confirmation
RECENT = 25  # proposals over which a criterion counts as passed by everything
REFUSED = 2  # failures that name an input which was never answered: it is left out from then on
ON_INPUT = re.compile(r'input "(.*)"\)\Z')  # how an error names it


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one prompt stands: `samples` (passes, or blocks) with their `mean` less difficulty;
    `estimate` and `deviation` are the posterior's, in points."""

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


def _letters(text: str) -> int:
    """How often the common letters occur, each in unary.

    The bits in which two texts differ are insertions and deletions that they need at the least:
    nearly all of 10,000 prompts are told apart by that, without being compared.
    """
    bits = 0
    for letter in "etaoinsrhldcumfpgwybvk":
        bits = bits << 60 | (1 << min(text.count(letter), 60)) - 1
    return bits


def in_blocks(inputs: Sequence[str]) -> tuple[Block, ...]:
    """The inputs of the search as every prompt meets them: all at once, or in blocks of about 8.

    The order is that of a hash, so that rows which come or go leave the others in their places.
    """
    if len(inputs) <= WHOLE:
        return (tuple(inputs),)
    order = sorted(inputs, key=lambda text: sha256(text.encode("utf-8", "replace")).digest())
    last = BLOCK * (round(len(order) / BLOCK) - 1)  # takes what is left over
    starts = range(0, last, BLOCK)
    return (*(tuple(order[at : at + BLOCK]) for at in starts), tuple(order[last:]))


class History:
    """The experiments of one series; `add` is the only way in.

    `inputs`: the texts of the search's inputs; without them those that its records met. Trials of
    others are left out. `blocks` are these inputs, in order, less any that is always refused.
    `best_line`: after so many records the leader was taken to score so much, as believed then: it
    falls where later samples take the leader down.
    Hold `lock` to read several things that belong together while another thread adds.
    """

    def __init__(
        self,
        experiments: Iterable[Experiment] = (),
        *,
        inputs: Sequence[str] = (),
        held_out: Sequence[str] | None = None,
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
        self.best_line: list[tuple[int, float]] = []  # records so far, the leader's estimate then
        self.contenders: dict[int, list[Standing]] = {}  # by target, before its confirmation
        self.measured: list[Experiment] = []  # scored confirmations and ablations
        self._baseline: str | None = None
        self.held_out = None if held_out is None else tuple(held_out)  # where program.md is known
        self._numbers: set[int] = set()
        self._lowest = 1
        self._leads: Counter[str] = Counter()
        self._proposals: list[Experiment] = []
        self._records: dict[str, list[Experiment]] = {}  # by prompt, on the search's inputs
        self._lengths: list[tuple[int, str, str, int]] = []
        self._refusals: Counter[str] = Counter()
        self._answered: set[str] = set()
        self._posterior = Posterior()
        experiments = list(experiments)
        self._arrange(inputs or _searched(experiments))
        for experiment in experiments:
            self.add(experiment)

    def _arrange(self, inputs: Sequence[str]) -> None:
        self._order = tuple(inputs)
        kept = [text for text in inputs if not self.refused(text)] or inputs
        self.inputs, self.blocks = set(kept), in_blocks(kept)
        self._block = {text: block for block in self.blocks for text in block}

    def add(self, experiment: Experiment) -> bool:
        """Take in an ended experiment; true when its prompt took the lead by it."""
        with self.lock:
            self.experiments.append(experiment)
            if experiment.score is None:
                self._count_failure(experiment.error or "unknown")
                return False
            self._answered.update(trial.input for trial in experiment.trials)
            if experiment.kind == "proposal":
                self._count_proposal(experiment)
            if experiment.kind in ("confirmation", "ablation"):
                self.measured.append(experiment)
            if experiment.kind == "confirmation" and experiment.iteration is not None:
                self.contenders.setdefault(experiment.iteration, self.top(CONTENDERS))
            if experiment.kind == "ablation" or not self._pool(experiment):
                return False
            return self._crown(experiment)

    def _count_failure(self, error: str) -> None:
        self.failures[error.split(":")[0][:60]] += 1
        if named := ON_INPUT.search(error):
            self._refusals[named[1]] += 1
            self._arrange(self._order)

    def refused(self, text: str) -> bool:
        """Whether an input spoilt several experiments and was never answered."""
        return self._refusals[short(text)] >= REFUSED and text not in self._answered

    @property
    def left_out(self) -> list[str]:
        """The inputs of the search that are left out for that."""
        return [text for text in self._order if self.refused(text)]

    def _count_proposal(self, experiment: Experiment) -> None:
        self.completed += 1
        self.since_lead += 1
        self.repeats += normalise(experiment.prompt) in self._records
        self._proposals.append(experiment)
        if experiment.iteration is not None:
            self._numbers.add(experiment.iteration)
        while self._lowest in self._numbers:
            self._lowest += 1

    def samples(self, experiment: Experiment) -> list[Sample]:
        """Its passes or blocks, of the inputs of the search alone."""
        if not experiment.trials:
            return [] if experiment.score is None else [((), [experiment.score])]
        if not self.inputs:
            self._arrange(_searched([experiment]))
        trials = [trial for trial in experiment.trials if trial.input in self._block]
        parts = self._in_parts(trials)
        return [(tuple(t.input for t in part), [t.score for t in part]) for part in parts]

    def _in_parts(self, trials: Sequence[Trial]) -> list[list[Trial]]:
        """A whole block ends a part, or an input met again; or, as rows came or went, eight."""
        parts: list[list[Trial]] = []
        for trial in trials:
            met = tuple(t.input for t in parts[-1]) if parts else ()
            block = self._block[met[-1]] if met else ()
            ends = len(met) >= BLOCK and self._block[trial.input] is not block
            if met == block or ends or trial.input in met:
                parts.append([])
            parts[-1].append(trial)
        return parts

    def _pool(self, experiment: Experiment) -> bool:
        samples, key = self.samples(experiment), normalise(experiment.prompt)
        if not samples:
            return False
        if key not in self._records:
            folded = key.casefold()
            insort(self._lengths, (len(folded), folded, key, _letters(folded)))
        if experiment.kind == "baseline":
            self._baseline = key
        self._records.setdefault(key, []).append(experiment)
        self._posterior.add(key, samples)
        return True

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

    def _standing(self, key: str, estimate: Estimate) -> Standing:
        first = self._records[key][0]
        return Standing(first.prompt, first.iteration, *estimate)

    def standing(self, prompt: str, samples: Sequence[Sample] = ()) -> Standing:
        """Where a prompt stands, or would with these samples; KeyError where there are none."""
        key = normalise(prompt)
        first = self._records[key][0] if not samples else Experiment(None, prompt=prompt)
        return Standing(first.prompt, first.iteration, *self._posterior.of(key, samples))

    def met(self, prompt: str, samples: Sequence[Sample] = ()) -> Counter[Block]:
        """How often a prompt met each block, these samples included."""
        return self._posterior.met(normalise(prompt), samples)

    def values(self, samples: Sequence[Sample]) -> list[float]:
        """Each sample's mean less what its inputs are easier than others."""
        return [fmean(scores) - self._posterior.ease({block: 1}) for block, scores in samples]

    @property
    def baseline(self) -> Standing | None:
        if self._baseline is None:
            return None
        return self._standing(self._baseline, self._posterior.of(self._baseline))

    @property
    def noise(self) -> float | None:
        """Standard deviation of a prompt's samples, in points; None until one has two."""
        return math.sqrt(self._posterior.within) if self._posterior.freedom else None

    @property
    def unit(self) -> tuple[str, str]:
        """What one sample and several are called."""
        return ("block", "blocks") if len(self.blocks) > 1 else ("pass", "passes")

    @property
    def tie(self) -> float:
        """Differences of posterior means up to this many points are ties."""
        return TIE * (self.noise or 0.0)

    def top(self, k: int) -> list[Standing]:
        """The k best distinct prompts by posterior mean, best first, the shorter of equals."""
        standings = [self._standing(*found) for found in self._posterior.best(k)]
        return sorted(standings, key=lambda s: (-s.estimate, len(s.prompt)))[:k]

    def recent(self, k: int) -> list[Experiment]:
        """The last k scored proposals, oldest first."""
        return self._proposals[-k:]

    def trials(self, prompt: str) -> list[Trial]:
        """All trials of a prompt on the search's inputs."""
        records = self._records.get(normalise(prompt), ())
        every = (trial for record in records for trial in record.trials)
        return [trial for trial in every if trial.input in self.inputs]

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
            if key in self._records:
                return self._records[key][0].prompt
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
                return self._records[near[at][2]][0].prompt
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
        """How much proposals that saw the history beat `fresh` ones; on first passes or blocks,
        which no choice touched."""
        every = [(e.strategy, self.values(self.samples(e)[:1])) for e in self._proposals]
        first = [(strategy, values[0]) for strategy, values in every if values]
        saw = [score for strategy, score in first if strategy not in ("fresh", "carry over")]
        fresh = [score for strategy, score in first if strategy == "fresh"]
        return welch(saw, fresh) if len(saw) > 1 and len(fresh) > 1 else None


def _searched(experiments: Iterable[Experiment]) -> list[str]:
    """The inputs that these records met, but for the final ones, which may be held out."""
    rounds = (e for e in experiments if e.kind != "ablation" and e.strategy != "final")
    return list(dict.fromkeys(trial.input for e in rounds for trial in e.trials))
