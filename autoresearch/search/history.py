"""The experiments in memory: how each prompt stands, who leads, how large the noise is.

The highest score flatters whoever had luck, so each distinct prompt pools the samples of all its
records and is shrunk toward the mean of all prompts. A sample is a pass over the inputs or, where
there are many, a block of them. All is a pure function of what was added, in that order.
"""

import math
import re
from collections import Counter, defaultdict, deque
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import chain, count, pairwise
from statistics import fmean
from threading import RLock
from typing import NamedTuple

from rapidfuzz import fuzz, process

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.intervals import Interval, welch
from autoresearch.search.posterior import Block, Posterior, Sample
from autoresearch.text import named, normalise

WHOLE = 24  # inputs up to which a pass is all of them; beyond
BLOCK = 8  # it is a block of so many
NEAR = 97.0  # rapidfuzz ratio, 0-100, from which two prompts are near repeats,
EDITS = 60  # unless so many letters were added or taken out: a sentence is no slip of the pen
LATEST = 1000  # distinct prompts that near repeats are looked for in, beside the leading ones
NUMBER = re.compile(r"\d+")
TIE = 0.1  # of the noise: a difference that the search does not tell from none
CONTENDERS = 8  # prompts that enter the confirmation
RECENT = 25  # proposals over which a criterion counts as passed by everything
REFUSED = 2  # failures that name an input which was never answered: it is left out from then on
ON_INPUT = re.compile(r'input "(.*)"\)\Z')  # how an error names it

Outline = tuple[str, list[str], int, int]  # a prompt's key, numbers, letters, length


class Standing(NamedTuple):
    """Where one prompt stands: `samples` (passes, or blocks) with their `mean` less difficulty;
    `estimate` and `deviation` are the posterior's, in points."""

    prompt: str
    iteration: int | None
    samples: int
    mean: float
    estimate: float
    deviation: float


@lru_cache(maxsize=64)
def _outline(prompt: str) -> Outline:
    """How often 16 letters occur is told by 32 bits each, of which one turns at every step (Johnson
    counters): no more bits differ between two prompts than there are edits."""
    text, bits = (key := normalise(prompt)).casefold(), 0
    for letter in "etaoinsrhldcumfp":
        turns, ones = divmod(text.count(letter), 32)
        bits = bits << 32 | ((1 << ones) - 1 ^ turns % 2 * 0xFFFFFFFF)
    return key, NUMBER.findall(text), bits, len(text)


def in_blocks(inputs: Sequence[str]) -> tuple[Block, ...]:
    """The inputs of the search as every prompt meets them: all at once, or in blocks of about 8, in
    the order of a hash, so that rows which come or go leave the others in their places."""
    if len(inputs) <= WHOLE:
        return (tuple(inputs),)
    order = sorted(inputs, key=lambda text: sha256(text.encode("utf-8", "replace")).digest())
    starts = range(0, BLOCK * round(len(order) / BLOCK), BLOCK)  # the last takes what is left over
    return tuple(tuple(order[at:end]) for at, end in pairwise((*starts, len(order))))


