"""Find the best prompt for the task in program.md: propose, run, score, record, 250 times.

From top to bottom: `main` is the command, `search` the night, `iterate` one experiment of it,
`record` writes it down; below stands what surrounds the loop.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TextIO

try:
    from agent import ProposalError, propose_experiment
    from autoresearch.files.program import Program, ProgramError, load_program
    from autoresearch.files.results import Experiment, Results, ResultsError, Trial, load, reason
    from autoresearch.options import (
        SettingError,
        client_from_environment,
        environment,
        parse_arguments,
        task_temperature,
    )
    from autoresearch.report.page import write_page
    from autoresearch.report.terminal import Display, visible
    from autoresearch.search.confirmation import Ablation, Step, ablate, next_steps, outcome
    from autoresearch.search.history import PASSES, History, normalise
    from client import (
        TEMPERATURES,
        APIError,
        Client,
        FatalAPIError,
        Interrupted,
        Preflight,
        Usage,
    )
    from experiment import (
        AT_ONCE,
        latest_series,
        open_history,
        run_experiment,
        score_responses,
        scored,
    )
    from scorer import ScoreError, check_criteria
except ModuleNotFoundError as missing:
    sys.exit(
        f"error: {missing.name} is not installed here: see 'Try it' in README.md, "
        "or run .venv/bin/python instead of python"
    )
except KeyboardInterrupt:
    sys.exit(130)

FAILURES = 5  # failed experiments in a row that end the run
CALLS = 32  # of one record of a confirmation: all that a failure or a kill may lose of it
FIRST_PAGE = 2.0  # seconds without a page: what one costs is not known yet
PAGE_SHARE = 50  # a page's cost is at most so small a part of the time since the one before
SEED = 1  # of the demo
SIMULATED = "simulated/model"  # as the simulator lists it
SPOILS_ONE = (APIError, ProposalError, ScoreError)

DEMO = "demo: a simulated model, no key, no network; no figure here is about a real one"
ALL_DONE = "all {done} iterations are done; --iterations N goes on to a larger number"
STOPPING = b"\nstopping: what runs is ended and recorded first; Ctrl-C again drops it\n"
DROPPED = b"\ndropped what was running; everything recorded is safe\n"
CURSOR = b"\033[?25h"  # the progress bar had hidden it

Job = Callable[[], Experiment]
NextJob = Callable[[Collection[object]], "tuple[object, Job] | None"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0 done, 1 failed, 2 wrong use, 130 Ctrl-C, 143 SIGTERM."""
    sys.stdout, sys.stderr = sys.stdout or nowhere(), sys.stderr or nowhere()
    options = parse_arguments(argv)
    try:
        return command(options)
    except (ProgramError, ResultsError, APIError, SettingError) as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output is gone; what was recorded stands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = error.filename or "what this command prints"
        print(f"error: {what} cannot be written: {reason(error)}", file=sys.stderr)
        return 1


def nowhere() -> TextIO:
    """In place of a stream that was closed before we began."""
    return open(os.devnull, "w", encoding="utf-8")


def command(options: argparse.Namespace) -> int:
    if options.report:
        return show_report(options)
    program = load_program(options.program)
    check_criteria(program)
    if options.demo:
        return demo(options, program)
    client = client_from_environment(options)
    if options.check:
        from autoresearch.check import rehearse

        return rehearse(program, client, options)
    return run_all(options, program, client)


def demo(options: argparse.Namespace, program: Program) -> int:
    """The whole loop over HTTP against the simulator, in a results file begun afresh."""
    from autoresearch.simulator.server import Simulator

    try:
        options.results.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{options.results} of an earlier demo cannot be removed: {reason(error)}; "
            "run the demo in a folder that you can write to"
        ) from error
    print(DEMO)
    with Simulator(seed=SEED) as server:
        client = Client("none", server.url, dict.fromkeys(TEMPERATURES, SIMULATED))
        code = run_all(options, program, client, at_once=1)  # in order: the demo can be repeated
    print(DEMO)
    return code


@dataclass
class Run:
    """What one start of the command holds together."""

    program: Program
    client: Client
    results: Results
    history: History
    display: Display
    options: argparse.Namespace
    interruption: Interruption
    at_once: int = AT_ONCE
    started: float = field(default_factory=time.monotonic)
    next_page: float = field(default_factory=lambda: time.monotonic() + FIRST_PAGE)
    failures: int = 0
    fatal: Exception | None = None

    def goes_on(self) -> bool:
        return not (self.fatal or self.interruption.signal or self.limit())

    def limit(self) -> str:
        """The limit of this start that is used up, in words; empty while there is room."""
        spent, most = self.client.total, self.options
        hours = (time.monotonic() - self.started) / 3600
        if most.max_cost is not None and spent.charged >= most.max_cost:
            return f"--max-cost {most.max_cost:g} is reached: ${spent.charged:.4f} spent"
        if most.max_tokens is not None and spent.tokens >= most.max_tokens:
            return f"--max-tokens {most.max_tokens} is reached: {spent.tokens} tokens used"
        if most.max_hours is not None and hours >= most.max_hours:
            return f"--max-hours {most.max_hours:g} is reached"
        return ""


