"""The experiments in memory: how each prompt stands, who leads, how large the noise is.

The highest score flatters whoever had luck, so each distinct prompt pools the samples of all its
records and is shrunk toward the mean of all prompts. A sample is a pass over the inputs or, where
there are many, a block of them. All is a pure function of what was added, in that order.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from statistics import fmean
from threading import RLock

from rapidfuzz import fuzz, process

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.intervals import Interval, welch
from autoresearch.search.posterior import Block, Posterior, Sample
from autoresearch.text import named, normalise

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


def _letters(text: str) -> int:
    """How often the common letters occur, each in unary: the bits in which two texts differ are
    the least edits between them, which tells nearly all of 10,000 prompts apart."""
    bits = 0
    for letter in "etaoinsrhldcumfpgwybvkjxqz .-":
        bits = bits << 400 | (1 << min(text.count(letter), 400)) - 1
    return bits


def in_blocks(inputs: Sequence[str]) -> tuple[Block, ...]:
    """The inputs of the search as every prompt meets them: all at once, or in blocks of about 8, in
    the order of a hash, so that rows which come or go leave the others in their places."""
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
        self.held_out = held_out  # None where program.md is not known
        self.deterministic = deterministic
        self.inherited = inherited  # the best prompt of the series before
        self.series = series  # the digest of what is asked
        self.experiments: list[Experiment] = []
        self.leader: Standing | None = None
        self.proposals: list[Experiment] = []  # scored
        self.completed = self.since_lead = 0  # of these
        self.failures: Counter[str] = Counter()
        # records so far, what the leader was believed to score then: later samples take it down
        self.best_line: list[tuple[int, float]] = []
        self.contenders: dict[int, list[Standing]] = {}  # by target, before its confirmation
        self.measured: list[Experiment] = []  # scored confirmations and ablations
        self._baseline: str | None = None
        self._numbers: set[int | None] = set()
        self._lowest = 1
        self._leads: Counter[str] = Counter()
        self._first: list[tuple[str, Block, float]] = []  # strategy and first sample of proposals
        self._records: dict[str, list[Experiment]] = {}  # by prompt, on the search's inputs
        self._by_length: dict[int, list[tuple[str, int, str]]] = defaultdict(list)
        self._refusals: Counter[str] = Counter()
        self._answered: set[str] = set()
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
        # what one sample and several are called
        self.unit = ("block", "blocks") if len(self.blocks) > 1 else ("pass", "passes")

    def add(self, experiment: Experiment) -> bool:
        """Take in an ended experiment; true when its prompt took the lead by it."""
        with self.lock:
            self.experiments.append(experiment)
            if experiment.score is None:
                error = experiment.error or "unknown"
                self.failures[error.split(":")[0][:60]] += 1
                if named := ON_INPUT.search(error):
                    self._refusals[named[1]] += 1
                    self._arrange(self._order)
                return False
            self._answered.update(trial.input for trial in experiment.trials)
            if experiment.kind == "proposal":
                self.completed += 1
                self.since_lead += 1
                self.proposals.append(experiment)
                self._numbers.add(experiment.iteration)
            if experiment.kind in ("confirmation", "ablation"):
                self.measured.append(experiment)
            if experiment.kind == "confirmation" and experiment.iteration is not None:
                self.contenders.setdefault(experiment.iteration, self.top(CONTENDERS))
            samples = self.samples(experiment) if experiment.kind != "ablation" else []
            return bool(samples) and self._pool(experiment, samples)

    def samples(self, experiment: Experiment) -> list[Sample]:
        """Its passes or blocks, of the inputs of the search alone.

        A whole block ends a sample, or an input met again; or, as rows came or went, eight.
        """
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
            folded = key.casefold()
            self._by_length[len(folded)].append((folded, _letters(folded), key))
        if experiment.kind == "baseline":
            self._baseline = key
        self._records.setdefault(key, []).append(experiment)
        if experiment.kind == "proposal":
            self._first.append((experiment.strategy, samples[0][0], fmean(samples[0][1])))
        self._posterior.add(key, samples)
        ranked = self.top(CONTENDERS)
        tied = [s for s in ranked if s.estimate >= ranked[0].estimate - self.tie]
        before, self.leader = self.leader, min(tied, key=lambda s: len(s.prompt))
        if not self.best_line or self.best_line[-1][1] != self.leader.estimate:
            self.best_line.append((len(self.experiments), self.leader.estimate))
        if normalise(self.leader.prompt) != key or before and normalise(before.prompt) == key:
            return False
        if experiment.kind in ("baseline", "proposal"):
            self.since_lead = 0
            self._leads[experiment.strategy] += 1
        return True

    def standing(self, prompt: str, samples: Sequence[Sample] = ()) -> Standing:
        """Where a prompt stands, or would with these samples; KeyError where there are none."""
        key = normalise(prompt)
        first = self._records[key][0] if not samples else Experiment(None, prompt=prompt)
        return Standing(first.prompt, first.iteration, *self._posterior.of(key, samples))

    @property
    def baseline(self) -> Standing | None:
        return None if self._baseline is None else self.standing(self._baseline)

    def top(self, k: int) -> list[Standing]:
        """The k best distinct prompts by posterior mean, best first, the shorter of equals."""
        best = [(self._records[key][0], estimate) for key, estimate in self._posterior.best(k)]
        standings = [Standing(e.prompt, e.iteration, *estimate) for e, estimate in best]
        return sorted(standings, key=lambda s: (-s.estimate, len(s.prompt)))[:k]

    def met(self, prompt: str, samples: Sequence[Sample] = ()) -> Counter[Block]:
        """How often a prompt met each block, these samples included."""
        return self._posterior.met(normalise(prompt), samples)

    @property
    def noise(self) -> float | None:
        """Standard deviation of a prompt's samples, in points; None until one has two."""
        return math.sqrt(self._posterior.within) if self._posterior.freedom else None

    @property
    def tie(self) -> float:
        """Differences of posterior means up to this many points are ties."""
        return TIE * (self.noise or 0.0)

    def trials(self, prompt: str) -> list[Trial]:
        """All trials of a prompt on the search's inputs."""
        records = self._records.get(normalise(prompt), ())
        every = (trial for record in records for trial in record.trials)
        return [trial for trial in every if trial.input in self.inputs]

    def next_number(self, running: Container[object] = ()) -> int:
        """The lowest iteration that is neither scored nor running; a failed one is tried again."""
        while self._lowest in self._numbers:
            self._lowest += 1
        taken = self._numbers
        return next(n for n in count(self._lowest) if n not in taken and n not in running)

    def twin(self, prompt: str) -> str | None:
        """The earlier prompt that this one repeats, exactly or nearly; None when it is new.

        Another number makes a new prompt, however alike: "at most 60 words" is not "90 words".
        """
        key = normalise(prompt)
        with self.lock:
            if key in self._records:
                return self._records[key][0].prompt
            folded = key.casefold()
            cutoff = max(NEAR, 100 - 50 * EDITS / max(1, len(folded)))
            # ratio r allows a length difference of at most (2 - 2r)/r of the shorter
            longest = len(folded) * (200 / cutoff - 1) + 1
            lengths = range(math.floor(len(folded) ** 2 / longest) - 1, math.ceil(longest) + 1)
            window = [entry for n in lengths for entry in self._by_length.get(n, ())]
        edits, mine = (1 - cutoff / 100) * (len(folded) + longest), _letters(folded)
        near = [entry for entry in window if (entry[1] ^ mine).bit_count() <= edits]
        texts, numbers = [entry[0] for entry in near], NUMBER.findall(folded)
        for text, _, at in process.extract(
            folded, texts, scorer=fuzz.ratio, score_cutoff=cutoff, limit=None
        ):
            if NUMBER.findall(text) == numbers:
                return self._records[near[at][2]][0].prompt
        return None

    def passed_by_all(self) -> list[str]:
        """Labels of the criteria that every trial of the latest proposals passed in full."""
        marks = [trial.criteria for e in self.proposals[-RECENT:] for trial in e.trials]
        labels = dict.fromkeys(label for each in marks for label in each)
        return [label for label in labels if all(each.get(label, 1) >= 1 for each in marks)]

    def strategies(self) -> list[tuple[str, int, float, int]]:
        """Of each its name, experiments, their mean score, and how often one took the lead."""
        scores: dict[str, list[float]] = defaultdict(list)
        for experiment in self.proposals:
            scores[experiment.strategy].append(experiment.score or 0.0)
        return [(name, len(each), fmean(each), self._leads[name]) for name, each in scores.items()]

    def history_gain(self) -> Interval | None:
        """How much proposals that saw the history beat `fresh` ones; on first passes or blocks,
        which no choice touched."""
        first: dict[str, list[float]] = defaultdict(list)
        for strategy, block, mean in self._first:
            first[strategy].append(mean - self._posterior.ease({block: 1}))
        fresh, _ = first.pop("fresh", []), first.pop("carry over", None)
        saw = [value for values in first.values() for value in values]
        return welch(saw, fresh) if len(saw) > 1 and len(fresh) > 1 else None


def searched(experiments: Iterable[Experiment]) -> list[str]:
    """The inputs that these records met, but for the final ones, which may be held out."""
    rounds = (e for e in experiments if e.kind != "ablation" and e.strategy != "final")
    return list(dict.fromkeys(trial.input for e in rounds for trial in e.trials))
