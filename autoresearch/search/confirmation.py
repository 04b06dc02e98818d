"""What is measured on fresh samples after the search: which prompt wins, by how much, how sure.

The search's best score was chosen because it was high, so it is biased upward. Successive halving
(Karnin, Koren, Somekh, Almost optimal exploration in multi-armed bandits, ICML 2013) picks the
winner; then winner, baseline and a much shorter contender are measured on samples that no choice
was made on, and only those are reported. Each function here is a pure function of the history, so
that an interrupted confirmation goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.history import CONTENDERS, History
from autoresearch.search.intervals import (
    ALPHA,
    Bounds,
    Groups,
    Interval,
    binomial,
    pseudo_paired,
    student,
    within,
)
from autoresearch.text import count, normalise, short

ROUND = 24  # passes in one round of halving, shared by its contenders
BLOCKS = 16  # blocks in one round, where the inputs are raced over in blocks
BLOCKED, BLOCK = 24, 8  # more search inputs than this are raced over blocks of so many
FINAL = 15  # fresh trials of each prompt of the final at least, more where the noise is large
FINAL_MOST = 60  # passes
STANDARD_ERROR = 0.25  # points: what the noise of the answers may leave in the reported mean
SAMPLE = 5  # held-out inputs from which they stand for others of their kind
MOST = 200  # inputs in the final; of more a fixed sample
PART = 32  # inputs in one step
REFUSED = 2  # failures on a held-out input after which it is left out
MARGIN = 0.3  # points that a shorter prompt may lose and still pass as equal
SAVING = 0.15  # of the characters that it must save
FEW = 4  # distinct scores up to which they are taken for labels

Scores = Mapping[str, list[float]]  # input -> the score of each pass


@dataclass(frozen=True)
class Step:
    """What to do next: `passes` of `prompt` over `inputs`, by default all those of the search.

    A proposal's prompt and passes show only while it runs.
    """

    stage: str
    prompt: str
    passes: int
    held_out: bool = False
    kind: str = "confirmation"
    iteration: int = 0
    inputs: tuple[str, ...] | None = None

    def of(self, passes: int) -> Step:
        return replace(self, passes=passes)


@dataclass(frozen=True)
class Shortest:
    """A prompt that saves characters and loses less than MARGIN: `loss` is its score minus the
    winner's, on the same samples."""

    prompt: str
    score: Interval
    loss: Interval


@dataclass(frozen=True)
class Confirmation:
    """The result: scores from fresh samples alone; `believed` is what the search took it for.

    The intervals hold for the very inputs that were measured or, where `generalises`, for others of
    their kind: only a sample of inputs that no choice was made on can tell that.
    """

    target: int
    winner: str  # what the search and the halving put forward
    baseline: str
    best: str  # of the two the one with the higher mean here; of equals the shorter
    winner_score: Interval
    baseline_score: Interval
    difference: Interval  # winner - baseline
    chance: float  # that `best` is truly the better of the two
    believed: float
    inputs: int
    passes: int  # of each input
    held_out: bool
    generalises: bool
    labels: bool  # scores of a few values, so binomial intervals
    shortest: Shortest | None
    skipped: tuple[str, ...]  # held-out inputs that could not be asked

    @property
    def improved(self) -> bool:
        return self.difference.low > 0

    @property
    def worse(self) -> bool:
        return self.difference.high < 0


# ---- what to measure


def next_steps(
    history: History, target: int, held_out: Sequence[str] = (), searched: Sequence[str] = ()
) -> list[Step]:
    """What to measure now for the confirmation at `target` iterations; [] when it is complete.

    `searched` are the search's inputs, by default those it met. A step may be taken in parts: it
    comes again with the passes that are still missing.
    """
    searched = searched or history.searched or sorted(history.inputs)
    halving = _Halving(history, target, searched)
    if not halving.alive:
        return []
    if len(halving.alive) > 1:
        inputs, passes = halving.next_round()
        prompts = [standing.prompt for standing in halving.alive]
        return missing_steps(history, target, halving.stage, prompts, inputs, passes)
    inputs = _final_inputs(history, target, held_out or searched)
    passes = _final_passes(history, len(inputs))
    finalists = {normalise(p): p for p in _finalists(history, halving) if p is not None}
    return missing_steps(
        history, target, "final", finalists.values(), inputs, passes, bool(held_out)
    )


def cost_ahead(
    history: History, target: int, held_out: Sequence[str] = (), searched: Sequence[str] = ()
) -> int:
    """Calls that the confirmation will still need."""
    searched = searched or history.searched or sorted(history.inputs)
    steps = next_steps(history, target, held_out, searched)
    calls = sum(step.passes * len(step.inputs or searched) for step in steps)
    if not steps or steps[0].stage == "final":
        return calls
    halving = _Halving(history, target, searched)
    rounds = math.ceil(math.log2(len(halving.alive))) - 1
    inputs = len(_final_inputs(history, target, held_out or searched))
    calls += rounds * ROUND * (BLOCK if len(searched) > BLOCKED else len(searched))
    return calls + 3 * inputs * _final_passes(history, inputs)


