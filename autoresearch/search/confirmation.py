"""What is measured on fresh samples after the search: which prompt wins, by how much, how sure.

The search's best score was chosen because it was high, so it is biased upward. Successive halving
(Karnin, Koren, Somekh, Almost optimal exploration in multi-armed bandits, ICML 2013) picks the
winner; then winner, baseline and a much shorter contender are measured on samples that no choice
was made on, and only those are reported. Each function here is a pure function of the history, so
that an interrupted confirmation goes on where it stopped.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from statistics import fmean

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.evidence import FEW, Evidence, Scores, by_input
from autoresearch.search.history import BLOCK, CONTENDERS, History
from autoresearch.search.intervals import Interval, within
from autoresearch.text import count, normalise, short

ROUND = 24  # passes in one round of halving, shared by its contenders,
BLOCKS = 16  # or blocks, where the search inputs come in blocks
FINAL = 15  # fresh trials of each prompt of the final at least, more where answers vary,
STANDARD_ERROR = 0.25  # until this is what they leave in the mean, in points
FINAL_MOST = 60  # passes; of inputs that stand for others
ENOUGH = 4  # tell as much as many
SAMPLE = 5  # held-out inputs from which they stand for others
MOST = 200  # inputs in the final; of more a sample
PART = 32  # inputs in one step
LEAST = 0.2  # chance of a prompt that lost in the search but won here, whatever the search saw
ALIKE, LONG = 9, 40  # equal answers, or characters of one, that are no chance: answers repeat
REFUSED = 2  # failures on an input after which the final leaves it out
MARGIN = 0.3  # points that a shorter prompt may lose and still pass as equal
LABELS = 100  # right or wrong, on fewer inputs than which that cannot be shown
SAVING = 0.15  # of the characters, the least that is worth it


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
    """A prompt that saves characters and was shown to lose less than MARGIN: `loss` is its score
    minus that of the best, on the same samples."""

    prompt: str
    score: Interval
    loss: Interval


@dataclass(frozen=True)
class Confirmation:
    """Scores from fresh samples alone; `believed` is what the search took the winner for.

    The intervals hold for the very inputs that were measured or, where `generalises`, for others of
    their kind: only a sample of inputs that no choice was made on can tell that.
    """

    target: int
    winner: str  # what the search and the halving put forward
    baseline: str
    best: str  # of the two the one with the higher mean here, of equals the likelier
    winner_score: Interval
    baseline_score: Interval
    difference: Interval  # winner - baseline
    chance: float  # that `best` is truly the better of the two
    believed: float
    inputs: int
    passes: int  # of each input
    held_out: bool
    generalises: bool
    labels: bool  # scores of a few values, so that the intervals are binomial
    shortest: Shortest | None
    skipped: tuple[str, ...]  # inputs that could not be asked

    @property
    def improved(self) -> bool:
        return self.difference.low > 0

    @property
    def worse(self) -> bool:
        return self.difference.high < 0


# ---- what to measure


def next_steps(history: History, target: int, held_out: Sequence[str] = ()) -> list[Step]:
    """What to measure now for the confirmation at `target` iterations; [] when it is complete.

    A step may be taken in parts: it comes again with the passes that are still missing.
    """
    halving = _Halving(history, target)
    if len(halving.alive) > 1:
        return missing_steps(history, target, halving.stage, halving.prompts, *halving.next_round())
    if not halving.alive:
        return []
    inputs, passes = _final(history, target, held_out or history.held_out or ())
    prompts = halving.finalists()
    scores = {score for each in _baseline_answers(history) for _, score in each}
    if len(scores) <= FEW and stands_for_others(history, inputs) and len(inputs) < LABELS:
        del prompts[2:]
    return missing_steps(history, target, "final", prompts, inputs, passes)


def cost_ahead(history: History, target: int, held_out: Sequence[str] = ()) -> int:
    """Calls of the model that the confirmation will still need."""
    steps = next_steps(history, target, held_out)
    calls = sum(step.passes * len(step.inputs or ()) for step in steps)
    if steps and steps[0].stage != "final":
        inputs, passes = _final(history, target, held_out or history.held_out or ())
        rounds = math.ceil(math.log2(len({step.prompt for step in steps}))) - 1
        each = BLOCKS * BLOCK if len(history.blocks) > 1 else ROUND * len(history.inputs)
        calls += rounds * each + 3 * passes * len(inputs)
    return calls


def underway(history: History, target: int, held_out: Sequence[str] = ()) -> str:
    """How far a confirmation is that has begun; "" when it is complete or has not begun."""
    done = [e for e in history.measured if (e.kind, e.iteration) == ("confirmation", target)]
    left = cost_ahead(history, target, held_out) if done else 0
    made = sum(len(e.trials) for e in done)
    return f"confirmation under way: {made:,} of {count(made + left, 'call')}" if left else ""


def sample(texts: Iterable[str], most: int = MOST) -> list[str]:
    """At most so many of the texts, in an order that is always the same: by their hash."""
    return sorted(texts, key=lambda text: sha256(text.encode("utf-8", "replace")).digest())[:most]


def answers_repeat(history: History) -> bool:
    """Whether the baseline's passes gave every input the same answer and score again."""
    answers = _baseline_answers(history)
    again = sum(len(each) - 1 for each in answers)
    if not again:
        return history.deterministic
    few = again < ALIKE and any(len(each[0][0]) < LONG for each in answers)
    return not few and all(len(set(each)) == 1 for each in answers)


