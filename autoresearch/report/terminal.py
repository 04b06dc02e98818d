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
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from autoresearch.files.program import Program
from autoresearch.files.record import Experiment
from autoresearch.report import findings
from autoresearch.report.findings import Row, interval
from autoresearch.search.ablation import Ablation
from autoresearch.search.confirmation import outcome
from autoresearch.search.history import History
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


def on_a_terminal() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


class Display:
    """What a run prints. A context manager: inside, a terminal has a progress bar at the bottom.

    Every method may be called from any thread. `program` is None where program.md asks something
    else than the records that are shown.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        program: Program | None = None,
        *,
        simulated: bool = False,
    ) -> None:
        self.target: int = options.iterations
        self.verbose, self.quiet = options.verbose, options.quiet
        self.results = options.results
        self.program, self.simulated = program, simulated
        self.console: Console | None = None
        self.bar: Progress | None = None
        self.status, self.awaited = "", "waits for the first answer"
        self.started, self.ended = time.monotonic(), 0  # proposals of this run, not of the file
        self.lock = threading.RLock()
        if isinstance(sys.stdout, io.TextIOWrapper):  # a log that can be followed, in any encoding
            sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
        if on_a_terminal():
            from rich.console import Console

            self.console = Console(highlight=False, markup=False, emoji=False)

    def __enter__(self) -> Display:
        self.started = time.monotonic()
        if self.console is not None and not self.quiet:
            self.bar = _new_bar(self.console)
            self.bar.add_task("", total=self.target + 1)  # the last step is the confirmation
            self.bar.start()
            self.waiting(self.awaited)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def say(self, line: str) -> None:
        """A notice; none when quiet."""
        if not self.quiet:
            self._line((visible(line), ""))

    def tell(self, notices: list[str]) -> None:
        """Say each notice once: the list is empty then."""
        while notices:
            self.say(notices.pop(0))

    def start(self, program: str, model: str, done: int) -> None:
        begins = f"going on after experiment {done}" if done else "begins"
        self.say(f"{program}, {model}, {self.results}: {begins}, {self.target} in all")

    def wait(self, line: str) -> None:
        """A wait for a retry: above the bar, or on stderr where that is not this terminal."""
        line = visible(line).replace("\n", " ")
        if self.console is not None and sys.stderr.isatty():
            self._line((line, "magenta"))
        else:
            with self.lock:
                print(line, file=sys.stderr, flush=True)

    def waiting(self, text: str) -> None:
        """What is waited for now, beside the moving bar; "" for nothing in particular."""
        self.awaited = short(text, 40)
        if self.bar is not None:
            told = "  ".join(filter(None, (self.status, self.awaited)))
            self.bar.update(self.bar.task_ids[0], description=told)

    def iteration(self, experiment: Experiment, history: History, took_lead: bool) -> None:
        """The block of an experiment that has just ended, of any kind."""
        with self.lock:
            proposed = experiment.kind == "proposal"
            if proposed:
                if not self.ended and experiment.seconds is not None:  # what came before is no pace
                    self.started = max(self.started, time.monotonic() - experiment.seconds)
                self.ended += 1
            if not self.quiet:
                leads = proposed and took_lead and history.leader
                self._block(experiment, leads.estimate if leads else None)
            self._advance(experiment, history)

    def report(self, history: History, *, final: bool = False, files: Sequence[str] = ()) -> None:
        """The report so far or, when `final`, the last one: it ends in the verdict, which names the
        `files` that were written, and, piped, in the figures for grep."""
        done = f"{history.completed:,} of {count(self.target, 'experiment')}"
        with self.lock:
            self._title(f"report, {done}" if final else f"after {done}")
            self._field("task", findings.goal_line(self.program, history))
            if not final:
                self._field("so far", findings.headline(history, None))
                self._field("prompt", history.leader.prompt if history.leader else "-")
            for row in [*findings.search_rows(history), *self._pace_rows(history)]:
                self._field(*row)
            if final:
                for row in findings.strategy_rows(history):
                    self._field(*row)
                self._verdict(history, files)
            if final and self.console is None:
                self._line(("---", ""))
                for key, value in findings.summary(history, simulated=self.simulated):
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
                self._field(f"{worth.mean:+.2f}", f"{known:<17}{verdict:<16}{sentence}")
            if result.loss is None:
                self._field("shortened", "nothing: no sentence can go without a measurable loss")
            else:
                self._field("shortened", f"loses {result.loss.mean:+.2f} ({interval(result.loss)})")
                self._field("", result.shortened)
            self._line()

    def _verdict(self, history: History, files: Sequence[str]) -> None:
        """On a terminal the prompt is cut so that all of it stands on the last screen."""
        found = outcome(history, history.completed)
        mine, theirs = findings.samples(history, found)
        answers = findings.answers(mine, theirs, self.program)
        losses = findings.losses(mine, theirs)
        self._fails(answers, losses)
        self._title("verdict")
        best = found.best if found else history.leader and history.leader.prompt
        above = self._wrapped(findings.headline(history, found), 0, "bold")
        above += self._lines("rests on", findings.grounds(history, found, self.program))
        below = []
        for label, text in (
            ("shorter", findings.shorter(found) if found else ""),
            ("fails", findings.fails_line(answers, losses)),
            ("next", findings.next_step(history, found)),
            ("files", ", ".join(files)),
        ):
            below += self._lines(label, text) if text else []
        prompt = self._lines("prompt", best or "(empty)") if best is not None else []
        if self.console is not None:
            room = max(2, self.console.height - BELOW - 2 - len(above) - len(below))
            if len(prompt) > room:
                prompt = [*prompt[: room - 1], [(" " * INDENT + "...", "dim")]]
        for parts in [*above, *prompt, *below]:
            self._line(*parts)

    def _fails(self, answers: list[findings.Answer], losses: list[findings.Loss]) -> None:
        """The worst inputs or, for a task alone, the criteria that lose points."""
        told = []
        for a in answers if len(answers) > 1 else []:
            missed = f"wanted “{short(a.expected, 40)}”" if a.expected is not None else a.missed
            got = f"answered “{short(a.typical, 60)}”, {short(missed, 80)}; baseline {a.baseline}"
            told.append((a.right, f"“{short(a.input, 80)}”: {got}", a.mean < 10 * findings.FULL))
        for c in losses if len(answers) == 1 else []:
            text = f"{short(c.label, 60)}; baseline {findings.percent(c.baseline)}; {c.shown}"
            told.append((findings.percent(c.best), text, c.best < findings.FULL))
        if worst := [row[:2] for row in told if row[2]][:WORST]:
            self._title("what fails, the worst first")
            for row in worst:
                self._field(*row)

    def _block(self, e: Experiment, took_lead: float | None) -> None:
        """Three lines, or the texts whole for a new leader and when verbose."""
        whole = self.verbose or took_lead is not None
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
        ]
        if took_lead is not None:
            parts.append((f"  takes the lead at {took_lead:.2f}", GREEN))
        told = f"  ({', '.join(facts)})"
        if sum(len(text) for text, _ in parts) + len(told) <= self._width():
            parts.append((told, "dim"))
        self._line(*parts)
        for label, text in ("thought", e.thought), ("prompt", e.prompt), ("response", e.response):
            if label == "prompt" or (text and (self.verbose or label == "response")):
                self._field(label, text or "(empty)", whole=whole)

    def _field(self, label: str, text: str, whole: bool = True) -> None:
        """A labelled text with a hanging indent, cut to one line unless `whole`."""
        for parts in self._lines(label, text, whole):
            self._line(*parts)

    def _lines(self, label: str, text: str, whole: bool = True) -> list[list[Part]]:
        text = visible(text) if whole else self._cut(text)
        wrapped = self._wrapped(text, INDENT, "")
        heads = [label] + [""] * len(wrapped)
        return [
            [(f"  {head:<{INDENT - 2}}" if head or line[0][0] else "", "dim"), *line]
            for head, line in zip(heads, wrapped, strict=False)
        ]

    def _cut(self, text: str) -> str:
        width = self._width() - INDENT
        line = short(text, width)
        if self.console is not None:  # rich knows how wide a character is
            from rich.text import Text

            cells = Text(line)
            cells.truncate(width, overflow="ellipsis")
            line = cells.plain
        return line

    def _wrapped(self, text: str, indent: int, style: str) -> list[list[Part]]:
        width = max(20, self._width() - indent)
        if self.console is None:
            lines = [t for line in text.split("\n") for t in textwrap.wrap(line, width) or [""]]
        else:
            from rich.text import Text

            lines = [line.plain.rstrip() for line in Text(text).wrap(self.console, width)]
        return [[(line, style)] for line in lines]

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

    def _pace_rows(self, history: History) -> Iterator[Row]:
        """Wall seconds per experiment of this run, and the time that the others will take."""
        if self.ended:
            pace = (time.monotonic() - self.started) / self.ended
            left = pace * (self.target - history.completed)
            yield (
                "pace",
                f"{duration(pace)} per experiment"
                + (f", about {duration(left)} left" if left > 0 else ""),
            )

    def _advance(self, experiment: Experiment, history: History) -> None:
        if self.bar is None:
            return
        task, leader = self.bar.task_ids[0], history.leader
        done = min(history.completed, self.target)
        kind = "" if experiment.kind in ("proposal", "baseline") else f" {experiment.kind}"
        self.status = f"{done}/{self.target}{kind}"
        self.status += f"  best {leader.estimate:.2f}" if leader else ""
        if self.ended <= 1:  # what an earlier start did is no pace of this one
            self.bar.reset(task, completed=done)
        self.bar.update(task, completed=done)
        self.waiting("")


def _new_bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        SpinnerColumn("line"),
        BarColumn(None),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        expand=True,
        transient=True,
        refresh_per_second=4,
        speed_estimate_period=3600,
        redirect_stderr=sys.stderr.isatty(),
    )
