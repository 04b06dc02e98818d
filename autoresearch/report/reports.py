"""What lies beside the results file, report.html and best-prompt.txt, and the command --report.

Both files follow from the records: that one cannot be written costs a run no more than a line.
"""

import re
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from autoresearch.criteria import check_criteria
from autoresearch.files.inputs import ProgramError
from autoresearch.files.program import Program, load_program
from autoresearch.files.record import Experiment
from autoresearch.files.results import ResultsError, load, reason, write_whole
from autoresearch.options import environment, task_temperature
from autoresearch.report.findings import series_name
from autoresearch.report.page import page
from autoresearch.report.terminal import Display
from autoresearch.search.ablation import Ablation, ablate
from autoresearch.search.confirmation import outcome
from autoresearch.search.history import History
from autoresearch.search.series import latest_series, open_history
from autoresearch.simulator import MODEL
from autoresearch.text import count

PAGE_SHARE = 50  # a page's cost is at most so small a part of the time since the one before
MARK = re.compile(rb'<meta name="series" content="(\w+)"')


class Reports:
    """Writes both files of one series; `suffix` names those of one that program.md does not ask."""

    def __init__(self, display: Display, options: Namespace, suffix: str = "") -> None:
        self.display, self.options, self.suffix = display, options, suffix
        self.next_page = time.monotonic() + 2  # what a page costs is not known yet

    def begin(self, history: History, experiments: Sequence[Experiment]) -> None:
        """Name what another series left after it; whose it is report.html or a record tells."""
        owner, moved = experiments[-1].program if experiments else history.series, []
        with suppress(OSError), self._path("report.html").open("rb") as old:
            if found := MARK.search(old.read(1000)):
                owner = found[1].decode()
        files = ["best-prompt.txt", "report.html"]
        if series_name(owner) == series_name(history.series):  # by other criteria the prompt alone
            files = files[: any(e.criteria != history.criteria for e in history.experiments[-1:])]
        for path in map(self._path, files):
            with suppress(OSError):
                named = path.with_stem(f"{path.stem}-{series_name(owner)}")
                moved.append(f"{path} is now {path.replace(named)}")
        self.display.tell([f"from before the change: {', '.join(moved)}"] * bool(moved))

    def progress(self, history: History) -> None:
        """The report so far; the page seldom enough to take no more than 1/PAGE_SHARE of time."""
        self.display.report(history)
        if (started := time.monotonic()) >= self.next_page:
            self._page(history, running=True)
            self.next_page = time.monotonic() + (time.monotonic() - started) * PAGE_SHARE

    def conclude(self, history: History) -> bool:
        """The last report, whatever ended the run; whether its page could be written."""
        if self.options.ablate:
            if isinstance(result := ablate(history), Ablation):
                self.display.ablation(result)
            return True
        found = outcome(history, history.completed)
        best = self._write("best-prompt.txt", [f"{found.best}\n"]) if found else []
        written = self._page(history, running=False)
        self.display.report(history, final=True, files=[*best, *written])
        return bool(written)

    def _page(self, history: History, running: bool) -> list[str]:
        return self._write("report.html", page(history, self.display, running))

    def _write(self, name: str, parts: Iterable[str]) -> list[str]:
        path = self._path(name)
        try:
            write_whole(path, parts)
        except OSError as error:
            self.display.wait(f"warning: {path} was not written: {reason(error)}")
            return []
        return [str(path)]

    def _path(self, name: str) -> Path:
        """report.html for results.json, demo-report.html for demo-results.json."""
        prefix = f"{self.options.results.stem}-".removesuffix("results-")
        path: Path = self.options.results.with_name(prefix + name)
        return path.with_stem(path.stem + self.suffix)


def show_report(options: Namespace) -> int:
    """Print the report and write its files: from the records alone, also while a run goes on."""
    experiments = load(options.results)
    if not experiments:
        raise ResultsError(f"{options.results} holds no experiments yet; python main.py begins")
    history, program = chosen(experiments, options)
    simulated = any(MODEL in e.models.values() for e in history.experiments)
    suffix = "" if program else f"-{series_name(history.series)}"
    reports = Reports(Display(options, program, simulated), options, suffix)
    if program:
        reports.begin(history, experiments)
    return 0 if reports.conclude(history) else 1


def chosen(experiments: list[Experiment], options: Namespace) -> tuple[History, Program | None]:
    """The series that --report names or program.md asks; if that no longer does, no program."""
    counts = Counter(e.program for e in experiments)
    named = [d for d in counts if (d or "unnamed").startswith(options.report)]
    try:
        program = load_program(options.program)
        check_criteria(program)
        temperature = task_temperature(environment())
        models = {e.models.get("task", "") for e in experiments}
        digests = [d for model in models for d in program.digests(model, temperature)]
        for e in reversed(experiments):
            if e.program in digests and e.program in named:
                return open_history(experiments, program, e.models, temperature)[0], program
    except ProgramError:
        if not options.report:
            raise
    if options.report and len(named) == 1:
        records = latest_series([e for e in experiments if e.program == named[0]])
        return History(records, series=named[0]), None
    held = ", ".join(f"{series_name(d)} ({count(n, 'record')})" for d, n in counts.items())
    what = f"of series {options.report}" if options.report else f"of {options.program} as it is"
    raise ResultsError(
        f"{options.results} holds no records {what}, but {held}; --report NAME shows one"
    )
