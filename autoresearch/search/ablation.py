"""What each sentence of a prompt is worth, on fresh samples."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autoresearch.files.results import ResultsError
from autoresearch.search.confirmation import (
    MARGIN,
    Step,
    fresh_trials,
    missing_steps,
    outcome,
    records,
    sample,
    stands_for_others,
)
from autoresearch.search.evidence import Evidence, Scores, by_input
from autoresearch.search.history import History
from autoresearch.search.intervals import ALPHA, Interval
from autoresearch.text import normalise

SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?=\s+\S)|(?<=\S)(?=[^\S\n]*\n\s*\S)")
INPUTS, CALLS = 24, 24  # on which a sentence is measured, and how often in all
WHOLE = "whole"  # the stage of the prompt itself
TRIES = 3  # at a shortened prompt, each at ALPHA / TRIES

Verdict = Literal["matters", "harms", "cannot be told"]


@dataclass(frozen=True)
class Ablation:
    """What each sentence is worth, all intervals holding together (Holm, Scandinavian Journal of
    Statistics 6, 1979), and the prompt without those that were not shown to matter, where that was
    shown to lose less than MARGIN: `loss` is its score minus the whole one's.
    """

    sentences: list[tuple[str, Interval, Verdict]]
    shortened: str
    loss: Interval | None


def split_sentences(prompt: str) -> list[str]:
    """The sentences and list items of a prompt, each with the white space before it; joined they
    are the prompt again."""
    return [part for part in SENTENCE_END.split(prompt) if part.strip()]


def ablate(history: History, prompt: str, target: int) -> list[Step] | Ablation:
    """The measurements that are still missing, or else the result."""
    parts = split_sentences(prompt)
    stages = {f"without {i + 1}": _without(parts, {i}) for i in range(len(parts))}
    samples = _Samples(history, prompt, target)
    if missing := samples.missing(stages):
        return missing
    judged = _judged(samples.evidence(stages), [*stages])
    sentences = [(part.strip(), *each) for part, each in zip(parts, judged, strict=True)]
    idle = [i for i, (_, verdict) in enumerate(judged) if verdict != "matters"]
    idle = sorted(idle, key=lambda i: judged[i][0].mean)[: len(parts) - 1]
    for _ in range(TRIES if idle else 0):
        stage = f"shortened by {len(idle)}"
        shortened = {stage: _without(parts, idle)}
        if missing := samples.missing(shortened):
            return missing
        loss = samples.evidence(shortened).difference(stage, WHOLE, ALPHA / TRIES)
        if loss.low > -MARGIN:
            return Ablation(sentences, shortened[stage], loss)
        idle = idle[: math.ceil(len(idle) / 2)]  # those of most worth come back
    return Ablation(sentences, prompt, None)


def taken_apart(history: History) -> Ablation | None:
    """The ablation of the best prompt; None while measurements are missing."""
    result = ablate(history, best_prompt(history), history.completed)
    return result if isinstance(result, Ablation) else None


def best_prompt(history: History) -> str:
    """The confirmed best prompt, else the leader; raises ResultsError where there is none."""
    found, leader = outcome(history), history.leader
    if leader is None:
        raise ResultsError("there is no winner yet: run python main.py first, then --ablate")
    return found.best if found else leader.prompt


class _Samples:
    """Fresh scores of a prompt and its variants; for the whole prompt those of the final count."""

    def __init__(self, history: History, prompt: str, target: int) -> None:
        self.history, self.prompt, self.target = history, prompt, target
        found = outcome(history)
        self.final = by_input(fresh_trials(history, found, prompt)) if found else {}
        self.inputs = sample(self.final or history.inputs, INPUTS)
        self.general = stands_for_others(history, self.inputs)
        self.passes = max(1 if self.general else 2, math.ceil(CALLS / len(self.inputs)))

    def missing(self, stages: Mapping[str, str]) -> list[Step]:
        """What is to be measured before the stages, name -> prompt, can be compared."""
        wanted = dict(stages) if self.final else {WHOLE: self.prompt, **stages}
        plan = self.inputs, self.passes, "ablation"
        steps = [
            missing_steps(self.history, self.target, stage, [prompt], *plan)
            for stage, prompt in wanted.items()
        ]
        return [step for each in steps for step in each]

    def evidence(self, stages: Mapping[str, str]) -> Evidence:
        fresh = {stage: self._scores(stage, prompt) for stage, prompt in stages.items()}
        whole = self.final or self._scores(WHOLE, self.prompt)
        fresh[WHOLE] = {text: whole[text] for text in self.inputs}
        return Evidence(self.history, self.target, fresh, self.general)

    def _scores(self, stage: str, prompt: str) -> Scores:
        taken = records(self.history, "ablation", self.target, stage)
        same = (e for e in taken if normalise(e.prompt) == normalise(prompt))
        return by_input(trial for e in same for trial in e.trials)


def _judged(evidence: Evidence, stages: Sequence[str]) -> list[tuple[Interval, Verdict]]:
    """What each sentence is worth, by Holm's steps: what is told leaves the others more room."""
    found: dict[str, tuple[Interval, Verdict]] = {}
    while left := [stage for stage in stages if stage not in found]:
        worth = {s: evidence.difference(WHOLE, s, ALPHA / len(left)) for s in left}
        told = {s: w for s, w in worth.items() if w.low > 0 or w.high < 0}
        found |= {s: (w, "matters" if w.low > 0 else "harms") for s, w in told.items()}
        if not told:
            found |= {s: (w, "cannot be told") for s, w in worth.items()}
    return [found[stage] for stage in stages]


def _without(parts: Sequence[str], left_out: Collection[int]) -> str:
    return "".join(part for i, part in enumerate(parts) if i not in left_out).strip()
