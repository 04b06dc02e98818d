"""How sure the fresh scores of a few prompts make us, given what the search saw of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import NormalDist, fmean

from autoresearch.files.record import Trial
from autoresearch.search.history import CONTENDERS, History
from autoresearch.search.intervals import (
    ALPHA,
    FLOOR,
    Groups,
    Interval,
    binomial,
    pseudo_paired,
    student,
    within,
)
from autoresearch.text import normalise

FEW = 4  # distinct scores up to which they are taken for labels
FRESH, SEARCHED = 0.64, 0.48  # deviations from 0 that count for the chance: fitted to simulations

Scores = Mapping[str, list[float]]  # input -> the score of each pass


def by_input(trials: Iterable[Trial]) -> Scores:
    found: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        found[trial.input].append(trial.score)
    return found


class Evidence:
    """`fresh`: prompt -> input -> passes, on samples that no choice was made on.

    Where they `generalise` an input is one sample, however many its passes; otherwise the inputs
    are given and only the answers vary. How much they do, the search helps to tell.
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
        contenders = [s.prompt for s in history.contenders.get(target) or history.top(CONTENDERS)]
        self.seen = {
            prompt: by_input(t for t in history.trials(prompt) if id(t) not in later)
            for prompt in dict.fromkeys((*contenders, *fresh))
        }
        self.fresh, self.generalises = fresh, generalises
        self.scale = self._scale()

    def _scale(self) -> tuple[float, float] | None:
        """The ends of the scale where the scores are labels; None where they are grades."""
        every = (*self.seen.values(), *self.fresh.values())
        values = {score for scores in every for each in scores.values() for score in each}
        if values <= {0.0, 10.0}:
            return 0.0, 10.0
        few = self.generalises and 2 <= len(values) <= FEW
        return (min(values), max(values)) if few else None

    def score(self, prompt: str) -> Interval:
        groups = self._groups(self.fresh[prompt])
        if self.scale:
            return binomial([x for group in groups for x in group], self.scale)
        others = [self._groups(scores) for scores in self.seen.values()]
        seen = _expected(self._groups(self.seen[prompt]), others)
        return student(groups, seen, (0.0, 10.0))

    def difference(self, prompt: str, other: str, alpha: float = ALPHA) -> Interval:
        """The first prompt's score minus the other's, input by input."""
        groups = self._groups(_less(self.fresh[prompt], self.fresh[other]))
        values = [x for group in groups for x in group]
        if normalise(prompt) == normalise(other):
            return Interval(0.0, 0.0, 0.0, len(values))
        if self.scale:
            return pseudo_paired(values, self.scale[1] - self.scale[0], alpha)
        return student(groups, self._expected(prompt, other), (-10.0, 10.0), alpha)

    def chance(self, prompt: str, other: str) -> float:
        """The probability that the first prompt is truly the better: what the search saw counts
        less, for its winner was chosen by it."""
        fresh, seen = self.difference(prompt, other), 0.0
        if fresh.low == fresh.high:
            return 0.5
        deviation = (fresh.high - fresh.low) / 2 / NormalDist().inv_cdf(1 - ALPHA / 2)
        pairs = self._groups(_less(self.seen[prompt], self.seen[other]))
        values, spread = [x for group in pairs for x in group], self._expected(prompt, other)
        if values and spread is not None:
            seen = fmean(values) / max(math.sqrt(spread / len(values)), FLOOR / 2)
        return NormalDist().cdf(FRESH * fresh.mean / deviation + SEARCHED * seen)

    def _expected(self, prompt: str, other: str) -> float | None:
        """The variance of differences to the other prompt, as the search saw it."""
        mine = self.seen[other]
        pairs = {p: self._groups(_less(s, mine)) for p, s in self.seen.items() if p != other}
        return _expected(pairs[prompt], pairs.values())

    def _groups(self, scores: Scores) -> Groups:
        return [[fmean(x) for x in scores.values()]] if self.generalises else [*scores.values()]


def _less(mine: Scores, other: Scores) -> Scores:
    return {
        text: [a - b for a, b in zip(mine[text], other[text], strict=False)]
        for text in mine
        if text in other
    }


def _expected(own: Groups, others: Iterable[Groups]) -> float | None:
    """The larger of the prompt's own variance in the search and that of all."""
    known = [value for groups in others if (value := within(groups)) is not None]
    return max(fmean(known), within(own) or 0.0) if known else None
