"""What is measured on fresh samples after the search: which prompt wins, by how much, how sure.

A score that was chosen because it was high is biased upward. So successive halving (Karnin, Koren,
Somekh, Almost optimal exploration in multi-armed bandits, ICML 2013) picks a winner, and it, the
baseline and a much shorter contender are reported from samples that no choice was made on. All is a
pure function of the history, so that what was interrupted goes on where it stopped.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from statistics import fmean

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.history import BLOCK, CONTENDERS, History, Standing
from autoresearch.search.intervals import FEW, Evidence, Interval, within
from autoresearch.text import count, named, normalise

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
    """What to do next; the prompt and passes of a proposal show only while it runs."""

    stage: str
    prompt: str
    passes: int
    iteration: int = 0
    inputs: tuple[str, ...] = ()  # of each pass
    kind: str = "confirmation"


@dataclass(frozen=True)
class Shortest:
    """A prompt that saves characters and was shown to lose less than MARGIN on the same samples."""

    prompt: str
    score: Interval
    loss: Interval  # its score minus that of the best


@dataclass(frozen=True)
class Confirmation:
    """Scores from fresh samples alone. The intervals hold for the very inputs that were measured
    or, where `generalises`, for others of their kind: only a sample of inputs that no choice was
    made on can tell that."""

    target: int
    winner: str  # what the search and the halving put forward
    baseline: str
    best: str  # of the two the one with the higher mean here, of equals the likelier
    winner_score: Interval
    baseline_score: Interval
    difference: Interval  # winner - baseline
    chance: float  # that `best` is truly the better of the two
    believed: float  # score of the winner by the search
    inputs: int
    passes: int  # of each input
    held_out: bool
    generalises: bool
    shortest: Shortest | None
    skipped: tuple[str, ...]  # inputs that could not be asked

    @property
    def improved(self) -> bool:
        return self.difference.low > 0

    @property
    def worse(self) -> bool:
        return self.difference.high < 0


def next_steps(history: History, target: int) -> list[Step]:
    """What to measure now for the confirmation at `target` iterations, [] when it is complete: a
    step that was taken in part comes again with the passes that are still missing."""
    return missing(history, _plan(history, target)[1])


def cost_ahead(history: History, target: int) -> int:
    """Calls of the model that the confirmation will still need."""
    winner, plan = _plan(history, target)
    calls = sum(step.passes * len(step.inputs) for step in missing(history, plan))
    if plan and winner is None:
        final = _final(history, target, history.held_out)
        rounds = math.ceil(math.log2(len(plan))) - 1
        each = BLOCKS * BLOCK if len(history.blocks) > 1 else ROUND * len(history.inputs)
        calls += rounds * each + 3 * final.passes * len(final.inputs)
    return calls


def underway(history: History, target: int) -> str:
    """How far a confirmation is that has begun; "" when it is complete or has not begun."""
    done = [e for e in history.measured if (e.kind, e.iteration) == ("confirmation", target)]
    left = cost_ahead(history, target) if done else 0
    made = sum(len(e.trials) for e in done)
    return f"confirmation under way: {made:,} of {count(made + left, 'call')}" if left else ""


def sample(texts: Iterable[str], most: int = MOST) -> list[str]:
    """At most so many of the texts, in an order that is always the same: by their hash."""
    return sorted(texts, key=lambda text: sha256(text.encode("utf-8", "replace")).digest())[:most]


def baseline_record(history: History) -> Experiment:
    """The first of the present baseline with answers; an empty one where there is none."""
    prompt = normalise(history.baseline.prompt) if history.baseline else None
    records = (e for e in history.experiments if e.kind == "baseline" and e.trials)
    return next((e for e in records if normalise(e.prompt) == prompt), Experiment(None))


def answers_repeat(history: History) -> bool:
    """Whether the baseline's passes gave every input the same answer and score again."""
    answers = [(t.input, t.response, t.score) for t in baseline_record(history).trials]
    inputs = {text for text, _, _ in answers}
    again = len(answers) - len(inputs)
    if not again:
        return history.deterministic
    few = again < ALIKE and any(len(response) < LONG for _, response, _ in answers)
    return not few and len(set(answers)) == len(inputs)