def _baseline_answers(history: History) -> list[list[tuple[str, float]]]:
    """Response and score of each pass by input, in the baseline's own record."""
    found: dict[str, list[tuple[str, float]]] = defaultdict(list)
    prompt = normalise(history.baseline.prompt) if history.baseline else None
    same = (e for e in history.experiments if e.kind == "baseline" and e.trials)
    first = next((e for e in same if normalise(e.prompt) == prompt), None)
    for trial in first.trials if first else ():
        found[trial.input].append((trial.response, trial.score))
    return [*found.values()]


def _final(history: History, target: int, given: Collection[str]) -> tuple[list[str], int]:
    """Its inputs, the search's where no other can be asked, and the passes of each."""
    pools = sample(given), sample(_searched(history))
    kept = (_answered(history, target, pool) for pool in pools)
    inputs = next(filter(None, kept), pools[1])
    general = stands_for_others(history, inputs)
    if answers_repeat(history):
        return inputs, 1 if general and len(inputs) >= FINAL else 2
    noise = within([[score for _, score in each] for each in _baseline_answers(history)]) or 0.0
    passes = math.ceil(max(FINAL, noise / STANDARD_ERROR**2) / len(inputs))
    least = 1 if general and len(inputs) >= FINAL_MOST else 2
    return inputs, min(ENOUGH if general else FINAL_MOST, max(passes, least))


def _searched(history: History) -> list[str]:
    """The search's inputs in the order in which they are met, less those that are refused."""
    return [text for block in history.blocks for text in block]


def _answered(history: History, target: int, inputs: Iterable[str]) -> list[str]:
    """The inputs that failed records of the final do not name again and again."""
    where = ("confirmation", target, "final")
    failed = (e for e in history.experiments if e.error) if history.failures else ()
    errors = [e.error or "" for e in failed if (e.kind, e.iteration, e.strategy) == where]
    named = {text: sum(f'input "{short(text)}"' in error for error in errors) for text in inputs}
    return [text for text, failures in named.items() if failures < REFUSED]


def stands_for_others(history: History, inputs: Sequence[str]) -> bool:
    """Whether they stand for others of their kind: a sample that no choice was made on."""
    return len(inputs) >= SAMPLE and not history.inputs.issuperset(inputs)


