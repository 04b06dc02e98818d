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
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from autoresearch.files.record import Experiment
from autoresearch.search.history import CONTENDERS, History, Standing
from autoresearch.search.intervals import Interval, mean_interval, paired, welch
from autoresearch.text import normalise

ROUND = 24  # passes in one round of halving, shared by its contenders
FINAL = 15  # fresh passes of the winner and of the baseline, more where the noise is large
FINAL_MOST = 60
STANDARD_ERROR = 0.25  # points: what the final passes bring the reported mean down to
SAMPLE = 5  # held-out inputs from which they stand for others of their kind


@dataclass(frozen=True)
class Step:
    """What to do next: `passes` of `prompt`, on the held-out inputs where `held_out`.

    A proposal's prompt and passes show only while it runs.
    """

    stage: str
    prompt: str
    passes: int
    held_out: bool = False
    kind: str = "confirmation"
    iteration: int = 0

    def of(self, passes: int) -> Step:
        return replace(self, passes=passes)


@dataclass(frozen=True)
class Confirmation:
    """The result: scores from fresh samples alone; `believed` is what the search took it for.

    The intervals hold for the very inputs that were measured or, where `generalises`, for others of
    their kind: only a sample of inputs that no choice was made on can tell that.
    """

    target: int
    winner: str
    baseline: str
    winner_score: Interval
    baseline_score: Interval
    difference: Interval
    believed: float
    inputs: int
    held_out: bool
    generalises: bool
    shortest: str

    @property
    def improved(self) -> bool:
        return self.difference.low > 0

    @property
    def best(self) -> str:
        """The prompt to use: the winner, unless it was shown to be worse than the baseline."""
        return self.baseline if self.difference.high < 0 else self.winner


def next_steps(history: History, target: int, held_out: Collection[str] = ()) -> list[Step]:
    """What to measure now for the confirmation at `target` iterations; [] when it is complete.

    A step may be taken in parts: it comes again with the passes that are still missing.
    """
    rounds, survivors = _halving(history, target)
    if len(survivors) > 1:
        stage = f"round {len(rounds) + 1}"
        done = _pooled(_records(history, "confirmation", target, stage))
        passes = _round_passes(survivors)
        prompts, on_held_out = [s.prompt for s in survivors], False
    else:
        stage = "final"
        done = _pooled(_finals(history, target, held_out))
        passes = _final_passes(history, target)
        baseline = history.baseline or survivors[0]
        prompts = list(dict.fromkeys((survivors[0].prompt, baseline.prompt)))
        on_held_out = bool(held_out)
    missing = [(p, passes - len(done.get(normalise(p), []))) for p in prompts]
    return [Step(stage, prompt, n, on_held_out, iteration=target) for prompt, n in missing if n > 0]


def outcome(history: History, target: int | None = None) -> Confirmation | None:
    """The complete confirmation at `target`, by default the latest; None where there is none."""
    for at in sorted(history.contenders, reverse=True) if target is None else [target]:
        _, survivors = _halving(history, at)
        if len(survivors) > 1 or history.baseline is None:
            continue
        every = _records(history, "confirmation", at, "final")
        for inputs in reversed(dict.fromkeys(frozenset(_inputs([e])) for e in every)):
            finals = _finals(history, at, inputs)
            best, plain = (
                [e for e in finals if normalise(e.prompt) == normalise(standing.prompt)]
                for standing in (survivors[0], history.baseline)
            )
            if all(len(_passes_of(records)) >= FINAL for records in (best, plain)):
                return _outcome(history, at, survivors[0], best, plain)
    return None


def _outcome(
    history: History,
    target: int,
    winner: Standing,
    best: list[Experiment],
    plain: list[Experiment],
) -> Confirmation:
    floor = 0.0 if history.deterministic else (history.noise or 0.0) / 4
    baseline, inputs = plain[-1].prompt, _inputs(best)
    held_out = inputs != history.inputs
    mine, theirs = _passes_of(best), _passes_of(plain)
    generalises = held_out and len(inputs) >= SAMPLE
    if generalises:  # what varies from input to input counts too
        samples = min(len(mine), len(theirs))
        mine, theirs = _by_input(best), _by_input(plain)
        difference = replace(paired(mine, theirs, floor), samples=samples)
        scores = [replace(mean_interval(v, floor), samples=samples) for v in (mine, theirs)]
    else:
        difference = welch(mine, theirs, floor)
        scores = [mean_interval(v, floor) for v in (mine, theirs)]
    if normalise(winner.prompt) == normalise(baseline):
        difference = Interval(0.0, 0.0, 0.0, difference.samples)
    equals = [winner.prompt, *_equals(history, target, winner.prompt, floor)]
    if difference.high < 0:
        equals = [baseline]
    elif difference.low > 0:
        equals = [p for p in equals if normalise(p) != normalise(baseline)]
    else:
        equals.append(baseline)
    return Confirmation(
        target=target,
        winner=winner.prompt,
        baseline=baseline,
        winner_score=scores[0],
        baseline_score=scores[1],
        difference=difference,
        believed=winner.estimate,
        inputs=len(inputs),
        held_out=held_out,
        generalises=generalises,
        shortest=min(equals, key=len),
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
        passes = _pooled(_records(history, "confirmation", target, f"round {len(rounds) + 1}"))
        needed = _round_passes(alive)
        if any(len(passes.get(normalise(s.prompt), [])) < needed for s in alive):
            break
        rounds.append(passes)
        for key, values in passes.items():
            n, total = sums.get(key, (0, 0.0))
            sums[key] = n + len(values), total + sum(values)
        pooled = {key: total / n for key, (n, total) in sums.items()}
        ranked = sorted(alive, key=lambda s: (-pooled[normalise(s.prompt)], len(s.prompt)))
        alive = ranked[: math.ceil(len(alive) / 2)]
    return rounds, alive


def _round_passes(alive: Sequence[Standing]) -> int:
    return max(1, ROUND // len(alive))


def _final_passes(history: History, target: int) -> int:
    noise = history.noise_before.get(target, history.noise or 0.0)
    return min(FINAL_MOST, max(FINAL, math.ceil((noise / STANDARD_ERROR) ** 2)))


def _records(history: History, kind: str, target: int, stage: str) -> list[Experiment]:
    return [
        e for e in history.measured if (e.kind, e.iteration, e.strategy) == (kind, target, stage)
    ]


def _finals(history: History, target: int, held_out: Collection[str]) -> list[Experiment]:
    """The final records on just these inputs, or where there are none on those of the search."""
    inputs = set(held_out) or history.inputs
    records = _records(history, "confirmation", target, "final")
    return [e for e in records if _inputs([e]) == inputs]


def _pooled(records: Iterable[Experiment]) -> dict[str, list[float]]:
    """Prompt key -> passes."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        found[normalise(record.prompt)] += record.passes()
    return found


def _passes_of(records: Iterable[Experiment]) -> list[float]:
    return [value for record in records for value in record.passes()]


def _by_input(records: Iterable[Experiment]) -> list[float]:
    """The mean score of each input, in the inputs' alphabetical order."""
    scores: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for trial in record.trials:
            scores[trial.input].append(trial.score)
    return [fmean(scores[text]) for text in sorted(scores)]


def _inputs(records: Iterable[Experiment]) -> set[str]:
    return {trial.input for record in records for trial in record.trials}