def stands_for_others(history: History, inputs: Sequence[str]) -> bool:
    """Whether they stand for others of their kind: a sample that no choice was made on."""
    return len(inputs) >= SAMPLE and not history.inputs.issuperset(inputs)


def _plan(history: History, target: int) -> tuple[Standing | None, list[Step]]:
    """The winner and the finals: its own, the baseline's, and that of the shortest contender that
    may be its equal. None and the round of halving while there is no winner yet."""
    alive, estimates, halving = _halved(history, target)
    if len(alive) != 1:
        return None, halving
    winner, held_out = alive[0], history.held_out
    least = estimates[winner.prompt] - MARGIN
    equal = [p for p, value in estimates.items() if value >= least and _saves(p, winner.prompt)]
    prompts = [winner.prompt, (history.baseline or winner).prompt, *sorted(equal, key=len)[:1]]
    if held_out is None:  # program.md is not known: the final's inputs are those that both met
        met = [{t.input for t in taken(history, Step("final", p, 0, target))} for p in prompts[:2]]
        held_out = [*met[0] & met[1] - history.inputs]
    final = _final(history, target, held_out)
    labels = len({trial.score for trial in baseline_record(history).trials}) <= FEW
    if labels and len(final.inputs) < LABELS and stands_for_others(history, final.inputs):
        del prompts[2:]
    return winner, [replace(final, prompt=prompt) for prompt in prompts]