# --- the loop ---


def search(run: Run) -> None:
    """The baseline, proposals until enough of them are scored, then the confirmation."""
    keep_in_flight(run, partial(next_baseline, run))
    keep_in_flight(run, partial(next_proposal, run))
    if run.goes_on() and not run.options.no_confirm:
        keep_in_flight(run, partial(next_confirmation, run))


def iterate(run: Run, number: int) -> Experiment:
    """One experiment: propose a prompt, run it, score the responses.

    A prompt that may be as good as the leader earns further passes, so that luck does not lead.
    """
    client, program, history = run.client, run.program, run.history
    experiment = Experiment(number, "proposal", history.strategy(number))
    trials: list[Trial] = []
    spent, started = Usage(), time.monotonic()
    try:
        proposal = propose_experiment(client, program, history, number, spent)
        experiment = replace(experiment, **vars(proposal))
        while passes := history.passes_earned(proposal.prompt, experiment.passes()):
            responses = run_experiment(
                client, program, proposal.prompt, passes, spent, at_once=run.at_once
            )
            trials += score_responses(client, program, responses, spent, at_once=run.at_once)
            experiment = scored(experiment, trials)
    except SPOILS_ONE as error:
        experiment = failed(experiment, error)
    return billed(run, experiment, spent, started)


def measure(run: Run, experiment: Experiment, passes: int, held_out: bool = False) -> Experiment:
    """A prompt that stands already, run and scored on fresh samples."""
    client, program = run.client, run.program
    inputs = program.held_out if held_out else program.inputs
    spent, started = Usage(), time.monotonic()
    try:
        responses = run_experiment(
            client, program, experiment.prompt, passes, spent, inputs=inputs, at_once=run.at_once
        )
        trials = score_responses(client, program, responses, spent, at_once=run.at_once)
        experiment = scored(experiment, trials)
    except SPOILS_ONE as error:
        experiment = failed(experiment, error)
    return billed(run, experiment, spent, started)


def failed(experiment: Experiment, error: Exception) -> Experiment:
    """The record of a spoilt experiment: no score, no trials; an error is never a score."""
    if isinstance(error, FatalAPIError):
        raise error
    return replace(experiment, score=None, trials=(), response="", error=str(error))


def billed(run: Run, experiment: Experiment, spent: Usage, started: float) -> Experiment:
    return replace(
        experiment,
        tokens=spent.tokens,
        cost=spent.cost,
        seconds=round(time.monotonic() - started, 3),
        timestamp=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        models=dict(run.client.models),
        program=run.program.digest(run.client.models["task"], run.client.temperatures["task"]),
        criteria=run.program.criteria_digest(),
    )


