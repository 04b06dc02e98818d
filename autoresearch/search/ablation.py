"""What each sentence of a prompt is worth, on fresh samples."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from autoresearch.files.results import ResultsError
from autoresearch.search.confirmation import (
    MARGIN,
    Step,
    by_input,
    evidence_of,
    fresh_trials,
    missing,
    outcome,
    sample,
    scores_of,
    stands_for_others,
)
from autoresearch.search.history import History
from autoresearch.search.intervals import ALPHA, Evidence, Interval

SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?=\s+\S)|(?<=\S)(?=[^\S\n]*\n\s*\S)")
INPUTS, CALLS = 24, 24  # on which a sentence is measured, and how often in all
WHOLE = "whole"  # the stage of the prompt itself
TRIES = 3  # at a shortened prompt, each at ALPHA / TRIES


@dataclass(frozen=True)
class Ablation:
    """What each sentence is worth, all intervals holding together (Holm, Scandinavian Journal of
    Statistics 6, 1979), and the prompt without those that were not shown to matter, where that was
    shown to lose less than MARGIN: `loss` is its score minus the whole one's.
    """

    sentences: list[tuple[str, Interval, str]]  # with: matters, harms or cannot be told
    shortened: str
    loss: Interval | None


def split_sentences(prompt: str) -> list[str]:
    """The sentences and list items of a prompt, each with the white space before it; joined they
    are the prompt again."""
    return [part for part in SENTENCE_END.split(prompt) if part.strip()]


def ablate(history: History) -> list[Step] | Ablation:
    """Of the confirmed best prompt, else the leader: the measurements that are still missing, or
    else the result. Raises ResultsError where there is no leader."""
    found, leader = outcome(history), history.leader
    if leader is None:
        raise ResultsError("there is no winner yet: run python main.py first, then --ablate")
    prompt = found.best if found else leader.prompt
    parts = split_sentences(prompt)
    without = {f"without {i + 1}": _without(parts, {i}) for i in range(len(parts))}
    evidence = _measured(history, prompt, without)
    if not isinstance(evidence, Evidence):
        return evidence
    judged = _judged(evidence, [*without])
    sentences = [(part.strip(), *each) for part, each in zip(parts, judged, strict=True)]
    idle = [i for i, (_, verdict) in enumerate(judged) if verdict != "matters"]
    idle = sorted(idle, key=lambda i: judged[i][0].mean)[: len(parts) - 1]
    for _ in range(TRIES if idle else 0):
        stage, shortened = f"shortened by {len(idle)}", _without(parts, idle)
        evidence = _measured(history, prompt, {stage: shortened})
        if not isinstance(evidence, Evidence):
            return evidence
        loss = evidence.difference(stage, WHOLE, ALPHA / TRIES)
        if loss.low > -MARGIN:
            return Ablation(sentences, shortened, loss)
        idle = idle[: math.ceil(len(idle) / 2)]  # those of most worth come back
    return Ablation(sentences, prompt, None)


def _measured(history: History, prompt: str, variants: Mapping[str, str]) -> list[Step] | Evidence:
    """What is missing of the variants, stage -> text, and of the prompt itself, unless it has
    samples of the final; where nothing is, what all scored, by stage."""
    found, target = outcome(history), history.completed
    final = by_input(fresh_trials(history, found, prompt)) if found else {}
    inputs = sample(final or history.inputs, INPUTS)
    least = 1 if stands_for_others(history, inputs) else 2
    passes = max(least, math.ceil(CALLS / len(inputs)))
    texts = variants if final else {WHOLE: prompt, **variants}
    plan = [Step(s, text, passes, target, (*inputs,), "ablation") for s, text in texts.items()]
    if steps := missing(history, plan):
        return steps
    fresh = {step.stage: scores_of(history, step) for step in plan}
    if final:
        fresh[WHOLE] = {text: final[text] for text in inputs}
    return evidence_of(history, target, fresh)


def _judged(evidence: Evidence, stages: Sequence[str]) -> list[tuple[Interval, str]]:
    """What each sentence is worth, by Holm's steps: what is told leaves the others more room."""
    found: dict[str, tuple[Interval, str]] = {}
    while left := [stage for stage in stages if stage not in found]:
        worth = {s: evidence.difference(WHOLE, s, ALPHA / len(left)) for s in left}
        told = {s: (w, "matters") for s, w in worth.items() if w.low > 0}
        told |= {s: (w, "harms") for s, w in worth.items() if w.high < 0}
        found |= told or {s: (w, "cannot be told") for s, w in worth.items()}
    return [found[stage] for stage in stages]


def _without(parts: Sequence[str], left_out: Collection[int]) -> str:
    return "".join(part for i, part in enumerate(parts) if i not in left_out).strip()
