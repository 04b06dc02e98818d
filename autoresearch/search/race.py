"""The next step of the night, as data: baseline, proposals, confirmation, ablation."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.files.record import Experiment
from autoresearch.search.ablation import ablate, best_prompt
from autoresearch.search.confirmation import Step, cost_ahead, next_steps
from autoresearch.search.history import BLOCK, WHOLE, History
from autoresearch.search.posterior import Sample
from autoresearch.search.proposal import form_of_answer
from autoresearch.text import normalise

PASSES = 4  # passes that a prompt can earn by racing; so many a usual one gets:
USUAL_PASSES = 1.5
BLOCKS = 8  # blocks that it can earn where there are many inputs; a usual one:
USUAL_BLOCKS = 2.2
EXAMPLES_EVERY = 5  # proposals, where there is a pool of examples
PLATEAU = 15  # proposals without a new leader

CYCLE = (
    *("refine", "wander", "combine", "wander", "refine"),
    *("wander", "explore", "wander", "simplify", "fresh"),
)
PLATEAU_CYCLE = (
    *("wander", "explore", "wander", "refine"),
    *("wander", "combine", "wander", "fresh"),
)
ROUNDS = 3  # of halving, from eight contenders to one
CALLS = 32  # of one record of a confirmation: all that a failure or a kill may lose of it


@dataclass(frozen=True)
class Phase:
    """`next_step` gives the step to begin beside those that run, or None at the end; `ahead`
    what to keep for the phases after it."""

    next_step: Callable[[Collection[Step]], Step | None]
    ahead: Callable[[], tuple[float, float, float]] = lambda: (0.0, 0.0, 0.0)


def phases(history: History, program: Program, options: argparse.Namespace) -> list[Phase]:
    """The night in order."""
    if options.ablate:
        return [Phase(partial(next_ablation, history, program))]
    confirming = [] if options.no_confirm else [Phase(partial(next_confirmation, history, program))]
    proposing = partial(next_proposal, history, program, options.iterations)
    return [
        Phase(partial(next_baseline, history, program)),
        Phase(proposing, partial(ahead, history, program)) if confirming else Phase(proposing),
        *confirming,
    ]


def is_complete(history: History, program: Program, options: argparse.Namespace) -> bool:
    """Whether nothing is left to do, so that neither key nor network is needed."""
    return all(phase.next_step(()) is None for phase in phases(history, program, options))


def unconfirmed(history: History, program: Program, options: argparse.Namespace) -> str:
    """The command that confirms what is there; "" where that is not wanted or done."""
    done = history.completed
    if options.no_confirm or not done or next_confirmation(history, program, ()) is None:
        return ""
    return f"not confirmed yet: python main.py --iterations {done} confirms what is there"


def ahead(history: History, program: Program) -> tuple[float, float, float]:
    """Tokens, USD and hours that confirming what is there would take, going by the baseline."""
    held_out = [given.text for given in program.held_out]
    baseline = next((e for e in history.experiments if e.kind == "baseline" and e.trials), None)
    if baseline is None:
        return 0.0, 0.0, 0.0
    share = cost_ahead(history, history.completed, held_out) / len(baseline.trials)
    tokens, cost, seconds = baseline.tokens or 0, baseline.cost or 0.0, baseline.seconds or 0.0
    return share * tokens, share * cost, share * seconds / 3600


def answers_ahead(program: Program, iterations: int) -> float:
    """Answers that the search usually takes, the baseline's included."""
    size = len(program.inputs)
    if size <= WHOLE:
        return size * (PASSES + USUAL_PASSES * iterations)
    return min(size, BLOCKS * BLOCK) + USUAL_BLOCKS * BLOCK * iterations


def inputs_due(
    history: History, program: Program, step: Step, experiment: Experiment
) -> list[Input]:
    """The inputs to ask now for a step, given the trials that it has; [] ends it."""
    if step.kind == "proposal":
        due = earned(history, experiment)
    else:
        every = [text for block in history.blocks for text in block]
        due = ([*(step.inputs or every)] * step.passes)[len(experiment.trials) :]
    given = {given.text: given for given in (*program.inputs, *program.held_out)}
    return [given[text] for text in due]


