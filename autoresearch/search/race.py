"""The next step of the night, as data: baseline, proposals, confirmation, ablation."""

import argparse
import math
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.files.record import Experiment
from autoresearch.search.ablation import ablate
from autoresearch.search.confirmation import Step, baseline_record, cost_ahead, next_steps
from autoresearch.search.history import History
from autoresearch.search.proposal import form_of_answer
from autoresearch.text import normalise

PASSES = 4  # passes that a prompt can earn by racing
BLOCKS = 8  # blocks that it can earn where there are many inputs
EXAMPLES_EVERY = 5  # proposals, where there is a pool of examples
PLATEAU = 15  # proposals without a new leader
CYCLE = tuple("refine wander combine wander refine wander explore wander simplify fresh".split())
PLATEAU_CYCLE = tuple("wander explore wander refine wander combine wander fresh".split())
CALLS = 32  # of one record of a confirmation: all that a failure or a kill may lose of it

Ahead = tuple[float, float, float]  # tokens, USD and hours
NOTHING: Ahead = (0.0, 0.0, 0.0)
Phase = tuple[Callable[[Collection[Step]], Step | None], Callable[[], Ahead]]


def phases(history: History, program: Program, options: argparse.Namespace) -> list[Phase]:
    """The night in order: what gives the step to begin beside those that run, or None at the end,
    and what to keep for the phases after it."""
    if options.ablate:
        return [(partial(next_measurement, history, True), lambda: NOTHING)]
    baseline = partial(next_baseline, history, program), lambda: NOTHING
    proposals = partial(next_proposal, history, program, options.iterations)
    if options.no_confirm:
        return [baseline, (proposals, lambda: NOTHING)]
    confirmation = partial(next_measurement, history, False), lambda: NOTHING
    return [baseline, (proposals, partial(ahead, history)), confirmation]


def is_complete(history: History, program: Program, options: argparse.Namespace) -> bool:
    """Whether nothing is left to do, so that neither key nor network is needed."""
    return all(next_step(()) is None for next_step, _ in phases(history, program, options))


def unconfirmed(history: History, options: argparse.Namespace) -> str:
    """The command that confirms what is there; "" where that is not wanted or done."""
    done = 0 if options.no_confirm or options.demo else history.completed
    if not done or next_measurement(history, False, ()) is None:
        return ""
    return f"not confirmed yet: {options.command} --iterations {done} confirms what is there"


def ahead(history: History) -> Ahead:
    """What confirming the present leader would take, going by the baseline."""
    baseline = baseline_record(history)
    share = cost_ahead(history, history.completed) / max(1, len(baseline.trials))
    tokens, cost, seconds = baseline.tokens or 0, baseline.cost or 0.0, baseline.seconds or 0.0
    return share * tokens, share * cost, share * seconds / 3600


def inputs_due(
    history: History, program: Program, step: Step, experiment: Experiment
) -> list[Input]:
    """The inputs to ask now for a step, given the trials that it has; [] ends it."""
    due = list(step.inputs * step.passes)[len(experiment.trials) :]
    if step.kind == "proposal":
        due = earned(history, experiment)
    given = {given.text: given for given in (*program.inputs, *program.held_out)}
    return [given[text] for text in due]


def earned(history: History, experiment: Experiment) -> list[str]:
    """What a proposal is asked next: a first block, and while its posterior mean plus deviation
    reaches the leader's mean up to eight; where these are all the inputs, up to four times. Passes
    over a single block double, so that those of one round run side by side."""
    with history.lock:
        samples, leader = history.samples(experiment), history.leader
        first, met = history.blocks[:BLOCKS], history.met(experiment.prompt, samples)
        passes = min(met[block] for block in first)
        once = history.deterministic or len(history.blocks) > BLOCKS
        left = (1 if once else PASSES) - passes
        if samples:
            standing = history.standing(experiment.prompt, samples)
            if left <= 0 or not leader or standing.estimate + standing.deviation <= leader.estimate:
                return []
        block = next(block for block in first if met[block] == passes)
        more = min(passes, left) if samples and len(first) == 1 else 1
        return [*block] * max(1, more)


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
    noise = (history.noise or 0.0) / math.sqrt(PASSES)
    blocked = len(history.blocks) > 1  # they differ by their inputs too
    return 10 - leader.estimate <= (leader.deviation if blocked else noise)


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


def next_measurement(history: History, ablation: bool, running: Collection[Step]) -> Step | None:
    """For the confirmation, or an ablation; so many passes that a record makes at most CALLS."""
    found = ablate(history) if ablation else next_steps(history, history.completed)
    steps = found if isinstance(found, list) else []
    begun = {replace(step, passes=0) for step in running}
    step = next((step for step in steps if replace(step, passes=0) not in begun), None)
    return step and replace(step, passes=min(step.passes, max(1, CALLS // len(step.inputs))))
