"""What a person reads: a block per experiment, the report every 25, the last one, and report.html.

On a terminal rich draws colour and a progress bar; anywhere else the same words are plain lines
that grep reads. Prompts and responses are a model's words: nothing in them reaches a terminal as a
command or a page as markup. Which prompt is best, and how sure that is, history.py decides.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import textwrap
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from autoresearch.files.record import Experiment
from autoresearch.search.ablation import Ablation
from autoresearch.search.confirmation import Confirmation, outcome
from autoresearch.search.history import History, Standing
from autoresearch.search.intervals import Interval
from autoresearch.search.race import saturated
from autoresearch.text import count, duration, money, visible

if TYPE_CHECKING:  # rich would cost a piped run 50 ms and 7 MB
    from rich.console import Console
    from rich.progress import Progress

WIDTH = 100  # columns of the plain form
LINE = 120  # columns beyond which a wide terminal makes prose no easier to read
INDENT = 13  # columns of the labels
EXCERPT = 3  # lines shown of a prompt or a response, unless --verbose
GREEN, BLUE = "color(29)", "color(31)"  # dark enough for white, light enough for black
Z95 = 1.96  # half a 95 % interval, in standard deviations


Row = tuple[str, str]  # label, text
Part = tuple[str, str]  # text, style on a terminal


# --- words and numbers ---


def excerpt(text: str, length: int) -> str:
    """`text` on one line of at most `length` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= length else line[: length - 3].rstrip() + "..."


def margin(standing: Standing) -> float:
    return Z95 * standing.deviation


def estimate(standing: Standing) -> str:
    passes = count(standing.samples, "pass", "passes")
    return f"{standing.estimate:.2f} ± {margin(standing):.2f} from {passes}"


def interval(of: Interval) -> str:
    return f"{of.low:.2f} to {of.high:.2f}"


def spent(experiments: Iterable[Experiment]) -> tuple[int, float | None]:
    """Tokens and US dollars; one unknown price makes the sum of dollars unknown."""
    billed = [e for e in experiments if e.tokens]
    known = [e.cost for e in billed if e.cost is not None]
    return sum(e.tokens or 0 for e in billed), sum(known) if len(known) == len(billed) else None


def shortest(found: Confirmation) -> str | None:
    """The shorter prompt that does as well as the best; None when the best is the shortest."""
    return found.shortest.prompt if found.shortest else None


def grounds(found: Confirmation) -> str:
    """What the confirmed scores rest on, and so what their intervals hold for."""
    if found.inputs == 1 and not found.held_out:
        return "fresh: no choice was made on them"
    inputs = f"the {count(found.inputs, 'input')} of the search"
    if found.held_out:
        inputs = count(found.inputs, "held-out input")
    whom = "others of their kind" if found.generalises else "just these inputs"
    return f"fresh, on {inputs}: no choice was made on them; the intervals hold for {whom}"


# --- what the reports say, as rows ---


def headline(found: Confirmation) -> str:
    scores = f"{found.winner_score.mean:.2f}, the baseline {found.baseline_score.mean:.2f}"
    if found.improved:
        by = f"{found.difference.mean:.2f} better (95 % interval {interval(found.difference)})"
        return f"The best prompt scores {scores}: {by}."
    by = f"{found.difference.mean:+.2f} (95 % interval {interval(found.difference)})"
    if found.best != found.winner:
        return f"The baseline is the best prompt: what the search found scores {scores}; {by}."
    return f"No improvement over the baseline was shown: the best prompt scores {scores}; {by}."


def confirmed_rows(found: Confirmation) -> Iterator[Row]:
    for label, score in ("winner", found.winner_score), ("baseline", found.baseline_score):
        yield label, f"{score.mean:.2f} (95 % interval {interval(score)}), {score.samples} samples"
    yield "samples", grounds(found)
    believed = "what the search took the winner for, before these samples"
    yield "believed", f"{found.believed:.2f}: {believed}"
    yield "prompt", found.best or "(empty)"
    if (short := shortest(found)) is not None:
        length = f"{len(short):,} characters instead of {len(found.best):,}"
        yield "shortest", f"{length}, not measurably worse"
        yield "", short or "(empty)"


