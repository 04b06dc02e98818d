"""What a run prints: a block per experiment, a report every 25 and the verdict on one screen.

On a terminal rich draws colour and a progress bar; anywhere else the same words are plain lines
that grep reads. Nothing that a model wrote reaches the terminal as a command.
"""

import argparse
import io
import os
import sys
import textwrap
import threading
from collections.abc import Iterable, Sequence

from autoresearch.files.program import Program
from autoresearch.files.record import Experiment
from autoresearch.report import findings
from autoresearch.report.findings import Row, interval
from autoresearch.search.ablation import Ablation
from autoresearch.search.confirmation import MARGIN, outcome
from autoresearch.search.history import History, Standing
from autoresearch.text import count, duration, one_line, short, visible

WIDTH = 100  # columns of the plain form; of a terminal at most, wider prose is no easier to read
INDENT = 13  # columns of the labels
BELOW = 4  # lines that a shell and a closing notice take under the verdict
GREEN, BLUE = "color(29)", "color(31)"  # dark enough for white, light enough for black

Line = list[tuple[str, str]]  # text, style on a terminal


class Display:
    """A context manager: inside, a terminal has a progress bar at the bottom. `program` is None
    where program.md asks something else than the records that are shown."""

    def __init__(
        self, options: argparse.Namespace, program: Program | None = None, simulated: bool = False
    ) -> None:
        self.options, self.program, self.simulated = options, program, simulated
        self.target: int = options.iterations
        self.lock = threading.Lock()
        if isinstance(sys.stdout, io.TextIOWrapper):  # a log that can be followed, in any encoding
            sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
        self.console, self.bar = None, None
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        if sys.stdout.isatty() and not plain:
            from rich import console, progress  # a piped run is spared 50 ms and 7 MB

            self.console = console.Console(highlight=False, markup=False, emoji=False)
            self.bar = progress.Progress(
                *(progress.SpinnerColumn("line"), progress.BarColumn(None), "{task.description}"),
                *(progress.TimeElapsedColumn(), progress.TimeRemainingColumn()),
                console=self.console,
                disable=options.quiet,
                expand=True,
                transient=True,
                speed_estimate_period=3600,
                redirect_stderr=sys.stderr.isatty(),
            )
            self.bar.add_task("  waits for the first answer", total=self.target + 1)  # confirmed

    def __enter__(self) -> "Display":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def tell(self, notices: list[str]) -> None:
        """Print each notice once, none when quiet: the list is empty then."""
        if not self.options.quiet:
            self._print([[(visible(notice), "")] for notice in notices])
        notices.clear()

    def start(self, program: str, model: str, done: int) -> None:
        if self.bar is not None:  # what an earlier start did is no pace of this one
            self.bar.reset(self.bar.task_ids[0], completed=done)
        begins = f"going on after experiment {done}" if done else "begins"
        begins = f"{begins}, {self.target} in all"
        begins = "measures each sentence of the best prompt" if self.options.ablate else begins
        self.tell([f"{program}, {model}, {self.options.results}: {begins}"])

    def wait(self, line: str) -> None:
        """A wait for a retry, on stderr, from any thread; rich puts it above the bar."""
        with self.lock:
            print(one_line(line), file=sys.stderr, flush=True)

    def iteration(self, experiment: Experiment, history: History, took_lead: bool) -> None:
        """The block of an experiment that has just ended, of any kind."""
        leader, kind = history.leader, experiment.kind
        if not self.options.quiet:
            leads = leader if took_lead and kind == "proposal" else None
            self._print(self._block(experiment, leads))
        if self.bar is not None:
            done = min(history.completed, self.target)
            phase = f" {kind}" * (kind not in ("proposal", "baseline"))
            best = f"  best {leader.estimate:.2f}" if leader else ""
            told = f"{done}/{self.target}{phase}{best}  waits for answers"
            self.bar.update(self.bar.task_ids[0], completed=done, description=told)

    def done(self, history: History) -> str:
        """How many experiments there are and, in a run, of how many: the records do not tell."""
        of = f"{history.completed:,} of " * (self.options.report is None)
        return of + count(self.target if of else history.completed, "experiment")

    def report(self, history: History, *, final: bool = False, files: Sequence[str] = ()) -> None:
        """The report so far or, `final`, with verdict, `files` and, piped, the figures for grep."""
        rows = [("task", findings.goal_line(self.program, history))]
        if (leader := history.leader) is not None and not final:
            rows += [("so far", findings.headline(history, None)), ("prompt", leader.prompt)]
        rows += findings.search_rows(history)
        lines = self._section(f"{'report,' if final else 'after'} {self.done(history)}", rows)
        lines += self._verdict(history, files) if final else []
        if final and self.console is None:
            figures = findings.summary(history, self.simulated)
            lines += [[("---", "")], *([(f"{key}: {value}", "")] for key, value in figures)]
        self._print([*lines, []])

    def ablation(self, result: Ablation) -> None:
        """What each sentence is worth, and the prompt without those that it can spare."""
        rows = [
            (f"{of.mean:+.2f}", f"{f'{of.low:.2f} to {of.high:.2f}':<17}{verdict:<16}{sentence}")
            for sentence, of, verdict in result.sentences
        ]
        lost = f"nothing: no shorter prompt was shown to lose less than {MARGIN}"
        if result.loss is not None:
            lost = f"{result.loss.mean:+.2f} ({interval(result.loss)}) by\n{result.shortened}"
        title = "what each sentence is worth, with its 95 % interval"
        self._print([*self._section(title, [*rows, ("shortened", lost)]), []])

    def _verdict(self, history: History, files: Sequence[str]) -> list[Line]:
        """On a terminal the prompt is cut so that all of it stands on the last screen."""
        found = outcome(history, history.completed)
        failing = findings.what_fails(history, found, self.program)
        worst = [*findings.worst_rows(*failing)]
        above = self._section("what fails, the worst first", worst) if worst else []
        verdict: list[Line] = [
            *self._section("verdict"),
            *([(line, "bold")] for line in self._wrapped(findings.headline(history, found))),
            *self._fields(("rests on", findings.grounds(history, found, self.program))),
        ]
        below = self._fields(
            ("shorter", (told := findings.shorter(found)) and f"{told}: see the page"),
            ("fails", findings.fails_line(*failing)),
            ("next", findings.next_step(history, found, self.options.command)),
            ("files", ", ".join(files)),
        )
        best = found.best if found else history.leader and history.leader.prompt
        prompt = self._fields(("prompt", "" if best is None else best or "(empty)"))
        if self.console is not None:
            room = max(2, self.console.height - BELOW - len(verdict) - len(below))
            if len(prompt) > room:
                prompt = [*prompt[: room - 1], [(" " * INDENT + "...", "dim")]]
        return [*above, *verdict, *prompt, *below]

    def _block(self, e: Experiment, leads: Standing | None) -> list[Line]:
        """Three lines, or the texts whole for a new leader and when verbose."""
        facts = [] if e.score is None else [count(len(e.passes()), "pass", "passes")]
        facts += [] if e.tokens is None else [count(e.tokens, "token")]
        facts += [] if e.seconds is None else [duration(e.seconds)]
        failed = (f"failed: {short(e.error or 'no score', WIDTH)}", "red")
        line = [
            (f"iteration {e.iteration}/{self.target}" if e.kind == "proposal" else e.kind, "bold"),
            (f"  {visible(e.strategy)}" * (e.strategy not in ("", e.kind)) + "  ", BLUE),
            failed if e.score is None else (f"score {e.score:.2f}", "bold"),
            (f"  takes the lead at {leads.estimate:.2f}" if leads else "", GREEN),
        ]
        told = f"  ({', '.join(facts)})"
        if facts and len(self._wrapped("".join(text for text, _ in line) + told)) == 1:
            line.append((told, "dim"))
        thought = "thought", e.thought * self.options.verbose
        rows = thought, ("prompt", e.prompt or "(empty)"), ("response", e.response)
        return [line, *self._fields(*rows, whole=self.options.verbose or leads is not None)]

    def _section(self, title: str, rows: Iterable[Row] = ()) -> list[Line]:
        told = f"== {title}{', simulated' * self.simulated} =="
        return [[], [(told, "bold")], *self._fields(*rows)]

    def _fields(self, *rows: Row, whole: bool = True) -> list[Line]:
        """Labelled texts with a hanging indent, each cut to one line unless `whole`."""
        shown: list[Line] = []
        for label, text in rows:
            lines = self._wrapped(visible(text) if whole else short(text, 2 * WIDTH), INDENT)
            if not whole and len(lines) > 1:
                lines = [f"{lines[0][:-4].rstrip()} ..."]
            for at, line in enumerate(lines if text else []):
                head = f"  {'' if at else label:<{INDENT - 2}}" if line or not at else ""
                shown.append([(head, "dim"), (line, "")])
        return shown

    def _wrapped(self, text: str, indent: int = 0) -> list[str]:
        if self.console is not None:  # it knows how wide a character is
            width = max(20, min(WIDTH, self.console.width) - indent)
            lines = self.console.render_str(text).wrap(self.console, width)
            return [line.plain.rstrip() for line in lines]
        wrap = textwrap.TextWrapper(WIDTH - indent, break_on_hyphens=False).wrap
        return [part for line in text.split("\n") for part in wrap(line) or [""]]

    def _print(self, lines: list[Line]) -> None:
        with self.lock:
            for line in lines:
                if self.console is None:
                    print("".join(text for text, _ in line))
                else:
                    styled = (self.console.render_str(text, style=style) for text, style in line)
                    self.console.print(*styled, sep="")
