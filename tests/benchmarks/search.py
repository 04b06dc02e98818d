"""How good is the prompt that a search reports, and how true what it says of it? A simulated model.

    python -m tests.benchmarks.search [--seeds 10] [--iterations 250] [--workers 1 2 4 8]

At equal numbers of calls: this search; the article's loop (the last 3 attempts shown, one sample
each, the highest score wins); and blind proposals that see no history. `true` is the expected score
of the prompt that each reports, known exactly outside the run; `error` is reported minus true.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from tempfile import TemporaryDirectory
from typing import cast

from agent import STRATEGIES, SYSTEM
from autoresearch.api.answer import Completion
from autoresearch.api.exchange import Interrupted
from autoresearch.files.program import Program, load_program
from autoresearch.files.record import Experiment, Response
from autoresearch.files.results import Results
from autoresearch.night import Night
from autoresearch.options import parse_arguments
from autoresearch.report.reports import Reports
from autoresearch.report.terminal import Display
from autoresearch.search.confirmation import Step, outcome
from autoresearch.search.intervals import student
from autoresearch.search.proposal import parse_proposal
from autoresearch.search.series import open_history
from autoresearch.text import count
from client import Client, Usage
from main import Run, search
from scorer import score
from tests.benchmarks.landscapes import LANDSCAPES, Landscape, LandscapeWorld

LATENCY = 0.002  # seconds of a simulated call, where numbers of workers are compared

Attempts = list[tuple[float, str]]  # score, prompt


@dataclass(frozen=True)
class Outcome:
    method: str
    true: float
    reported: float
    low: float
    high: float
    calls: int


class WorldClient:
    """The client's face, with the simulated model behind it in the same process."""

    def __init__(self, landscape: Landscape, seed: int, latency: float = 0.0) -> None:
        self.landscape = landscape
        self.world = LandscapeWorld(landscape, seed)
        self.models = dict.fromkeys(("agent", "task", "judge"), "simulated")
        self.temperatures = {"agent": 1.0, "task": 0.7, "judge": 0.0}
        self.total = Usage()
        self.latency = latency

    def generate_response(
        self, system: str, user: str, *, role: str = "task", spent: Usage | None = None
    ) -> Completion:
        if self.latency:
            time.sleep(self.latency)
        text = self.world.complete(system, user, self.temperatures[role])
        self.total.add(0, 0, None)
        return Completion(text, "stop", 0, 0, "simulated")

    def stop(self) -> None: ...


class NoFile:
    """Results that are not kept."""

    notices: list[str] = []

    def append(self, experiment: Experiment) -> None: ...


def this_search(world: WorldClient, program: Program, options: argparse.Namespace) -> Outcome:
    client = cast(Client, world)
    history, _ = open_history([], program, world.models, world.temperatures["task"])
    display = Display(options)
    reports, results = Reports(display, options), cast(Results, NoFile())
    night: Night[Step, Experiment] = Night(options, client, Interrupted)
    run = Run(options, program, client, results, history, display, reports, night)
    search(run)
    found = outcome(history)
    assert found is not None, night.fatal
    score = found.winner_score
    true = world.landscape.true_score(found.best)
    name = f"this search, {count(options.workers, 'worker')}"
    return Outcome(name, true, score.mean, score.low, score.high, world.total.calls)


def best_of(
    name: str, world: WorldClient, program: Program, calls: int, shown: Callable[[Attempts], str]
) -> Outcome:
    """Propose, take one sample, keep the highest score: what most loops do."""
    attempts = [(sampled(world, program, ""), "")]
    while world.total.calls + 2 <= calls:
        reply = world.generate_response(SYSTEM, shown(attempts), role="agent").text
        prompt = parse_proposal(reply)[1]
        attempts.append((sampled(world, program, prompt), prompt))
    reported, prompt = max(attempts)
    true = world.landscape.true_score(prompt)
    return Outcome(name, true, reported, reported, reported, world.total.calls)


def sampled(world: WorldClient, program: Program, prompt: str) -> float:
    given = program.inputs[0]
    reply = world.generate_response(prompt, program.question(given), role="task")
    return score(cast(Client, world), program, Response(given, reply.text)).score


def last_three(attempts: Attempts) -> str:
    shown = "\n\n".join(f"Prompt, score {s:.2f}:\n```\n{p}\n```" for s, p in attempts[-3:])
    return f"The last attempts:\n\n{shown}\n\nPropose a better prompt."


def nothing(attempts: Attempts) -> str:
    return STRATEGIES["fresh"]


def one_seed(name: str, seed: int, iterations: int, workers: list[int]) -> list[Outcome]:
    landscape = LANDSCAPES[name]
    with TemporaryDirectory() as folder:
        path = Path(folder, "program.md")
        path.write_text(landscape.program, encoding="utf-8")
        program = load_program(path)
    outcomes = []
    for number in workers:
        options = parse_arguments(
            ["--quiet", "--iterations", str(iterations), "--workers", str(number)]
        )
        options.report_every = iterations
        # without latency no two experiments would ever be in flight at once
        world = WorldClient(landscape, seed, LATENCY if len(workers) > 1 else 0.0)
        outcomes.append(this_search(world, program, options))
    calls = outcomes[0].calls
    for rival, shown in (("article's loop", last_three), ("blind", nothing)):
        world = WorldClient(landscape, seed)
        outcomes.append(best_of(rival, world, program, calls, shown))
    return outcomes


def row(landscape: str, outcomes: list[Outcome]) -> str:
    errors = [o.reported - o.true for o in outcomes]
    size = fmean(abs(error) for error in errors)
    held = fmean(o.low <= o.true <= o.high for o in outcomes)
    holds = f"{held:5.0%}" if any(o.low < o.high for o in outcomes) else "    -"
    true = fmean(o.true for o in outcomes)
    spread = stdev(o.true for o in outcomes) if len(outcomes) > 1 else math.nan
    margin = 2 * spread / math.sqrt(len(outcomes))
    calls = fmean(o.calls for o in outcomes)
    return (
        f"{landscape:<10} {outcomes[0].method:<24} {true:5.2f} ± {margin:4.2f} "
        f"{fmean(o.reported for o in outcomes):9.2f} {size:8.2f} {holds:>9} {calls:6.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=list(LANDSCAPES))
    options = parser.parse_args()
    print(f"simulated model, {options.seeds} seeds, {options.iterations} iterations")
    heads = f"{'true':>12} {'reported':>9} {'|error|':>8} 95% holds  calls"
    print(f"{'landscape':<10} {'method':<24} {heads}")
    everything = []
    with ProcessPoolExecutor() as pool:
        for name in options.landscapes:
            run = partial(one_seed, name, iterations=options.iterations, workers=options.workers)
            runs = list(pool.map(run, range(options.seeds)))
            everything += runs
            for outcomes in zip(*runs, strict=True):
                print(row(name, list(outcomes)), flush=True)
    for outcomes in zip(*everything, strict=True):
        print(row("all", list(outcomes)))
    for at, number in enumerate(options.workers[1:], 1):
        losses = [runs[at].true - runs[0].true for runs in everything]
        loss = student([losses], None, (-10.0, 10.0))
        print(
            f"{count(number, 'worker')} against {options.workers[0]}, seed by seed: true score "
            f"{loss.mean:+.2f} (95 % interval {loss.low:+.2f} to {loss.high:+.2f})"
        )


if __name__ == "__main__":
    main()