def underway(
    history: History, target: int, held_out: Sequence[str] = (), searched: Sequence[str] = ()
) -> str:
    """How far a confirmation is that has begun; "" when it is complete or has not begun."""
    done = [e for e in history.measured if (e.kind, e.iteration) == ("confirmation", target)]
    left = cost_ahead(history, target, held_out, searched) if done else 0
    made = sum(len(e.trials) for e in done)
    return f"confirmation under way: {made:,} of {count(made + left, 'call')}" if left else ""


def sample(texts: Iterable[str], most: int = MOST) -> list[str]:
    """At most so many of the texts, in an order that is the same every time: by their hash."""
    return sorted(set(texts), key=lambda text: hashlib.sha256(text.encode()).digest())[:most]


def answers_repeat(history: History) -> bool:
    """Whether the baseline's passes gave the same answer and score to every input."""
    answers = _first_baseline(history)
    if not any(len(each) > 1 for each in answers):
        return history.deterministic
    return all(len(set(each)) == 1 for each in answers)


def _first_baseline(history: History) -> list[list[tuple[str, float]]]:
    """The answers to each input, with their scores, in the baseline's own record."""
    prompt = normalise(history.baseline.prompt) if history.baseline else ""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for e in history.experiments:
        if e.kind == "baseline" and e.score is not None and normalise(e.prompt) == prompt:
            for trial in e.trials:
                found[trial.input].append((trial.response, trial.score))
            break
    return list(found.values())


def _final_passes(history: History, inputs: int) -> int:
    """Passes of each input: the more inputs the fewer, one or two where answers repeat."""
    if answers_repeat(history):
        return min(2, math.ceil(FINAL / inputs))
    noise = within([[score for _, score in each] for each in _first_baseline(history)]) or 0.0
    passes = math.ceil(max(FINAL, noise / STANDARD_ERROR**2) / inputs)
    return min(FINAL_MOST, max(passes, 2 if inputs < FINAL_MOST else 1))


def _final_inputs(history: History, target: int, given: Sequence[str]) -> list[str]:
    inputs = sample(given)
    refused = _refused(history, target, inputs)
    return [text for text in inputs if text not in refused] or inputs


def _refused(history: History, target: int, inputs: Sequence[str]) -> list[str]:
    """The inputs that failed records of the final name again and again."""
    errors = [
        e.error
        for e in history.experiments
        if e.error and (e.kind, e.iteration, e.strategy) == ("confirmation", target, "final")
    ]
    named = {text: sum(short(text) in error for error in errors) for text in inputs if errors}
    return [text for text, failures in named.items() if failures >= REFUSED]


def _finalists(history: History, halving: _Halving) -> tuple[str, str, str | None]:
    """The winner, the baseline, and the shortest contender that may be the winner's equal."""
    winner = halving.alive[0].prompt
    baseline = history.baseline.prompt if history.baseline else winner
    shorter = [
        prompt
        for prompt, score in halving.estimates.items()
        if len(prompt) <= (1 - SAVING) * len(winner) and score >= halving.estimates[winner] - MARGIN
    ]
    return winner, baseline, min(shorter, key=len, default=None)


