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
    are given and only the answers vary. How much they do, the search helps to tell. `scale`: the
    ends of the scale where the scores are labels; None where they are grades.
    """

    def __init__(
        self, history: History, target: int, fresh: Mapping[str, Scores], generalises: bool
    ) -> None:
        self.fresh, self.generalises = fresh, generalises
        measured = (e for e in history.measured if e.iteration != target or e.strategy == "final")
        later = {id(trial) for e in measured for trial in e.trials}
        contenders = [s.prompt for s in history.contenders.get(target) or history.top(CONTENDERS)]
        self.seen = {
            prompt: by_input(t for t in history.trials(prompt) if id(t) not in later)
            for prompt in dict.fromkeys((*contenders, *fresh))
        }
        every = (*self.seen.values(), *fresh.values())
        values = {score for scores in every for each in scores.values() for score in each}
        few = generalises and 2 <= len(values) <= FEW
        self.scale = (0.0, 10.0) if values <= {0.0, 10.0} else None
        if few and not self.scale:
            self.scale = min(values), max(values)

    def score(self, prompt: str) -> Interval:
        groups = self._groups(self.fresh[prompt])
        if self.scale:
            return binomial(_flat(groups), self.scale)
        return student(groups, self._expected(prompt, self.seen), (0.0, 10.0))

    def difference(self, prompt: str, other: str, alpha: float = ALPHA) -> Interval:
        """The first prompt's score minus the other's, input by input."""
        groups = self._groups(_less(self.fresh[prompt], self.fresh[other]))
        if prompt == other:
            return Interval(0.0, 0.0, 0.0, len(_flat(groups)))
        if self.scale:
            return pseudo_paired(_flat(groups), self.scale[1] - self.scale[0], alpha)
        seen = self._expected(prompt, self._seen_less(other))
        return student(groups, seen, (-10.0, 10.0), alpha)

    def chance(self, prompt: str, other: str) -> float:
        """The probability that the first prompt is truly the better: what the search saw counts
        less, for its winner was chosen by it."""
        if prompt == other:
            return 0.5
        fresh, seen, pairs = self.difference(prompt, other), 0.0, self._seen_less(other)
        deviation = (fresh.high - fresh.low) / 2 / NormalDist().inv_cdf(1 - ALPHA / 2)
        values, spread = _flat(self._groups(pairs[prompt])), self._expected(prompt, pairs)
        if values and spread is not None:
            seen = fmean(values) / max(math.sqrt(spread / len(values)), FLOOR / 2)
        return NormalDist().cdf(FRESH * fresh.mean / deviation + SEARCHED * seen)

    def _seen_less(self, other: str) -> dict[str, Scores]:
        """What the search saw of each prompt, less what it saw of the other."""
        mine = self.seen[other]
        return {prompt: _less(s, mine) for prompt, s in self.seen.items() if prompt != other}

    def _expected(self, prompt: str, seen: Mapping[str, Scores]) -> float | None:
        """The larger of the prompt's own variance in the search and that of all."""
        variances = {p: within(self._groups(scores)) for p, scores in seen.items()}
        known = [value for value in variances.values() if value is not None]
        return max(fmean(known), variances[prompt] or 0.0) if known else None

    def _groups(self, scores: Scores) -> Groups:
        return [[fmean(x) for x in scores.values()]] if self.generalises else [*scores.values()]


def _flat(groups: Groups) -> list[float]:
    return [value for group in groups for value in group]


def _less(mine: Scores, other: Scores) -> Scores:
    both = [text for text in mine if text in other]
    return {t: [a - b for a, b in zip(mine[t], other[t], strict=False)] for t in both}