def best_rows(history: History) -> Iterator[Row]:
    leader, baseline = history.leader, history.baseline
    if leader is None:
        return
    yield "best", f"{estimate(leader)}, first tried in iteration {leader.iteration}"
    if baseline is not None:
        yield "baseline", estimate(baseline)
        yield "gain", f"{leader.estimate - baseline.estimate:+.2f} over the baseline"
    yield "prompt", leader.prompt or "(empty)"


def search_rows(history: History) -> Iterator[Row]:
    if history.noise is not None:
        tie = f"differences below {history.tie:.2f} are ties"
        yield "noise", f"{history.noise:.2f} points from pass to pass; {tie}"
    if saturated(history):
        passed = ", ".join(history.passed_by_all())
        easy = f"; everything passes {passed}" * bool(passed)
        yield "saturated", f"the best cannot be told from 10{easy}: harder criteria would find more"
    failed = [f"{cause} ({n})" for cause, n in history.failures.most_common()]
    yield "failed", f"{sum(history.failures.values())}" + (f": {'; '.join(failed)}" * bool(failed))
    share = history.repeats / max(1, history.completed)
    yield "repeats", f"{history.repeats} of {history.completed} ({100 * share:.0f} %)"
    tokens, cost = spent(history.experiments)
    if tokens:
        price = "" if cost is None else f", {money(cost)}"
        yield "spent", count(tokens, "token") + price


def strategy_rows(history: History) -> Iterator[Row]:
    label = "strategies"
    for line in history.strategies():
        tried = count(line.experiments, "experiment")
        leads = f"led {count(line.leads, 'time')}"
        yield label, f"{line.name:<10} {tried:>17}   mean {line.mean:5.2f}   {leads}"
        label = ""
    if gain := history.history_gain():
        seen = f"{gain.mean:+.2f} (95 % interval {interval(gain)})"
        yield "history", f"{seen} for proposals that saw it, against fresh ones"


def summary(
    history: History, target: int, *, simulated: bool, seconds: float | None = None
) -> list[Row]:
    """The run as `key: value`, for grep: unknown values have no line, prompts are JSON strings.

    `seconds` is the wall time per experiment.
    """
    tokens, cost = spent(history.experiments)
    values: dict[str, Any] = {
        "simulated": "yes" if simulated else "no",
        "completed": history.completed,
        "target": target,
        "failed": sum(history.failures.values()),
        "repeats": history.repeats,
        "tokens": tokens or None,
        "cost_usd": f"{cost:.6f}" if tokens and cost is not None else None,
        "seconds_per_experiment": seconds,
        "noise": history.noise,
    }
    if found := outcome(history, history.completed):
        values |= confirmed_values(found)
    else:
        values |= leading_values(history)
    shown = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()}
    return [(key, visible(str(value))) for key, value in shown.items() if value is not None]


def leading_values(history: History) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, standing in ("baseline", history.baseline), ("best", history.leader):
        if standing is not None:
            values |= {f"{name}_score": standing.estimate, f"{name}_margin": margin(standing)}
            values |= {f"{name}_passes": standing.samples}
    if history.leader is not None:
        values |= {"best_iteration": history.leader.iteration}
        values |= {"best_prompt": json.dumps(history.leader.prompt, ensure_ascii=False)}
    return values


def confirmed_values(found: Confirmation) -> dict[str, Any]:
    best = found.winner_score if found.best == found.winner else found.baseline_score
    values: dict[str, Any] = {"improved": "yes" if found.improved else "no"}
    values["best_score"] = best.mean
    scores = {
        "confirmed": found.winner_score,
        "confirmed_baseline": found.baseline_score,
        "difference": found.difference,
    }
    for name, score in scores.items():
        values |= {name: score.mean, f"{name}_low": score.low, f"{name}_high": score.high}
    values |= {"confirmed_samples": found.winner_score.samples, "believed": found.believed}
    for name, prompt in ("best_prompt", found.best), ("shortest_prompt", shortest(found)):
        values[name] = json.dumps(prompt, ensure_ascii=False)
    return values