class _Halving:
    """The rounds that are complete: who survives them, and what they are taken for.

    Over many inputs a round takes blocks that the search met last, if at all.
    """

    def __init__(self, history: History, target: int, searched: Sequence[str]) -> None:
        self.alive = list(history.contenders.get(target) or history.top(CONTENDERS))
        self.estimates = {standing.prompt: standing.estimate for standing in self.alive}
        self.blocked = len(searched) > BLOCKED
        self.order = sample(searched, len(searched))[:: -1 if self.blocked else 1]
        self.rounds = self.used = 0
        if not self.blocked and (history.deterministic or answers_repeat(history)):
            self.alive = self.alive[:1]
        weights = {standing.prompt: standing.samples for standing in self.alive}
        while len(self.alive) > 1 and (scores := self._round(history, target)):
            level = 0.0
            if self.blocked:  # other inputs, easier or harder for all
                level = fmean(self.estimates[p] for p in scores) - fmean(scores.values())
            passes = self._share()
            for prompt, mean in scores.items():
                total = weights[prompt] * self.estimates[prompt] + passes * (mean + level)
                weights[prompt] += passes
                self.estimates[prompt] = total / weights[prompt]
            self.used += len(self.next_round()[0])
            self.rounds += 1
            self.alive.sort(key=lambda s: (-self.estimates[s.prompt], len(s.prompt)))
            del self.alive[math.ceil(len(self.alive) / 2) :]

    @property
    def stage(self) -> str:
        return f"round {self.rounds + 1}"

    def _share(self) -> int:
        return max(1, (BLOCKS if self.blocked else ROUND) // len(self.alive))

    def next_round(self) -> tuple[list[str], int]:
        """Its inputs, and the passes of each contender over them."""
        if not self.blocked:
            return self.order, self._share()
        size = min(BLOCK * self._share(), len(self.order))
        return [self.order[(self.used + i) % len(self.order)] for i in range(size)], 1

    def _round(self, history: History, target: int) -> dict[str, float] | None:
        """Prompt -> its mean in the next round; None while that is not complete."""
        met = _met(records(history, "confirmation", target, self.stage))
        inputs, passes = self.next_round()
        scores = {}
        for standing in self.alive:
            mine = met.get(normalise(standing.prompt), {})
            if any(len(mine.get(text, ())) < passes for text in inputs):
                return None
            scores[standing.prompt] = fmean(fmean(mine[text]) for text in inputs)
        return scores


def missing_steps(
    history: History,
    target: int,
    stage: str,
    prompts: Iterable[str],
    inputs: Sequence[str],
    passes: int,
    held_out: bool = False,
    kind: str = "confirmation",
) -> list[Step]:
    met = _met(records(history, kind, target, stage))
    parts = [tuple(inputs[at : at + PART]) for at in range(0, len(inputs), PART)]
    steps = []
    for prompt in prompts:
        mine = met.get(normalise(prompt), {})
        for part in parts:
            left = passes - min(len(mine.get(text, ())) for text in part)
            steps.append(Step(stage, prompt, left, held_out, kind, target, part))
    return [step for step in steps if step.passes > 0]


def records(history: History, kind: str, target: int, stage: str) -> list[Experiment]:
    return [
        e for e in history.measured if (e.kind, e.iteration, e.strategy) == (kind, target, stage)
    ]


def _met(taken: Iterable[Experiment]) -> dict[str, dict[str, list[float]]]:
    """Prompt key -> input -> the score of each pass."""
    trials: dict[str, list[Trial]] = defaultdict(list)
    for record in taken:
        trials[normalise(record.prompt)] += record.trials
    return {key: by_input(each) for key, each in trials.items()}


def by_input(trials: Iterable[Trial]) -> dict[str, list[float]]:
    """Input -> the score of each pass."""
    found: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        found[trial.input].append(trial.score)
    return found


# ---- what it says


def outcome(history: History, target: int | None = None) -> Confirmation | None:
    """The complete confirmation at `target`, by default the latest; None where there is none."""
    for at in sorted(history.contenders, reverse=True) if target is None else [target]:
        if history.baseline is not None and (found := _outcome(history, at)):
            return found
    return None


def fresh_trials(history: History, found: Confirmation, prompt: str) -> list[Trial]:
    """The final's trials of one prompt."""
    return [
        trial
        for record in records(history, "confirmation", found.target, "final")
        for trial in record.trials
        if normalise(record.prompt) == normalise(prompt)
        and (trial.input not in history.inputs) == found.held_out
    ]


def _outcome(history: History, target: int) -> Confirmation | None:
    halving = _Halving(history, target, history.searched or sorted(history.inputs))
    if len(halving.alive) != 1:
        return None
    winner, baseline, third = _finalists(history, halving)
    met = _met(records(history, "confirmation", target, "final"))
    inputs, skipped = _measured_inputs(history, target, met, winner, baseline)
    if not inputs:
        return None
    held_out = not set(inputs) <= history.inputs
    generalises = held_out and len(inputs) >= SAMPLE
    prompts = [p for p in (winner, baseline, third) if p is not None and _has(met, p, inputs)]
    fresh = {p: {text: met[normalise(p)][text] for text in inputs} for p in prompts}
    evidence = Evidence(history, target, fresh, generalises)
    difference = evidence.difference(winner, baseline)
    ahead = (difference.mean, len(baseline) - len(winner)) > (0, 0)
    best = winner if ahead else baseline
    return Confirmation(
        target=target,
        winner=winner,
        baseline=baseline,
        best=best,
        winner_score=evidence.score(winner),
        baseline_score=evidence.score(baseline),
        difference=difference,
        chance=_chance(difference),
        believed=halving.alive[0].estimate,
        inputs=len(inputs),
        passes=min(len(each) for scores in fresh.values() for each in scores.values()),
        held_out=held_out,
        generalises=generalises,
        labels=evidence.bounds is not None,
        shortest=_shortest(evidence, best),
        skipped=tuple(skipped),
    )


def _measured_inputs(
    history: History,
    target: int,
    met: Mapping[str, Scores],
    winner: str,
    baseline: str,
) -> tuple[list[str], list[str]]:
    """The inputs of the complete final, and those left out; none while it is not complete.

    Where program.md is not known the inputs that both prompts met are those of the final.
    """
    given = history.held_out or history.searched
    if given is None:
        both = sorted(set(met.get(normalise(winner), ())) & set(met.get(normalise(baseline), ())))
        given = tuple(text for text in both if text not in history.inputs) or tuple(both)
    every = sample(given)
    inputs = _final_inputs(history, target, every)
    passes = _final_passes(history, len(inputs)) if inputs else 0
    if not all(_has(met, prompt, inputs, passes) for prompt in (winner, baseline)):
        return [], []
    return inputs, [text for text in every if text not in inputs]


def _has(met: Mapping[str, Scores], prompt: str, inputs: Sequence[str], passes: int = 1) -> bool:
    mine = met.get(normalise(prompt), {})
    return all(len(mine.get(text, ())) >= passes for text in inputs)


class Evidence:
    """The intervals of a few prompts from fresh scores, `fresh`: prompt -> input -> passes.

    Where the scores generalise an input is one sample, however many its passes; otherwise the
    inputs are given and only the answers vary. What the search saw helps to tell how much.
    """

    def __init__(
        self, history: History, target: int, fresh: Mapping[str, Scores], generalises: bool
    ) -> None:
        later = {
            id(trial)
            for e in history.measured
            if e.iteration != target or e.strategy == "final"
            for trial in e.trials
        }
        contenders = [s.prompt for s in history.contenders.get(target, history.top(CONTENDERS))]
        self.seen = {
            prompt: by_input(t for t in history.trials(prompt) if id(t) not in later)
            for prompt in dict.fromkeys((*contenders, *fresh))
        }
        self.fresh, self.generalises = fresh, generalises
        self.bounds = self._bounds()

    def _bounds(self) -> Bounds | None:
        """The ends of the scale where there are no scores but a few; None where there are many."""
        every = (*self.seen.values(), *self.fresh.values())
        values = {score for scores in every for each in scores.values() for score in each}
        if values <= {0.0, 10.0}:
            return 0.0, 10.0
        few = self.generalises and 2 <= len(values) <= FEW
        return (min(values), max(values)) if few else None

    def score(self, prompt: str) -> Interval:
        groups = self._groups(self.fresh[prompt])
        if self.bounds:
            return binomial([x for group in groups for x in group], self.bounds)
        others = [self._groups(scores) for scores in self.seen.values()]
        return student(groups, _seen(self._groups(self.seen[prompt]), others), (0.0, 10.0))

    def difference(self, prompt: str, other: str, alpha: float = ALPHA) -> Interval:
        """The first prompt's score minus the other's, input by input."""
        groups = self._groups(_less(self.fresh[prompt], self.fresh[other]))
        values = [x for group in groups for x in group]
        if normalise(prompt) == normalise(other):
            return Interval(0.0, 0.0, 0.0, len(values))
        if self.bounds:
            return pseudo_paired(values, self.bounds[1] - self.bounds[0], alpha)
        mine = self.seen[other]
        pairs = {p: self._groups(_less(s, mine)) for p, s in self.seen.items() if p != other}
        return student(groups, _seen(pairs[prompt], pairs.values()), (-10.0, 10.0), alpha)

    def _groups(self, scores: Scores) -> Groups:
        return (
            [[fmean(each) for each in scores.values()]] if self.generalises else [*scores.values()]
        )


def _less(mine: Scores, other: Scores) -> Scores:
    return {
        text: [a - b for a, b in zip(mine[text], other[text], strict=False)]
        for text in mine
        if text in other
    }


def _seen(own: Groups, others: Iterable[Groups]) -> float | None:
    """The variance to expect: the larger of the prompt's own in the search and that of all."""
    known = [value for groups in others if (value := within(groups)) is not None]
    return max(fmean(known), within(own) or 0.0) if known else None


def _shortest(evidence: Evidence, best: str) -> Shortest | None:
    """The shortest prompt that saves enough and is shown to lose no more than MARGIN."""
    for prompt in sorted(evidence.fresh, key=len):
        if len(prompt) <= (1 - SAVING) * len(best):
            loss = evidence.difference(prompt, best)
            if loss.low > -MARGIN:
                return Shortest(prompt, evidence.score(prompt), loss)
    return None


def _chance(difference: Interval) -> float:
    deviation = (difference.high - difference.low) / 2 / NormalDist().inv_cdf(1 - ALPHA / 2)
    return NormalDist().cdf(abs(difference.mean) / deviation) if deviation else 0.5