def _halved(history: History, target: int) -> tuple[list[Standing], dict[str, float], list[Step]]:
    """Who survives the complete rounds, best first, what each contender is taken for, and the next
    round, over many inputs on blocks from the end of their order: the search met those last."""
    alive = [*(history.contenders.get(target) or history.top(CONTENDERS))] if history.inputs else []
    estimates = {standing.prompt: standing.estimate for standing in alive}
    weights = {standing.prompt: standing.samples for standing in alive}
    blocked, number = len(history.blocks) > 1, 1
    order = [text for block in history.blocks for text in block][:: -1 if blocked else 1]
    if answers_repeat(history) and not blocked:
        del alive[1:]  # nothing new can be learned on the same inputs
    while len(alive) > 1:
        share = max(1, (BLOCKS if blocked else ROUND) // len(alive))
        inputs = order[: BLOCK * share] if blocked else order
        order = order[len(inputs) :] + inputs
        step = Step(f"round {number}", "", 1 if blocked else share, target, (*inputs,))
        plan = [replace(step, prompt=standing.prompt) for standing in alive]
        if missing(history, plan):
            return alive, estimates, plan
        mean = {s.prompt: fmean(map(fmean, by_input(taken(history, s)).values())) for s in plan}
        level = fmean(estimates[prompt] for prompt in mean) - fmean(mean.values())
        for prompt in mean:  # blocks are easier or harder, for all alike
            total = weights[prompt] * estimates[prompt] + share * (mean[prompt] + level * blocked)
            weights[prompt] += share
            estimates[prompt] = total / weights[prompt]
        alive.sort(key=lambda standing: (-estimates[standing.prompt], len(standing.prompt)))
        del alive[math.ceil(len(alive) / 2) :]
        number += 1
    return alive, estimates, []


def _saves(prompt: str, other: str) -> bool:
    return len(other) - len(prompt) >= max(1, SAVING * len(other))


def _final(history: History, target: int, held_out: Iterable[str] | None) -> Step:
    """The step of each prompt: the more inputs the fewer passes, few where answers repeat. Its
    inputs are the search's where no other can be asked: failed records name them repeatedly."""
    pools = sample(held_out or ()), sample(history.inputs)
    finals = (e for e in history.experiments if (e.iteration, e.strategy) == (target, "final"))
    errors = [e.error for e in finals if e.error]
    refused = {t: sum(f'input "{named(t)}"' in e for e in errors) for pool in pools for t in pool}
    kept = ([text for text in pool if refused[text] < REFUSED] for pool in pools)
    inputs = next(filter(None, kept), pools[1])
    general, repeat = stands_for_others(history, inputs), answers_repeat(history)
    passes = 1 if general and len(inputs) >= (FINAL if repeat else FINAL_MOST) else 2
    if not repeat:
        noise = within([*by_input(baseline_record(history).trials).values()])
        wanted = math.ceil(max(FINAL, (noise or 0.0) / STANDARD_ERROR**2) / len(inputs))
        passes = min(ENOUGH if general else FINAL_MOST, max(passes, wanted))
    return Step("final", "", passes, target, (*inputs,))


def missing(history: History, plan: Iterable[Step]) -> list[Step]:
    """What is left of the steps, each in parts of at most PART inputs."""
    steps = []
    for step in dict.fromkeys(plan):
        met = by_input(taken(history, step))
        for at in range(0, len(step.inputs), PART):
            part = step.inputs[at : at + PART]
            left = step.passes - min(len(met[text]) for text in part)
            steps.append(replace(step, passes=left, inputs=part))
    return [step for step in steps if step.passes > 0]


def by_input(trials: Iterable[Trial]) -> defaultdict[str, list[float]]:
    found = defaultdict[str, list[float]](list)
    for trial in trials:
        found[trial.input].append(trial.score)
    return found


def taken(history: History, step: Step) -> list[Trial]:
    """The trials that were made for a step; on whatever inputs where it names none."""
    place, prompt = (step.kind, step.iteration, step.stage), normalise(step.prompt)
    same = (e for e in history.measured if (e.kind, e.iteration, e.strategy) == place)
    trials = [trial for e in same if normalise(e.prompt) == prompt for trial in e.trials]
    inputs = set(step.inputs)
    return [trial for trial in trials if not inputs or trial.input in inputs]


def outcome(history: History, target: int | None = None) -> Confirmation | None:
    """The complete confirmation at `target`, by default the latest; None where there is none."""
    if target is None:
        latest = (outcome(history, at) for at in sorted(history.contenders, reverse=True))
        return next(filter(None, latest), None)
    standing, plan = _plan(history, target)
    if standing is None or history.baseline is None or missing(history, plan[:2]):
        return None
    (winner, baseline), inputs = (step.prompt for step in plan[:2]), plan[0].inputs
    complete = {step.prompt: step for step in plan if not missing(history, [step])}
    evidence = evidence_of(history, target, complete)
    difference, chance = evidence.difference(winner, baseline), evidence.chance(winner, baseline)
    best = winner if (difference.mean, chance) > (0, 0.5) else baseline
    saving = (prompt for prompt in sorted(complete, key=len) if _saves(prompt, best))
    shorter = (Shortest(p, evidence.score(p), evidence.difference(p, best)) for p in saving)
    return Confirmation(
        target=target,
        winner=winner,
        baseline=baseline,
        best=best,
        winner_score=evidence.score(winner),
        baseline_score=evidence.score(baseline),
        difference=difference,
        chance=max(LEAST, chance if best == winner else 1 - chance),
        believed=standing.estimate,
        inputs=len(inputs),
        passes=min(len(each) for scores in evidence.fresh.values() for each in scores.values()),
        held_out=not history.inputs.issuperset(inputs),
        generalises=evidence.generalises,
        shortest=next((each for each in shorter if each.loss.low > -MARGIN), None),
        skipped=tuple(text for text in sample(history.held_out or ()) if text not in inputs),
    )


def fresh_trials(history: History, found: Confirmation, prompt: str) -> list[Trial]:
    """The final's trials of one of its prompts, on the inputs that it speaks of."""
    plan = _plan(history, found.target)[1]
    return taken(history, next(step for step in plan if step.prompt == prompt))


def evidence_of(history: History, target: int, steps: Mapping[str, Step]) -> Evidence:
    """Prompts' fresh scores on the same inputs, beside what the search saw of them and others."""
    fresh = {prompt: by_input(taken(history, step)) for prompt, step in steps.items()}
    measured = (e for e in history.measured if e.iteration != target or e.strategy == "final")
    later = {id(trial) for e in measured for trial in e.trials}
    contenders = [s.prompt for s in history.contenders.get(target) or history.top(CONTENDERS)]
    seen = {
        prompt: by_input(t for t in history.trials(prompt) if id(t) not in later)
        for prompt in dict.fromkeys((*contenders, *fresh))
    }
    return Evidence(fresh, seen, stands_for_others(history, [*next(iter(fresh.values()))]))
