"""The next step of the night, as data: baseline, proposals, confirmation, ablation."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from functools import partial

from autoresearch.files.program import Program
from autoresearch.files.record import Experiment
from autoresearch.search.ablation import ablate, best_prompt
from autoresearch.search.confirmation import Step, next_steps
from autoresearch.search.history import PASSES, History
from autoresearch.text import normalise

CALLS = 32  # of one record of a confirmation: all that a failure or a kill may lose of it

NextStep = Callable[[Collection[Step]], Step | None]


def phases(history: History, program: Program, options: argparse.Namespace) -> list[NextStep]:
    """The night in order; each phase gives the step to begin beside those that run, or None."""
    if options.ablate:
        return [partial(next_ablation, history, program)]
    searching = [
        partial(next_baseline, history, program),
        partial(next_proposal, history, options.iterations),
    ]
    confirming = [] if options.no_confirm else [partial(next_confirmation, history, program)]
    return [*searching, *confirming]


def is_complete(history: History, program: Program, options: argparse.Namespace) -> bool:
    """Whether nothing is left to do, so that neither key nor network is needed."""
    return all(phase(()) is None for phase in phases(history, program, options))


def passes_due(history: History, step: Step, experiment: Experiment) -> int:
    """How many passes to run now of a step's prompt, given those it has; 0 ends it."""
    if step.kind == "proposal":
        return history.passes_earned(experiment.prompt, experiment.passes())
    return step.passes - len(experiment.passes())


def next_baseline(history: History, program: Program, running: Collection[Step]) -> Step | None:
    baseline = history.baseline
    if running or (baseline and normalise(baseline.prompt) == normalise(program.baseline)):
        return None
    passes = 1 if history.deterministic else PASSES
    return Step("baseline", program.baseline, passes, kind="baseline")


def next_proposal(history: History, iterations: int, running: Collection[Step]) -> Step | None:
    if history.completed + len(running) >= iterations:
        return None
    number = history.next_number({step.iteration for step in running})
    return Step(history.strategy(number), "", 0, kind="proposal", iteration=number)


def next_confirmation(history: History, program: Program, running: Collection[Step]) -> Step | None:
    held_out = [given.text for given in program.held_out]
    steps = next_steps(history, history.completed, held_out)
    return next((_in_part(s, program) for s in steps if not _runs(s, running)), None)


def next_ablation(history: History, program: Program, running: Collection[Step]) -> Step | None:
    steps = ablate(history, best_prompt(history), history.completed)
    waiting = steps if isinstance(steps, list) else []
    return next((_in_part(s, program) for s in waiting if not _runs(s, running)), None)


def _runs(step: Step, running: Collection[Step]) -> bool:
    return any((step.stage, step.prompt) == (other.stage, other.prompt) for other in running)


def _in_part(step: Step, program: Program) -> Step:
    """So many of the passes that one record makes no more than CALLS calls."""
    inputs = program.held_out if step.held_out else program.inputs
    return step.of(min(step.passes, max(1, CALLS // len(inputs))))
