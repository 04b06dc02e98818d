"""What each sentence of a prompt is worth, on fresh samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from autoresearch.files.results import ResultsError
from autoresearch.search.confirmation import FINAL, Step, _pooled, _records, outcome
from autoresearch.search.history import History
from autoresearch.search.intervals import Interval, welch
from autoresearch.text import normalise

SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?=\s+\S)|(?<=\S)(?=[^\S\n]*\n\s*\S)")
ABLATION = 8  # fresh passes of the prompt without one of its sentences


@dataclass(frozen=True)
class Ablation:
    """What each sentence is worth, and the prompt without those worth nothing measurable."""

    sentences: list[tuple[str, Interval]]
    shortened: str
    loss: Interval | None  # of the shortened prompt; None where nothing was left out


def split_sentences(prompt: str) -> list[str]:
    """The sentences and list items of a prompt, each with the white space before it; joined they
    are the prompt again."""
    return [part for part in SENTENCE_END.split(prompt) if part.strip()]


def ablate(history: History, prompt: str, target: int) -> list[Step] | Ablation:
    """The measurements that are still missing, or else the result."""
    parts = split_sentences(prompt)
    variants = {"whole": prompt}
    variants |= {f"without {i + 1}": _without(parts, {i}) for i in range(len(parts))}
    if missing := _missing(history, target, variants, ABLATION):
        return missing
    floor = 0.0 if history.deterministic else (history.noise or 0.0) / 4
    whole = _passes(history, target, "whole", prompt)
    worth = [
        welch(whole, _passes(history, target, stage, variant), floor)
        for stage, variant in list(variants.items())[1:]
    ]
    sentences = [(part.strip(), value) for part, value in zip(parts, worth, strict=True)]
    order = sorted(range(len(parts)), key=lambda i: worth[i].mean)
    idle = [i for i in order if worth[i].low <= 0][: len(parts) - 1]
    while idle:
        stage, shortened = f"shortened by {len(idle)}", _without(parts, set(idle))
        if missing := _missing(history, target, {stage: shortened}, FINAL):
            return missing
        loss = welch(whole, _passes(history, target, stage, shortened), floor)
        if loss.low <= 0:
            return Ablation(sentences, shortened, loss)
        idle.pop()  # together they do matter: the one of most worth comes back
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


def _without(parts: Sequence[str], left_out: set[int]) -> str:
    return "".join(part for i, part in enumerate(parts) if i not in left_out).strip()


def _missing(history: History, target: int, variants: dict[str, str], passes: int) -> list[Step]:
    missing = [
        Step(
            stage,
            prompt,
            passes - len(_passes(history, target, stage, prompt)),
            kind="ablation",
            iteration=target,
        )
        for stage, prompt in variants.items()
    ]
    return [step for step in missing if step.passes > 0]


def _passes(history: History, target: int, stage: str, prompt: str) -> list[float]:
    return _pooled(_records(history, "ablation", target, stage)).get(normalise(prompt), [])