class _Halving:
    """Who survives the rounds that are complete, and what each contender is taken for.

    Over many inputs a round takes blocks from the end of their order, which the search met last.
    """

    def __init__(self, history: History, target: int) -> None:
        self.history, self.target = history, target
        self.alive = list(history.contenders.get(target) or history.top(CONTENDERS))
        self.estimates = {s.prompt: s.estimate for s in self.alive}
        self.weights = {s.prompt: s.samples for s in self.alive}
        self.blocked = len(history.blocks) > 1
        self.order = _searched(history)[:: -1 if self.blocked else 1]
        self.rounds = self.met = 0
        if answers_repeat(history) and not self.blocked:
            del self.alive[1:]  # nothing new can be learned on the same inputs
        while len(self.alive) > 1 and self._take():
            self.rounds += 1
            self.alive.sort(key=lambda s: (-self.estimates[s.prompt], len(s.prompt)))
            del self.alive[math.ceil(len(self.alive) / 2) :]

    @property
    def stage(self) -> str:
        return f"round {self.rounds + 1}"

    @property
    def prompts(self) -> list[str]:
        return [standing.prompt for standing in self.alive]

    def _share(self) -> int:
        return max(1, (BLOCKS if self.blocked else ROUND) // len(self.alive))

    def next_round(self) -> tuple[list[str], int]:
        """Its inputs, and the passes of each contender over them."""
        if not self.blocked:
            return self.order, self._share()
        places = range(self.met, self.met + min(BLOCK * self._share(), len(self.order)))
        return [self.order[at % len(self.order)] for at in places], 1

    def _take(self) -> bool:
        """Pool the next round with what is known; False while it is not complete."""
        met = _met(records(self.history, "confirmation", self.target, self.stage))
        inputs, passes = self.next_round()
        if not all(_has(met, prompt, inputs, passes) for prompt in self.prompts):
            return False
        mean = {p: fmean(fmean(met[normalise(p)][text]) for text in inputs) for p in self.prompts}
        level = fmean(self.estimates[p] for p in mean) - fmean(mean.values())
        for p in mean:  # blocks are easier or harder, for all alike
            new = self._share() * (mean[p] + level * self.blocked)
            total = self.weights[p] * self.estimates[p] + new
            self.weights[p] += self._share()
            self.estimates[p] = total / self.weights[p]
        self.met += len(inputs)
        return True

    def finalists(self) -> list[str]:
        """The winner, the baseline, and the shortest contender that may be the winner's equal."""
        winner = self.alive[0].prompt
        baseline = self.history.baseline.prompt if self.history.baseline else winner
        least = self.estimates[winner] - MARGIN
        equal = [prompt for prompt, estimate in self.estimates.items() if estimate >= least]
        shorter = [prompt for prompt in equal if _saves(prompt, winner)]
        return [winner, baseline, *sorted(shorter, key=len)[:1]]


def _saves(prompt: str, other: str) -> bool:
    return len(other) - len(prompt) >= max(1, SAVING * len(other))


def missing_steps(
    history: History,
    target: int,
    stage: str,
    prompts: Iterable[str],
    inputs: Sequence[str],
    passes: int,
    kind: str = "confirmation",
) -> list[Step]:
    """The steps that bring each prompt to so many passes of each input."""
    met = _met(records(history, kind, target, stage))
    parts = [tuple(inputs[at : at + PART]) for at in range(0, len(inputs), PART)]
    steps = []
    for key, prompt in {normalise(prompt): prompt for prompt in prompts}.items():
        for part in parts:
            left = passes - min(len(met.get(key, {}).get(text, ())) for text in part)
            held_out = not history.inputs.issuperset(part)
            steps.append(Step(stage, prompt, left, held_out, kind, target, part))
    return [step for step in steps if step.passes > 0]


def records(history: History, kind: str, target: int, stage: str) -> list[Experiment]:
    return [
        e for e in history.measured if (e.kind, e.iteration, e.strategy) == (kind, target, stage)
    ]


def _met(taken: Iterable[Experiment]) -> dict[str, Scores]:
    """Prompt key -> input -> the score of each pass."""
    trials: dict[str, list[Trial]] = defaultdict(list)
    for record in taken:
        trials[normalise(record.prompt)] += record.trials
    return {key: by_input(each) for key, each in trials.items()}


def _has(met: Mapping[str, Scores], prompt: str, inputs: Iterable[str], passes: int) -> bool:
    mine = met.get(normalise(prompt), {})
    return all(len(mine.get(text, ())) >= passes for text in inputs)


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
    halving = _Halving(history, target)
    if len(halving.alive) != 1:
        return None
    prompts = halving.finalists()
    winner, baseline = prompts[:2]
    met = _met(records(history, "confirmation", target, "final"))
    given = history.held_out
    if given is None:  # program.md is not known: the final's inputs are those that both met
        both = set(met.get(normalise(winner), ())) & set(met.get(normalise(baseline), ()))
        given = tuple(both - history.inputs)
    inputs, passes = _final(history, target, given)
    if not all(_has(met, prompt, inputs, passes) for prompt in prompts[:2]):
        return None
    fresh = {
        prompt: {text: met[normalise(prompt)][text] for text in inputs}
        for prompt in prompts
        if _has(met, prompt, inputs, passes)
    }
    evidence = Evidence(history, target, fresh, stands_for_others(history, inputs))
    difference, chance = evidence.difference(winner, baseline), evidence.chance(winner, baseline)
    best = winner if (difference.mean, chance) > (0, 0.5) else baseline
    return Confirmation(
        target=target,
        winner=winner,
        baseline=baseline,
        best=best,
        winner_score=evidence.score(winner),
        baseline_score=evidence.score(baseline),
        difference=difference,
        chance=max(LEAST, chance if best == winner else 1 - chance),
        believed=halving.alive[0].estimate,
        inputs=len(inputs),
        passes=min(len(each) for scores in fresh.values() for each in scores.values()),
        held_out=not history.inputs.issuperset(inputs),
        generalises=evidence.generalises,
        labels=evidence.scale is not None,
        shortest=_shortest(evidence, best),
        skipped=tuple(text for text in sample(given) if text not in inputs),
    )


def _shortest(evidence: Evidence, best: str) -> Shortest | None:
    """The shortest prompt that saves enough and is shown to lose no more than MARGIN."""
    for prompt in sorted(evidence.fresh, key=len):
        if _saves(prompt, best) and (loss := evidence.difference(prompt, best)).low > -MARGIN:
            return Shortest(prompt, evidence.score(prompt), loss)
    return None
