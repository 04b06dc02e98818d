"""Find the best prompt for the task in program.md: propose, run, score, record, 250 times.

`main` is the command, `research` the night, `search` its steps, `carry_out` one experiment.
"""

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

try:
    from agent import propose_experiment
    from autoresearch.api.exchange import APIError, FatalAPIError, Interrupted
    from autoresearch.api.models import TEMPERATURES
    from autoresearch.check import rehearse
    from autoresearch.criteria import check_criteria, doubts, judge_labels
    from autoresearch.criteria.kind import ScoreError
    from autoresearch.files.inputs import ProgramError
    from autoresearch.files.program import Program, load_program
    from autoresearch.files.record import Experiment, Trial
    from autoresearch.files.results import Results, ResultsError
    from autoresearch.night import Night, NightError, ends_in_one_line, side_by_side
    from autoresearch.options import SettingError, client_settings, parse_arguments
    from autoresearch.report.reports import Reports, show_report
    from autoresearch.report.terminal import Display
    from autoresearch.search.confirmation import Step
    from autoresearch.search.history import History
    from autoresearch.search.proposal import ProposalError
    from autoresearch.search.race import inputs_due, is_complete, phases, unconfirmed
    from autoresearch.search.series import open_history
    from autoresearch.simulator import MODEL
    from client import Client, Usage
    from experiment import run_experiment
    from scorer import ask_judge, score
except ModuleNotFoundError as missing:
    sys.exit(f"error: {missing.name} is not installed here: see README.md, or run .venv/bin/python")
except KeyboardInterrupt:
    sys.exit(130)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code: 0 done, 1 failed, 2 wrong use, 130 Ctrl-C, 143 SIGTERM."""
    told = ProgramError, ResultsError, APIError, NightError, SettingError
    return ends_in_one_line(partial(command, parse_arguments(argv)), told)


def command(options: argparse.Namespace) -> int:
    if options.report is not None:
        return show_report(options)
    program = load_program(options.program)
    check_criteria(program)
    if not options.demo:
        client = Client(**client_settings(options))
        if options.check:
            return rehearse(program, options, client, run_experiment, ask_judge, propose_experiment)
        return research(options, program, client)
    from autoresearch.simulator.server import Simulator

    options.results.unlink(missing_ok=True)  # of an earlier demo
    print(said := "demo: a simulated model, no key, no network; no figure here is about a real one")
    with Simulator(seed=1) as server:  # the whole loop, over HTTP
        client = Client("none", server.url, dict.fromkeys(TEMPERATURES, MODEL))
        code = research(options, program, client)
    print(said)
    return code


@dataclass(frozen=True)
class Run:
    options: argparse.Namespace
    program: Program
    client: Client
    results: Results
    history: History
    display: Display
    reports: Reports
    night: Night[Step, Experiment]


def research(options: argparse.Namespace, program: Program, client: Client) -> int:
    """Search until the target, or what is left of it, and report; the exit code."""
    display = Display(options, program, MODEL in client.models.values())
    client.notify, configured = display.wait, dict(client.models)
    night: Night[Step, Experiment] = Night(options, client, Interrupted)
    with Results(options.results) as results, display:
        display.tell(results.notices)
        series = results.experiments, program, client.models, client.temperatures["task"]
        history, notices = open_history(*series)
        if complete := is_complete(history, program, options):
            done = f"all {history.completed} iterations are done"
            notices.append(f"{done}; --iterations N goes on to a larger number")
        else:
            try:  # the first call shows whether any can succeed, and which model answers
                found = client.preflight(program.baseline, program.question(program.inputs[0]))
            except Interrupted:
                return night.exit_code(display.wait)
            found.refuse_unknown_price(options.max_cost)
            if client.models != configured:  # the default model is gone: another series
                history, notices = open_history(*series)
            notices += found.problems
            gc.freeze()  # a long history would be looked through for garbage again and again
        display.tell([*program.notices, *notices])
        reports = Reports(display, options)
        reports.begin(history, results.experiments)
        if not complete:
            display.start(program.name, client.models["task"], history.completed)
            search(Run(options, program, client, results, history, display, reports, night))
        night.attempt(results.catch_up)
        display.tell(results.notices)
        reports.conclude(history)
        return night.exit_code(display.wait, unconfirmed(history, options))


def search(run: Run) -> None:
    """The baseline, proposals until enough of them are scored, then the confirmation."""
    for next_step, ahead in phases(run.history, run.program, run.options):
        run.night.work(next_step, partial(carry_out, run), partial(record, run), ahead)


def carry_out(run: Run, step: Step) -> Experiment:
    """One experiment: propose a prompt, run it, score the responses; a failure leaves no score."""
    client, program, history, at_once = run.client, run.program, run.history, run.options.at_once
    experiment = Experiment(step.iteration, step.kind, step.stage, prompt=step.prompt)
    spent, started, trials = Usage(), time.monotonic(), list[Trial]()
    try:
        if step.kind == "proposal":
            proposal = propose_experiment(client, program, history, step.iteration, spent)
            experiment = experiment.with_(**vars(proposal))
        while inputs := inputs_due(history, program, step, experiment):  # more if it may lead
            prompt, mark = experiment.prompt, partial(score, client, program, spent=spent)
            responses = run_experiment(client, program, prompt, inputs, spent, at_once=at_once)
            trials += side_by_side(mark, responses, at_once if judge_labels(program) else 1)
            experiment = experiment.scored(trials)
    except FatalAPIError:
        raise
    except ProposalError as error:
        experiment = experiment.with_(thought=error.reply).spoilt(str(error))
    except (APIError, ScoreError) as error:
        experiment = experiment.spoilt(str(error))
    took = spent.tokens, spent.cost, time.monotonic() - started
    return experiment.stamped(*took, client.models, history.series, history.criteria)


def record(run: Run, experiment: Experiment) -> None:
    """Write an ended experiment down, learn from it, show it; a report every 25."""
    run.results.append(experiment)
    took_lead = run.history.add(experiment)
    run.display.tell(run.results.notices)
    run.display.tell(doubts(run.program, experiment))
    run.display.iteration(experiment, run.history, took_lead)
    cause = "one input spoils every experiment" * bool(run.history.spoilers)
    run.night.count(experiment.error, cause)
    done, every = run.history.completed, run.options.report_every
    if experiment.kind == "proposal" and experiment.score is not None:
        if done % every == 0 and done < run.options.iterations:
            run.reports.progress(run.history)


if __name__ == "__main__":
    sys.exit(main())
