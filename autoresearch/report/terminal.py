"""What a run prints: a block per experiment, a report every 25 and the verdict on one screen.

On a terminal rich draws colour and a progress bar; anywhere else the same words are plain lines
that grep reads. Nothing that a model wrote reaches the terminal as a command.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import textwrap
import threading
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from autoresearch.files.program import Program
from autoresearch.files.record import Experiment
from autoresearch.report import findings
from autoresearch.report.findings import Row, interval
from autoresearch.search.ablation import Ablation
from autoresearch.search.confirmation import outcome
from autoresearch.search.history import History, Standing
from autoresearch.text import count, duration, short, visible

if TYPE_CHECKING:  # rich would cost a piped run 50 ms and 7 MB
    from rich.console import Console
    from rich.progress import Progress

WIDTH = 100  # columns of the plain form
LINE = 120  # columns beyond which a wide terminal makes prose no easier to read
INDENT = 13  # columns of the labels
WORST = 5  # inputs or criteria shown of those that fail; the page has all
BELOW = 4  # lines that a shell and a closing notice take under the verdict
GREEN, BLUE = "color(29)", "color(31)"  # dark enough for white, light enough for black

Part = tuple[str, str]  # text, style on a terminal


class Display:
    """What a run prints. A context manager: inside, a terminal has a progress bar at the bottom.

    Every method may be called from any thread. `program` is None where program.md asks something
    else than the records that are shown.
    """

    def __init__(
        self, options: argparse.Namespace, program: Program | None = None, simulated: bool = False
    ) -> None:
        self.target: int = options.iterations
        self.verbose, self.quiet = options.verbose, options.quiet
        self.results, self.program, self.simulated = options.results, program, simulated
        self.console: Console | None = None
        self.bar: Progress | None = None
        self.status = ""
        self.lock = threading.RLock()
        if isinstance(sys.stdout, io.TextIOWrapper):  # a log that can be followed, in any encoding
            sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        if sys.stdout.isatty() and not plain:
            from rich.console import Console

            self.console = Console(highlight=False, markup=False, emoji=False)

    def __enter__(self) -> Display:
        if self.console is not None and not self.quiet:
            self.bar = _new_bar(self.console)
            self.bar.add_task("", total=self.target + 1)  # the last step is the confirmation
            self.waiting("waits for the first answer")
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def tell(self, notices: list[str]) -> None:
        """Print each notice once, none when quiet: the list is empty then."""
        while notices:
            line = visible(notices.pop(0))
            if not self.quiet:
                self._line((line, ""))

    def start(self, program: str, model: str, done: int) -> None:
        if self.bar is not None:  # what an earlier start did is no pace of this one
            self.bar.reset(self.bar.task_ids[0], completed=done)
        begins = f"going on after experiment {done}" if done else "begins"
        self.tell([f"{program}, {model}, {self.results}: {begins}, {self.target} in all"])

    def wait(self, line: str) -> None:
        """A wait for a retry: above the bar, or on stderr where that is not this terminal."""
        line = visible(line).replace("\n", " ")
        if self.console is not None and sys.stderr.isatty():
            self._line((line, "magenta"))
        else:
            with self.lock:
                print(line, file=sys.stderr, flush=True)

    def waiting(self, text: str) -> None:
        """What is waited for now, beside the moving bar."""
        if self.bar is not None:
            told = f"{self.status}  {short(text, 40)}"
            self.bar.update(self.bar.task_ids[0], description=told)

    def iteration(self, experiment: Experiment, history: History, took_lead: bool) -> None:
        """The block of an experiment that has just ended, of any kind."""
        leader, kind = history.leader, experiment.kind
        with self.lock:
            if not self.quiet:
                self._block(experiment, leader if took_lead and kind == "proposal" else None)
            if self.bar is not None:
                done = min(history.completed, self.target)
                phase = f" {kind}" * (kind not in ("proposal", "baseline"))
                self.status = f"{done}/{self.target}{phase}"
                self.status += f"  best {leader.estimate:.2f}" if leader else ""
                self.bar.update(self.bar.task_ids[0], completed=done)
                self.waiting("waits for answers")

    def report(self, history: History, *, final: bool = False, files: Sequence[str] = ()) -> None:
        """The report so far or, when `final`, the last one: it ends in the verdict, which names the
        `files` that were written, and, piped, in the figures for grep."""
        done = f"{history.completed:,} of {count(self.target, 'experiment')}"
        leader = history.leader
        rows = [("task", findings.goal_line(self.program, history))]
        if leader is not None and not final:
            rows += [("so far", findings.headline(history, None)), ("prompt", leader.prompt)]
        with self.lock:
            self._title(f"report, {done}" if final else f"after {done}")
            self._fields([*rows, *findings.search_rows(history)])
            if final:
                self._verdict(history, files)
            if final and self.console is None:
                self._line(("---", ""))
                for key, value in findings.summary(history, self.simulated):
                    self._line((f"{key}: {value}", ""))
            self._line()

    def ablation(self, result: Ablation | None) -> None:
        """What each sentence is worth, and the prompt without those worth nothing measurable."""
        if result is None:
            return
        with self.lock:
            self._title("what each sentence is worth, with its 95 % interval")
            for sentence, worth, verdict in result.sentences:
                known = f"{worth.low:.2f} to {worth.high:.2f}"
                self._fields([(f"{worth.mean:+.2f}", f"{known:<17}{verdict:<16}{sentence}")])
            lost = "nothing: no sentence can go without a measurable loss"
            if result.loss is not None:
                lost = f"{result.loss.mean:+.2f} ({interval(result.loss)}) by\n{result.shortened}"
            self._fields([("shortened", lost)])
            self._line()

    def _verdict(self, history: History, files: Sequence[str]) -> None:
        """On a terminal the prompt is cut so that all of it stands on the last screen."""
        found = outcome(history, history.completed)
        failing = findings.what_fails(history, found, self.program)
        if worst := [*findings.worst_rows(*failing, WORST)]:
            self._title("what fails, the worst first")
            self._fields(worst)
        self._title("verdict")
        best = found.best if found else history.leader and history.leader.prompt
        told, shorter = findings.headline(history, found), findings.shorter(found)
        above: list[list[Part]] = [[(line, "bold")] for line in self._wrapped(told, 0)]
        above += self._lines("rests on", findings.grounds(history, found, self.program))
        prompt = self._lines("prompt", best or "(empty)") if best is not None else []
        below = [
            *self._lines("shorter", shorter and f"{shorter}: see the page"),
            *self._lines("fails", findings.fails_line(*failing)),
            *self._lines("next", findings.next_step(history, found)),
            *self._lines("files", ", ".join(files)),
        ]
        if self.console is not None:
            room = max(2, self.console.height - BELOW - 2 - len(above) - len(below))
            if len(prompt) > room:
                prompt = [*prompt[: room - 1], [(" " * INDENT + "...", "dim")]]
        for parts in [*above, *prompt, *below]:
            self._line(*parts)

    def _block(self, e: Experiment, leads: Standing | None) -> None:
        """Three lines, or the texts whole for a new leader and when verbose."""
        name = f"iteration {e.iteration}/{self.target}" if e.kind == "proposal" else e.kind
        facts = [] if e.score is None else [count(len(e.passes()), "pass", "passes")]
        facts += [] if e.tokens is None else [count(e.tokens, "token")]
        facts += [] if e.seconds is None else [duration(e.seconds)]
        failed = (f"failed: {short(e.error or 'no score', WIDTH)}", "red")
        parts = [
            (name, "bold"),
            (f"  {visible(e.strategy)}" * (e.strategy not in ("", e.kind)), BLUE),
            ("  ", ""),
            failed if e.score is None else (f"score {e.score:.2f}", "bold"),
            (f"  takes the lead at {leads.estimate:.2f}" if leads else "", GREEN),
        ]
        told = f"  ({', '.join(facts)})"
        if facts and sum(len(text) for text, _ in parts) + len(told) <= self._width():
            parts.append((told, "dim"))
        self._line(*parts)
        whole = self.verbose or leads is not None
        for label, text in ("thought", e.thought), ("prompt", e.prompt), ("response", e.response):
            if label != "thought" or self.verbose:
                shown = text or "(empty)" * (label == "prompt")
                self._fields([(label, shown)], whole)

    def _fields(self, rows: Iterable[Row], whole: bool = True) -> None:
        for label, text in rows:
            for parts in self._lines(label, text, whole):
                self._line(*parts)

    def _lines(self, label: str, text: str, whole: bool = True) -> list[list[Part]]:
        """A labelled text with a hanging indent, cut to one line unless `whole`."""
        lines = self._wrapped(visible(text) if whole else short(text, 2 * LINE), INDENT)
        if not whole and len(lines) > 1:
            lines = [f"{lines[0][:-4].rstrip()} ..."]
        heads = [label, *[""] * len(lines)]
        return [
            [(f"  {head:<{INDENT - 2}}" if line or head else "", "dim"), (line, "")]
            for head, line in zip(heads, lines, strict=False)
            if text
        ]

    def _wrapped(self, text: str, indent: int) -> list[str]:
        width = max(20, self._width() - indent)
        if self.console is None:
            wrap = partial(textwrap.wrap, width=width, break_on_hyphens=False)
            return [part for line in text.split("\n") for part in wrap(line) or [""]]
        from rich.text import Text  # it knows how wide a character is

        return [line.plain.rstrip() for line in Text(text).wrap(self.console, width)]

    def _width(self) -> int:
        return WIDTH if self.console is None else min(self.console.width, LINE)

    def _title(self, text: str) -> None:
        text += ", simulated" * self.simulated
        self._line()
        self._line((f"== {text} ==", "bold"))

    def _line(self, *parts: Part) -> None:
        with self.lock:
            if self.console is None:
                print("".join(text for text, _ in parts))
                return
            from rich.text import Text

            self.console.print(Text.assemble(*parts))


def _new_bar(console: Console) -> Progress:
    from rich import progress

    return progress.Progress(
        progress.SpinnerColumn("line"),
        progress.BarColumn(None),
        progress.TextColumn("{task.description}", markup=False),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        expand=True,
        transient=True,
        speed_estimate_period=3600,
        redirect_stderr=sys.stderr.isatty(),
    )
