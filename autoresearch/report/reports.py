"""What a night leaves beside its records: report.html, best-prompt.txt; and --report."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoresearch.criteria import check_criteria
from autoresearch.files.inputs import ProgramError
from autoresearch.files.program import load_program
from autoresearch.files.record import Experiment
from autoresearch.files.results import ResultsError, load, reason
from autoresearch.options import environment, task_temperature
from autoresearch.report.page import write_page
from autoresearch.report.terminal import Display
from autoresearch.search.confirmation import outcome
from autoresearch.search.history import History
from autoresearch.search.series import latest_series, open_history
from autoresearch.simulator import MODEL

FIRST_PAGE = 2.0  # seconds without a page: what one costs is not known yet
PAGE_SHARE = 50  # a page's cost is at most so small a part of the time since the one before


class Reports:
    """report.html and best-prompt.txt beside a results file; what cannot be written is a line."""

    def __init__(self, display: Display, options: argparse.Namespace, program_text: str) -> None:
        self.display, self.options, self.text = display, options, program_text
        self.next_page = time.monotonic() + FIRST_PAGE

    def progress(self, history: History) -> None:
        """The report so far; the page seldom enough to take no more than 1/PAGE_SHARE of time."""
        self.display.report(history)
        if (started := time.monotonic()) >= self.next_page:
            self._page(history, running=True)
            now = time.monotonic()
            self.next_page = now + (now - started) * PAGE_SHARE

    def conclude(self, history: History) -> None:
        """The last report, whatever ended the run."""
        self._page(history, running=False)
        if found := outcome(history, history.completed):
            path = beside(self.options.results, "best-prompt.txt")
            partial = path.with_name(f".{path.name}.partial")
            with self._warning(path):
                partial.write_text(f"{found.best}\n", encoding="utf-8", errors="backslashreplace")
                os.replace(partial, path)
        self.display.report(history, final=True)

    def _page(self, history: History, *, running: bool) -> None:
        path = beside(self.options.results, "report.html")
        with self._warning(path):
            write_page(
                path,
                history,
                program_text=self.text,
                target=self.options.iterations,
                running=running,
                simulated=self.display.simulated,
            )

    @contextmanager
    def _warning(self, path: Path) -> Iterator[None]:
        """What is derived from the records may fail to be written, and the run goes on."""
        try:
            yield
        except OSError as error:
            self.display.wait(f"warning: {path} was not written: {reason(error)}")


def beside(results: Path, name: str) -> Path:
    """report.html for results.json, demo-report.html for demo-results.json, x-report.html for x."""
    stem = results.stem
    prefix = stem.removesuffix("results") if stem.endswith("results") else f"{stem}-"
    return results.with_name(prefix + name)


def show_report(options: argparse.Namespace) -> int:
    """--report: from the file alone, without key, network or lock, also while a run goes on."""
    experiments = load(options.results)
    if not experiments:
        raise ResultsError(f"{options.results} holds no experiments yet; python main.py begins")
    temperature = task_temperature(environment())
    history, text = recorded_history(experiments, options.program, temperature)
    display = Display(options, simulated=MODEL in experiments[-1].models.values())
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
            simulated=display.simulated,
        )
    except OSError as error:
        raise ResultsError(
            f"{path} was not written: {reason(error)}; make its folder writable"
        ) from error
    display.say(f"wrote {path}")
    return 0


def recorded_history(
    experiments: Sequence[Experiment], path: Path, temperature: float
) -> tuple[History, str]:
    """The latest series with its program, by the present criteria where it is still asked."""
    last = experiments[-1]
    try:
        program = load_program(path)
        check_criteria(program)
        if program.digest(last.models.get("task", ""), temperature) == last.program:
            history, _ = open_history(experiments, program, last.models, temperature)
            return history, program.text
    except ProgramError:
        pass  # it has moved on; the records stand for themselves
    return History(latest_series(experiments)), ""