class History:
    """The experiments of one series; `add` is the only way in.

    `inputs`: the texts of the search's inputs; without them those that its records met. Trials of
    others are left out. `blocks` are these inputs, in order, less any that is always refused.
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
        criteria: str = "",
    ) -> None:
        self.lock = RLock()
        self.held_out = held_out  # None where program.md is not known
        self.deterministic = deterministic
        self.inherited = inherited  # the best prompt of the series before
        self.series = series  # digest of what is asked,
        self.criteria = criteria  # and of how it is scored
        self.experiments = list[Experiment]()
        self.proposals = list[Experiment]()  # scored
        self.measured = list[Experiment]()  # scored confirmations and ablations
        self.tokens = 0  # billed for all of them
        self.cost: float | None = 0.0  # USD; None as soon as one price is unknown
        self.failures, self._refusals = Counter[str](), Counter[str]()  # by cause, by input
        self.spoilers: set[str] | None = None  # inputs that all failures since the last score name
        self.completed = self.since_lead = 0  # proposals scored, and those since the latest leader
        self.leader: Standing | None = None
        self.baseline: Standing | None = None
        self.noise: float | None = None  # deviation of a prompt's samples; None until one has two
        self.tie = 0.0  # points; smaller differences of estimates are ties
        self.best_line = list[tuple[int, float]]()  # records so far, the leader's estimate then
        self.contenders: dict[int, list[Standing]] = {}  # by target, before its confirmation
        self._leading, self._led = list[Standing](), Counter[str]()  # the best few; by strategy
        self._answered, self._numbers, self._lowest = set[str](), set[int | None](), 1
        self._tried, self._sums = Counter[str](), defaultdict[str, float](float)  # by strategy
        self._first = defaultdict[tuple[str, Block], list[float]](list)  # and their first samples
        self._records: dict[str, list[Experiment]] = {}  # by prompt, on the search's inputs
        self._by_length = defaultdict[int, deque[Outline]](deque)  # the latest distinct prompts,
        self._lengths = deque[int]()  # and their lengths, oldest first
        self._posterior = Posterior()
        experiments = list(experiments)
        self._arrange(inputs or searched(experiments))
        for experiment in experiments:
            self.add(experiment)

    def _arrange(self, inputs: Sequence[str]) -> None:
        """All inputs but those that spoilt several experiments and were never answered."""
        unanswered = [text for text in inputs if text not in self._answered]
        self.left_out = [text for text in unanswered if self._refusals[named(text)] >= REFUSED]
        kept = [text for text in inputs if text not in self.left_out] or inputs
        self._order, self.inputs, self.blocks = inputs, set(kept), in_blocks(kept)
        self._block = {text: block for block in self.blocks for text in block}
        self.unit = ("block", "blocks") if len(kept) > WHOLE else ("pass", "passes")

    def add(self, experiment: Experiment) -> bool:
        """Take in an ended experiment; true when its prompt took the lead by it."""
        with self.lock:
            self.experiments.append(experiment)
            self.tokens += experiment.tokens or 0
            if experiment.tokens and self.cost is not None:
                self.cost = None if experiment.cost is None else self.cost + experiment.cost
            if experiment.score is None:
                error = experiment.error or "unknown"
                self.failures[error.split(":")[0][:60]] += 1
                names = set(ON_INPUT.findall(error))
                self.spoilers = names if self.spoilers is None else names & self.spoilers
                if names:
                    self._refusals.update(names)
                    self._arrange(self._order)
                return False
            self.spoilers, samples = None, self.samples(experiment)
            self._answered.update(trial.input for trial in experiment.trials)
            if experiment.kind == "proposal":
                self.completed += 1
                self.since_lead += 1
                self.proposals.append(experiment)
                self._tried[experiment.strategy] += 1
                self._sums[experiment.strategy] += experiment.score
                self._numbers.add(experiment.iteration)
                for block, scores in samples[:1]:
                    self._first[experiment.strategy, block].append(fmean(scores))
            if experiment.kind in ("confirmation", "ablation"):
                self.measured.append(experiment)
            if experiment.kind == "confirmation" and experiment.iteration is not None:
                self.contenders.setdefault(experiment.iteration, self._leading)
            counts = bool(samples) and experiment.kind != "ablation"
            return counts and self._pool(experiment, samples)

    def samples(self, experiment: Experiment) -> list[Sample]:
        """Its passes or blocks, on the search's inputs alone: a sample ends with a whole block,
        before an input met again, or, as rows came or went, with eight of them."""
        if not experiment.trials:
            return [] if experiment.score is None else [((), [experiment.score])]
        if not self.inputs:
            self._arrange(searched([experiment]))
        parts: list[dict[str, float]] = []
        for trial in (trial for trial in experiment.trials if trial.input in self._block):
            met = tuple(parts[-1]) if parts else ()
            block = self._block[met[-1]] if met else ()
            ends = len(met) >= BLOCK and self._block[trial.input] is not block
            if met == block or ends or trial.input in met:
                parts.append({})
            parts[-1][trial.input] = trial.score
        return [(tuple(part), [*part.values()]) for part in parts]

    def _pool(self, experiment: Experiment, samples: Sequence[Sample]) -> bool:
        """Set the leader: the highest posterior mean, or the shortest prompt tied with it."""
        key = normalise(experiment.prompt)
        if key not in self._records:
            *_, length = outline = _outline(experiment.prompt)
            self._by_length[length].append(outline)
            self._lengths.append(length)
            if len(self._lengths) > LATEST:
                self._by_length[self._lengths.popleft()].popleft()
        self._records.setdefault(key, []).append(experiment)
        self._posterior.add(key, samples)
        self.noise = math.sqrt(self._posterior.within) if self._posterior.freedom else None
        self.tie = TIE * (self.noise or 0.0)
        if base := experiment if experiment.kind == "baseline" else self.baseline:
            self.baseline = self.standing(base.prompt)
        self._leading = self.top(CONTENDERS)
        tied = [s for s in self._leading if s.estimate >= self._leading[0].estimate - self.tie]
        before, self.leader = self.leader, min(tied, key=lambda s: len(s.prompt))
        if before is None or before.estimate != self.leader.estimate:
            self.best_line.append((len(self.experiments), self.leader.estimate))
        mine = self._records[key][0].prompt
        took_lead = self.leader.prompt == mine and (before is None or before.prompt != mine)
        if took_lead and experiment.kind in ("baseline", "proposal"):
            self.since_lead = 0
            self._led[experiment.strategy] += 1
        return took_lead

    def standing(self, prompt: str, samples: Sequence[Sample] = ()) -> Standing:
        """Where a prompt stands, or would with these samples; KeyError where there are none."""
        key = normalise(prompt)
        first = self._records[key][0] if not samples else Experiment(None, prompt=prompt)
        return Standing(first.prompt, first.iteration, *self._posterior.of(key, samples))

    def top(self, k: int) -> list[Standing]:
        """The k best distinct prompts by posterior mean, best first, the shorter of equals."""
        best = [(self._records[key][0], estimate) for key, estimate in self._posterior.best(k)]
        standings = [Standing(e.prompt, e.iteration, *estimate) for e, estimate in best]
        return sorted(standings, key=lambda s: (-s.estimate, len(s.prompt)))[:k]

    def met(self, prompt: str, samples: Sequence[Sample] = ()) -> Counter[Block]:
        """How often a prompt met each block, these samples included."""
        return self._posterior.met(normalise(prompt), samples)

    def trials(self, prompt: str) -> list[Trial]:
        """All trials of a prompt on the search's inputs."""
        records = self._records.get(normalise(prompt), ())
        return [trial for e in records for trial in e.trials if trial.input in self.inputs]

    def next_number(self, running: Container[object] = ()) -> int:
        """The lowest iteration that is neither scored nor running; a failed one is tried again."""
        while self._lowest in self._numbers:
            self._lowest += 1
        return next(n for n in count(self._lowest) if n not in running and n not in self._numbers)

    def twin(self, prompt: str) -> str | None:
        """The earlier prompt that this one repeats or, of the latest and leading, nearly; None
        when it is new. Another number makes it new: "at most 60 words" is not "90 words"."""
        key, numbers, letters, size = _outline(prompt)
        cutoff = max(NEAR, 100 - 50 * EDITS / max(1, size))
        edits = math.ceil(2 * size * (100 / cutoff - 1))  # at most: the other is longer by them
        with self.lock:
            if key in self._records:
                return self._records[key][0].prompt
            latest = (self._by_length.get(size + n, ()) for n in range(-edits, edits + 1))
            leading = (_outline(standing.prompt) for standing in self._leading)
            alike = {
                known: known.casefold()
                for known, its, bits, _ in chain(*latest, leading)
                if its == numbers and (bits ^ letters).bit_count() <= edits
            }
        found = process.extractOne(key.casefold(), alike, scorer=fuzz.ratio, score_cutoff=cutoff)
        return self._records[found[2]][0].prompt if found else None

    def passed_by_all(self) -> list[str]:
        """Labels of the criteria that every trial of the latest proposals passed in full."""
        marks = [trial.criteria for e in self.proposals[-RECENT:] for trial in e.trials]
        labels = dict.fromkeys(chain(*marks))
        return [label for label in labels if all(each.get(label, 1) >= 1 for each in marks)]

    def strategies(self) -> list[tuple[str, int, float, int]]:
        """Of each its name, experiments, their mean score, and how often one took the lead."""
        return [(s, n, self._sums[s] / n, self._led[s]) for s, n in self._tried.items()]

    def history_gain(self) -> Interval | None:
        """How much seeing the history gains over `fresh` proposals, by first, unchosen samples."""
        saw, fresh = list[float](), list[float]()
        for (strategy, block), means in self._first.items():
            if strategy != "carry over":  # made by the series before
                ease = self._posterior.ease({block: 1})
                (fresh if strategy == "fresh" else saw).extend(mean - ease for mean in means)
        return welch(saw, fresh) if min(len(saw), len(fresh)) > 1 else None


def searched(experiments: Iterable[Experiment]) -> list[str]:
    """The inputs that these records met, but for the final ones, which may be held out."""
    rounds = (e for e in experiments if e.kind != "ablation" and e.strategy != "final")
    return list(dict.fromkeys(trial.input for e in rounds for trial in e.trials))