def earned(history: History, experiment: Experiment) -> list[str]:
    """What a proposal is asked next: the first block of all, whatever it is, and then while its
    posterior mean plus deviation reaches the leader's mean.

    It meets one block after the other, up to eight: where these are all the inputs, up to four
    times; where there are more, the confirmation goes on with those. Passes over a single block
    double (1, 2, 4), so that those of one round run side by side.
    """
    with history.lock:
        samples, prompt = history.samples(experiment), experiment.prompt
        first, met = history.blocks[:BLOCKS], history.met(prompt, samples)
        passes = min(met[block] for block in first)
        once = history.deterministic or len(history.blocks) > BLOCKS
        most = 1 if once else PASSES
        if samples and (passes >= most or not contends(history, prompt, samples)):
            return []
        block = next(block for block in first if met[block] == passes)
        more = min(passes, most - passes) if samples and len(first) == 1 else 1
        return [*block] * max(1, more)


def contends(history: History, prompt: str, samples: Sequence[Sample]) -> bool:
    """Whether a prompt with these further samples may be as good as the leader."""
    if history.leader is None:
        return False
    standing = history.standing(prompt, samples)
    return standing.estimate + standing.deviation > history.leader.estimate


def strategy(history: History, program: Program, number: int) -> str:
    """What iteration `number` tries, from the number and the state of the search alone."""
    first = 1 if history.inherited is None else 2
    if number < first:
        return "carry over"
    if number == first and form_of_answer(program.inputs):
        return "format"
    if saturated(history):
        return "simplify"
    if program.pool and number % EXAMPLES_EVERY == 3:
        return "examples"
    cycle = PLATEAU_CYCLE if history.since_lead >= PLATEAU else CYCLE
    return cycle[(number - 1) % len(cycle)]


def saturated(history: History) -> bool:
    """Whether the leader cannot be told from a full score: the criteria leave no headroom."""
    leader = history.leader
    if leader is None or (leader.samples < PASSES and not history.deterministic):
        return False
    if len(history.blocks) > 1:  # its blocks differ by their inputs too
        return 10 - leader.estimate <= leader.deviation
    return 10 - leader.estimate <= (history.noise or 0.0) / math.sqrt(PASSES)


def next_baseline(history: History, program: Program, running: Collection[Step]) -> Step | None:
    baseline = history.baseline
    if running or (baseline and normalise(baseline.prompt) == normalise(program.baseline)):
        return None
    passes = 1 if len(history.blocks) > 1 else PASSES
    inputs = tuple(text for block in history.blocks[:BLOCKS] for text in block)
    return Step("baseline", program.baseline, passes, kind="baseline", inputs=inputs)


def next_proposal(
    history: History, program: Program, iterations: int, running: Collection[Step]
) -> Step | None:
    if history.completed + len(running) >= iterations:
        return None
    number = history.next_number({step.iteration for step in running})
    return Step(strategy(history, program, number), "", 0, kind="proposal", iteration=number)


def next_confirmation(history: History, program: Program, running: Collection[Step]) -> Step | None:
    held_out = [given.text for given in program.held_out]
    steps = next_steps(history, history.completed, held_out)
    return next((_in_part(s, program) for s in steps if not _runs(s, running)), None)


def next_ablation(history: History, program: Program, running: Collection[Step]) -> Step | None:
    steps = ablate(history, best_prompt(history), history.completed)
    waiting = steps if isinstance(steps, list) else []
    return next((_in_part(s, program) for s in waiting if not _runs(s, running)), None)


def _runs(step: Step, running: Collection[Step]) -> bool:
    return any(step.of(0) == other.of(0) for other in running)


def _in_part(step: Step, program: Program) -> Step:
    """So many of the passes that one record makes no more than CALLS calls."""
    inputs = step.inputs or program.inputs
    return step.of(min(step.passes, max(1, CALLS // len(inputs))))