def keep_in_flight(run: Run, next_job: NextJob) -> None:
    """Keep --workers experiments running, each recorded as it ends, until there is no next job."""
    running: dict[Future[Experiment], object] = {}
    with ThreadPoolExecutor(run.options.workers) as pool:
        try:
            while True:
                while len(running) < run.options.workers and run.goes_on():
                    job = next_job(running.values())
                    if job is None:
                        break
                    running[pool.submit(job[1])] = job[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    record(run, future)
        finally:  # after an error that nobody foresaw: what was paid for is recorded
            for future in running:
                with suppress(Exception):
                    run.results.append(future.result())


def record(run: Run, ended: Future[Experiment]) -> None:
    """Write an ended experiment down, learn from it, show it."""
    try:
        experiment = ended.result()
        run.results.append(experiment)
    except Interrupted:  # it waited for a retry when Ctrl-C came: it runs again next time
        return
    except (FatalAPIError, ResultsError) as error:
        run.fatal = run.fatal or error
        return
    took_lead = run.history.add(experiment)
    try:
        tell(run.display, run.results)
        run.display.iteration(experiment, run.history, took_lead)
    except OSError as error:  # nobody reads on: an end, but what runs is recorded first
        run.fatal = run.fatal or error
        return
    run.failures = run.failures + 1 if experiment.error else 0
    if run.failures >= FAILURES:
        run.fatal = FatalAPIError(f"{FAILURES} experiments in a row failed: {experiment.error}")
    done = run.history.completed
    if experiment.kind == "proposal" and experiment.score is not None:
        if done % run.options.report_every == 0 and done < run.options.iterations:
            run.display.report(run.history)
            write_report(run, running=True)


def next_baseline(run: Run, running: Collection[object]) -> tuple[object, Job] | None:
    baseline, wanted = run.history.baseline, normalise(run.program.baseline)
    if running or (baseline and normalise(baseline.prompt) == wanted):
        return None
    experiment = Experiment(0, "baseline", "baseline", prompt=run.program.baseline)
    passes = 1 if run.history.deterministic else PASSES
    return 0, partial(measure, run, experiment, passes)


def next_proposal(run: Run, running: Collection[object]) -> tuple[object, Job] | None:
    if run.history.completed + len(running) >= run.options.iterations:
        return None
    if run.options.stop_when_solved and run.history.saturated:
        return None
    number = run.history.next_number(running)
    return number, partial(iterate, run, number)


def next_confirmation(run: Run, running: Collection[object]) -> tuple[object, Job] | None:
    target = run.history.completed
    for step in next_steps(run.history, target, held_out_texts(run)):
        if (step.stage, step.prompt) not in running:
            experiment = Experiment(target, "confirmation", step.stage, prompt=step.prompt)
            job = partial(measure, run, experiment, in_part(run, step), step.held_out)
            return (step.stage, step.prompt), job
    return None


def next_ablation(run: Run, prompt: str, running: Collection[object]) -> tuple[object, Job] | None:
    steps = ablate(run.history, prompt, run.history.completed)
    for step in steps if isinstance(steps, list) else []:
        if step.stage not in running:
            experiment = Experiment(
                run.history.completed, "ablation", step.stage, prompt=step.prompt
            )
            return step.stage, partial(measure, run, experiment, in_part(run, step))
    return None


def in_part(run: Run, step: Step) -> int:
    """So many of the passes that one record makes no more than CALLS calls."""
    inputs = run.program.held_out if step.held_out else run.program.inputs
    return min(step.passes, max(1, CALLS // len(inputs)))


# --- around the loop ---


def run_all(
    options: argparse.Namespace, program: Program, client: Client, at_once: int = AT_ONCE
) -> int:
    """Search until the target, or what is left of it, and report; the exit code."""
    display = Display(
        target=options.iterations,
        verbose=options.verbose,
        quiet=options.quiet,
        simulated=SIMULATED in client.models.values(),
    )
    client.notify = display.wait
    interruption = Interruption(client)
    with Results(options.results) as results, display:
        tell(display, results)
        history, notices = opened(results, program, client)
        run = Run(program, client, results, history, display, options, interruption, at_once)
        if is_complete(run):
            for notice in [*notices, ALL_DONE.format(done=history.completed)]:
                display.say(notice)
            conclude(run)
            return exit_code(run)
        configured = dict(client.models)
        try:
            found = client.preflight(program.baseline, program.question(program.inputs[0]))
        except Interrupted:
            return 128 + interruption.signal
        refuse_unknown_price(run, found)
        if client.models != configured:  # the default model is gone: another series
            run.history, notices = opened(results, program, client)
        gc.freeze()  # a long history would be looked through for garbage again and again
        for notice in [*notices, *found.problems, start_line(run)]:
            display.say(notice)
        if options.ablate:
            take_apart(run)
        else:
            search(run)
            conclude(run)
        return exit_code(run)


def take_apart(run: Run) -> None:
    """--ablate: what each sentence of the winner is worth, on fresh samples."""
    found, leader = outcome(run.history), run.history.leader
    if leader is None:
        raise ResultsError(f"{run.options.results} has no winner yet; run python main.py first")
    prompt = found.best if found else leader.prompt
    keep_in_flight(run, partial(next_ablation, run, prompt))
    result = ablate(run.history, prompt, run.history.completed)
    if isinstance(result, Ablation):
        run.display.ablation(result)


def tell(display: Display, results: Results) -> None:
    """Say what the results file had to be healed of, once."""
    while results.notices:
        display.say(results.notices.pop(0))


def opened(results: Results, program: Program, client: Client) -> tuple[History, list[str]]:
    return open_history(results.experiments, program, client.models, client.temperatures["task"])


def held_out_texts(run: Run) -> list[str]:
    return [given.text for given in run.program.held_out]


def is_complete(run: Run) -> bool:
    """Whether nothing is left to do, so that neither key nor network is needed."""
    options, history = run.options, run.history
    if options.ablate or history.completed < options.iterations or next_baseline(run, ()):
        return False
    return options.no_confirm or not next_steps(history, history.completed, held_out_texts(run))


def refuse_unknown_price(run: Run, found: Preflight) -> None:
    for model in found.models:
        missing = "prices" if model.price is None else "counts of tokens"
        if run.options.max_cost is not None and not (model.price and model.prompt_tokens):
            raise SettingError(
                f"--max-cost needs {missing}, and the server gives none for {model.id}; "
                "--max-hours works without"
            )


def start_line(run: Run) -> str:
    done, target = run.history.completed, run.options.iterations
    where = f"{run.program.name}, {run.client.models['task']}, {run.options.results}"
    return f"{where}: {f'going on after experiment {done}' if done else 'begins'}, {target} in all"


def conclude(run: Run) -> None:
    """The last report, whatever ended the run."""
    write_report(run, running=False)
    write_winner(run)
    run.display.report(run.history, final=True)


def exit_code(run: Run) -> int:
    """0, or 128 + the signal that ended the run; raises what was fatal."""
    if run.fatal is not None:
        raise run.fatal
    if limit := run.limit():
        run.display.wait(f"{limit}; everything is kept, the same command goes on")
    return 128 + run.interruption.signal if run.interruption.signal else 0


def write_report(run: Run, *, running: bool) -> None:
    """report.html; while the run goes on, seldom enough to take no more than 1/PAGE_SHARE of it."""
    path, started = beside(run.options.results, "report.html"), time.monotonic()
    if running and started < run.next_page:
        return
    with warning(run.display, path):
        write_page(
            path,
            run.history,
            program_text=run.program.text,
            target=run.options.iterations,
            running=running,
            simulated=run.display.simulated,
        )
    run.next_page = time.monotonic() + (time.monotonic() - started) * PAGE_SHARE


@contextmanager
def warning(display: Display, path: Path) -> Iterator[None]:
    """What is derived from the records may fail to be written: a line, and the run goes on."""
    try:
        yield
    except OSError as error:
        display.wait(f"warning: {path} was not written: {reason(error)}")


def beside(results: Path, name: str) -> Path:
    """report.html for results.json, demo-report.html for demo-results.json, x-report.html for x."""
    stem = results.stem
    prefix = stem.removesuffix("results") if stem.endswith("results") else f"{stem}-"
    return results.with_name(prefix + name)


def write_winner(run: Run) -> None:
    """best-prompt.txt, ready to paste: the confirmed best."""
    found = outcome(run.history, run.history.completed)
    if found is None:
        return
    path = beside(run.options.results, "best-prompt.txt")
    partial_path = path.with_name(f".{path.name}.partial")
    with warning(run.display, path):
        partial_path.write_text(f"{found.best}\n", encoding="utf-8", errors="backslashreplace")
        os.replace(partial_path, path)


class Interruption:
    """Ctrl-C and SIGTERM: the first lets running experiments end, the second drops them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            os.write(2, DROPPED + (CURSOR if os.isatty(2) else b""))
            os._exit(128 + number)
        self.signal = number
        os.write(2, STOPPING)
        self.client.stop()


def show_report(options: argparse.Namespace) -> int:
    """--report: from the file alone, without key, network or lock, also while a run goes on."""
    experiments = load(options.results)
    if not experiments:
        raise ResultsError(f"{options.results} holds no experiments yet; python main.py begins")
    history, text = recorded_history(experiments, options)
    simulated = SIMULATED in experiments[-1].models.values()
    display = Display(target=options.iterations, quiet=options.quiet, simulated=simulated)
    display.report(history, final=True)
    if not text:
        display.say(f"{options.program} asks something else now: this was the last series before")
    path = beside(options.results, "report.html")
    try:
        write_page(
            path,
            history,
            program_text=text,
            target=options.iterations,
            running=False,
            simulated=simulated,
        )
    except OSError as error:
        raise ResultsError(
            f"{path} was not written: {reason(error)}; make its folder writable"
        ) from error
    display.say(f"wrote {path}")
    return 0


def recorded_history(
    experiments: Sequence[Experiment], options: argparse.Namespace
) -> tuple[History, str]:
    """The latest series with its program, by the present criteria where it is still asked."""
    last, temperature = experiments[-1], task_temperature(environment())
    try:
        program = load_program(options.program)
        check_criteria(program)
        if program.digest(last.models.get("task", ""), temperature) == last.program:
            history, _ = open_history(experiments, program, last.models, temperature)
            return history, program.text
    except ProgramError:
        pass  # it has moved on; the records stand for themselves
    return History(latest_series(experiments)), ""


if __name__ == "__main__":
    sys.exit(main())
