"""What is measured on fresh samples after the search: which contender wins, by how much, and which
sentences matter.

The search's best score was chosen because it was high, so it is biased upward. Successive halving
(Karnin, Koren, Somekh, Almost optimal exploration in multi-armed bandits, ICML 2013) picks the
winner; then winner and baseline are measured on samples that no choice was made on, and only those
are reported. Each function here is a pure function of the history, so that an interrupted
confirmation goes on where it stopped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from history import CONTENDERS, History, Standing, normalise
from intervals import Interval, mean_interval, welch
from results import Experiment

ROUND = 24  # passes in one round of halving, shared by its contenders
FINAL = 15  # fresh passes of the winner and of the baseline, more where the noise is large
FINAL_MOST = 60
STANDARD_ERROR = 0.25  # points: what the final passes bring the reported mean down to
SENTENCE_END = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?=\s+\S)|(?<=\S)(?=[^\S\n]*\n\s*\S)")
ABLATION = 8  # fresh passes of the prompt without one of its sentences


@dataclass(frozen=True)
class Step:
    """A measurement to make: `passes` of `prompt`, on the held-out inputs where `held_out`."""

    stage: str
    prompt: str
    passes: int
    held_out: bool = False


@dataclass(frozen=True)
class Confirmation:
    """The result: scores from fresh samples alone; `believed` is what the search took it for."""

    target: int
    winner: str
    winner_score: Interval
    baseline_score: Interval
    difference: Interval
    believed: float
    held_out: bool
    shortest: str
    improved: bool


def next_steps(history: History, target: int, held_out: Collection[str] = ()) -> list[Step]:
    """What to measure now for the confirmation at `target` iterations; [] when it is complete."""
    rounds, survivors = _halving(history, target)
    if len(survivors) > 1:
        stage = f"round {len(rounds) + 1}"
        done = {normalise(e.prompt) for e in _records(history, "confirmation", target, stage)}
        passes = max(1, ROUND // len(survivors))
        return [Step(stage, s.prompt, passes) for s in survivors if normalise(s.prompt) not in done]
    passes = _final_passes(history.noise or 0.0)
    finals = _finals(history, target, held_out)
    baseline = history.baseline or survivors[0]
    pair = dict.fromkeys((survivors[0].prompt, baseline.prompt))
    return [Step("final", p, passes, bool(held_out)) for p in pair if normalise(p) not in finals]


def outcome(history: History, target: int | None = None) -> Confirmation | None:
    """The complete confirmation at `target`, by default the latest; None where there is none."""
    for at in sorted(history.contenders, reverse=True) if target is None else [target]:
        _, survivors = _halving(history, at)
        if len(survivors) > 1 or history.baseline is None:
            continue
        finals, pair = _finals(history, at), (*survivors, history.baseline)
        best, plain = (finals.get(normalise(standing.prompt)) for standing in pair)
        if best and plain and _inputs(best) == _inputs(plain):
            return _outcome(history, at, survivors[0], best, plain)
    return None


def _outcome(
    history: History, target: int, winner: Standing, best: Experiment, plain: Experiment
) -> Confirmation:
    floor = 0.0 if history.deterministic else (history.noise or 0.0) / 4
    difference = welch(best.passes(), plain.passes(), floor)
    if best is plain:
        difference = Interval(0.0, 0.0, 0.0, difference.samples)
    enough = [winner.prompt] + ([] if difference.low > 0 else [plain.prompt])
    return Confirmation(
        target,
        winner.prompt,
        mean_interval(best.passes(), floor),
        mean_interval(plain.passes(), floor),
        difference,
        winner.estimate,
        _inputs(best) != {t.input for t in history.trials(plain.prompt)},
        min(enough + _equals(history, target, winner.prompt, floor), key=len),
        difference.low > 0,
    )


def _equals(history: History, target: int, winner: str, floor: float) -> list[str]:
    """Contenders that outlived the first round and that the rounds cannot tell from the winner."""
    rounds, _ = _halving(history, target)
    fresh: dict[str, list[float]] = {}
    for passes in rounds:
        for key, values in passes.items():
            fresh.setdefault(key, []).extend(values)
    mine = fresh.get(normalise(winner), [])
    prompts = [s.prompt for s in history.contenders[target]]
    late = [p for p in prompts if any(normalise(p) in later for later in rounds[1:])]
    return [p for p in late if welch(fresh[normalise(p)], mine, floor).high >= 0]


def _halving(history: History, target: int) -> tuple[list[dict[str, list[float]]], list[Standing]]:
    """The complete rounds so far (prompt key -> passes) and the contenders that survive them."""
    alive = history.contenders.get(target) or history.top(CONTENDERS)
    if history.deterministic:
        return [], alive[:1]
    rounds: list[dict[str, list[float]]] = []
    sums = {normalise(s.prompt): (s.samples, s.samples * s.estimate) for s in alive}
    while len(alive) > 1:
        records = _records(history, "confirmation", target, f"round {len(rounds) + 1}")
        passes = {normalise(e.prompt): e.passes() for e in records}
        if not {normalise(s.prompt) for s in alive} <= set(passes):
            break
        rounds.append(passes)
        for key, values in passes.items():
            n, total = sums.get(key, (0, 0.0))
            sums[key] = n + len(values), total + sum(values)
        pooled = {key: total / n for key, (n, total) in sums.items()}
        ranked = sorted(alive, key=lambda s: (-pooled[normalise(s.prompt)], len(s.prompt)))
        alive = ranked[: math.ceil(len(alive) / 2)]
    return rounds, alive


def _records(history: History, kind: str, target: int, stage: str) -> list[Experiment]:
    return [
        e for e in history.measured if (e.kind, e.iteration, e.strategy) == (kind, target, stage)
    ]


def _finals(history: History, target: int, inputs: Collection[str] = ()) -> dict[str, Experiment]:
    """The final records by prompt key; with `inputs`, those on just these inputs."""
    return {
        normalise(e.prompt): e
        for e in _records(history, "confirmation", target, "final")
        if not inputs or _inputs(e) == set(inputs)
    }


def _inputs(experiment: Experiment) -> set[str]:
    return {trial.input for trial in experiment.trials}


def _final_passes(noise: float) -> int:
    return min(FINAL_MOST, max(FINAL, math.ceil((noise / STANDARD_ERROR) ** 2)))


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


def _without(parts: Sequence[str], left_out: set[int]) -> str:
    return "".join(part for i, part in enumerate(parts) if i not in left_out).strip()


def _missing(history: History, target: int, variants: dict[str, str], passes: int) -> list[Step]:
    return [
        Step(stage, prompt, passes)
        for stage, prompt in variants.items()
        if not _passes(history, target, stage, prompt)
    ]


def _passes(history: History, target: int, stage: str, prompt: str) -> list[float]:
    return [
        value
        for e in _records(history, "ablation", target, stage)
        if normalise(e.prompt) == normalise(prompt)
        for value in e.passes()
    ]