# --- the terminal ---


def on_a_terminal() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


class Display:
    """What a run prints. A context manager: inside, a terminal has a progress bar at the bottom.

    Every method may be called from any thread.
    """

    def __init__(self, options: argparse.Namespace, *, simulated: bool = False) -> None:
        self.target, self.results = options.iterations, options.results
        self.verbose, self.quiet, self.simulated = options.verbose, options.quiet, simulated
        self.console: Console | None = None
        self.bar: Progress | None = None
        self.started, self.ended = time.monotonic(), 0  # proposals of this run, not of the file
        self.billed, self.tokens = 0, 0  # experiments summed up so far, and their sums
        self.cost: float | None = 0.0
        self.lock = threading.RLock()
        if isinstance(sys.stdout, io.TextIOWrapper):  # a log that can be followed, in any encoding
            sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
        if on_a_terminal():
            from rich.console import Console

            self.console = Console(highlight=False, markup=False, emoji=False)

    def __enter__(self) -> Display:
        self.started = time.monotonic()
        if self.console is not None and not self.quiet:
            self.bar = self._new_bar(self.console)
            self.bar.start()
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

    def iteration(self, experiment: Experiment, history: History, took_lead: bool) -> None:
        """The block of an experiment that has just ended, of any kind."""
        with self.lock:
            if experiment.kind == "proposal":
                if not self.ended and experiment.seconds is not None:  # what came before is no pace
                    self.started = max(self.started, time.monotonic() - experiment.seconds)
                self.ended += 1
            if not self.quiet:
                proposed = experiment.kind == "proposal" and took_lead and history.leader
                self._block(experiment, proposed.estimate if proposed else None)
            self._advance(experiment, history)

    def report(self, history: History, *, final: bool = False) -> None:
        """The report so far or, when `final`, the last one; piped, that ends in `summary`."""
        with self.lock:
            done = f"{history.completed:,} of {count(self.target, 'experiment')}"
            self._title(f"report, {done}" if final else f"after {done}")
            found = outcome(history, history.completed) if final else None
            if found is not None:
                self._line((headline(found), "bold"))
                self._line()
            for row in confirmed_rows(found) if found else best_rows(history):
                self._field(*row)
            if final and found is None and history.leader is not None:
                self._field("caution", "not confirmed: a best found by search flatters itself")
            for row in [*search_rows(history), *self._pace_rows(history)]:
                self._field(*row)
            if final:
                self._last(history)
            self._line()

    def ablation(self, result: Ablation | None) -> None:
        """What each sentence is worth, and the prompt without those worth nothing measurable."""
        if result is None:
            return
        with self.lock:
            self._title("what each sentence is worth, with its 95 % interval")
            for sentence, worth, _ in result.sentences:
                self._field(f"{worth.mean:+.2f}", f"{interval(worth):<17}{sentence}")
            if result.loss is None:
                self._field("shortened", "nothing: no sentence can go without a measurable loss")
            else:
                lost = f"{result.loss.mean:+.2f} (95 % interval {interval(result.loss)})"
                self._field("shortened", f"loses {lost}, nothing measurable")
                self._field("", result.shortened)
            self._line()

    def _last(self, history: History) -> None:
        for row in strategy_rows(history):
            self._field(*row)
        if self.console is None:
            self._line(("---", ""))
            seconds = self._pace(history)
            for key, value in summary(
                history, self.target, simulated=self.simulated, seconds=seconds
            ):
                self._line((f"{key}: {value}", ""))

    def _pace(self, history: History) -> float | None:
        """Wall seconds per experiment of this run, else the mean that the records tell."""
        if self.ended:
            return (time.monotonic() - self.started) / self.ended
        told = [e.seconds for e in history.experiments if e.kind == "proposal" and e.seconds]
        return sum(told) / len(told) if told else None

    def _left(self, history: History) -> float | None:
        pace, left = self._pace(history), self.target - history.completed
        return pace * left if self.ended and pace is not None and left > 0 else None

    def _pace_rows(self, history: History) -> Iterator[Row]:
        pace, left = self._pace(history), self._left(history)
        if pace is not None:
            ahead = "" if left is None else f", about {duration(left)} left"
            yield "pace", f"{duration(pace)} per experiment{ahead}"

    def _block(self, e: Experiment, took_lead: float | None) -> None:
        name = f"iteration {e.iteration}/{self.target}" if e.kind == "proposal" else e.kind
        outcome = (
            (f"score {e.score:.2f}", "bold") if e.error is None and e.score is not None else None
        )
        facts = [count(len(e.passes()), "pass", "passes")] if outcome else []
        facts += [] if e.tokens is None else [count(e.tokens, "token")]
        facts += [] if e.seconds is None else [duration(e.seconds)]
        parts = [
            (name, "bold"),
            (f"  {visible(e.strategy)}" * (e.strategy not in ("", e.kind)), BLUE),
            ("  ", ""),
            outcome or (f"failed: {excerpt(e.error or 'no score', 300)}", "red"),
        ]
        if took_lead is not None:
            parts.append((f"  takes the lead at {took_lead:.2f}", GREEN))
        told = f"({', '.join(facts)})" * bool(facts)
        length = sum(len(text) for text, _ in parts) + len(told)
        if told and self.console is not None and length > self.console.width:
            self._line(*parts)
            self._line((" " * INDENT + told, "dim"))
        else:
            self._line(*parts, (f"  {told}" * bool(told), "dim"))
        for label, text in ("thought", e.thought), ("prompt", e.prompt), ("response", e.response):
            if label == "prompt" or (text and (self.verbose or label != "thought")):
                self._field(label, text or "(empty)", whole=self.verbose)
        if self.console is not None or self.verbose:
            self._line()

    def _field(self, label: str, text: str, whole: bool = True) -> None:
        """A labelled text with a hanging indent, cut to an excerpt unless `whole`."""
        lines = self._wrap(visible(text) if whole else excerpt(text, EXCERPT * WIDTH * 2))
        if not whole and self.console is None:
            lines = [excerpt(text, EXCERPT * WIDTH)]  # grep sees lines: one per text
        if not whole and len(lines) > EXCERPT:
            lines = [*lines[: EXCERPT - 1], lines[EXCERPT - 1][:-3].rstrip() + "..."]
        for at, line in enumerate(lines):
            head = "" if at else label
            self._line((f"  {head:<{INDENT - 2}}" if line or head else "", "dim"), (line, ""))

    def _wrap(self, text: str) -> list[str]:
        if self.console is not None:  # rich knows how wide a character is
            from rich.text import Text

            wide = max(20, min(self.console.width, LINE) - INDENT)
            return [line.plain.rstrip() for line in Text(text).wrap(self.console, wide)]
        paragraphs = (textwrap.wrap(line, WIDTH - INDENT) or [""] for line in text.split("\n"))
        return [line for paragraph in paragraphs for line in paragraph]

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

    def _new_bar(self, console: Console) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        bar = Progress(
            SpinnerColumn("line"),
            BarColumn(None),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            expand=True,
            transient=True,
            refresh_per_second=4,
            redirect_stderr=sys.stderr.isatty(),
        )
        bar.add_task("starting", total=self.target)
        return bar

    def _advance(self, experiment: Experiment, history: History) -> None:
        if self.bar is None:
            return
        leader, left = history.leader, self._left(history)
        tokens, cost = spent(islice(history.experiments, self.billed, None))
        self.billed, self.tokens = len(history.experiments), self.tokens + tokens
        self.cost = None if cost is None or self.cost is None else self.cost + cost
        status = [] if leader is None else [f"best {leader.estimate:.2f} ± {margin(leader):.2f}"]
        if self.tokens:
            status.append(count(self.tokens, "token") if self.cost is None else money(self.cost))
        if experiment.kind in ("confirmation", "ablation"):
            status.append(experiment.kind)
        elif left is not None:
            status.append(f"{duration(left)} left")
        done = min(history.completed, self.target)
        self.bar.update(self.bar.task_ids[0], completed=done, description="  ".join(["", *status]))
