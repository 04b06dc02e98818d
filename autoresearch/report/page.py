"""report.html: the night as one self-contained page that opens offline; page.html draws it.

Prompts and responses are a model's words: they are escaped text, never markup.
"""

import os
import re
from collections.abc import Iterator
from datetime import datetime
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.files.record import Experiment
from autoresearch.report import findings
from autoresearch.report.terminal import Display
from autoresearch.search.confirmation import Confirmation, outcome
from autoresearch.search.history import History
from autoresearch.search.intervals import Interval
from autoresearch.text import count, duration, money, short, visible

if TYPE_CHECKING:
    from jinja2 import Template

PAGE_TEXT = 60_000_000  # characters of prompts and responses, the most in report.html
ALIKE = 0.3  # difflib ratio below which two prompts share words by chance only
DIFF_WORDS = 2_000  # longer prompts are shown without a difference: its cost is quadratic
WORD = re.compile(r"[\u2e80-\u9fff]|[^\s\u2e80-\u9fff]+\s*|\s+")  # Chinese has no spaces
COLOURS = ("refine", "wander", "combine", "simplify", "explore", "fresh", "format", "examples")


@cache
def template() -> "Template":
    """page.html, compiled once: that takes half as long as filling it for a short night."""
    from jinja2 import Environment, StrictUndefined  # 40 ms that no start has to wait

    pages = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.undefined = StrictUndefined
    words = [visible, count, short, duration, money, findings.interval, named, colour, cut]
    pages.filters |= {word.__name__: word for word in words} | {"num": "{:.2f}".format}
    return pages.from_string(Path(__file__).with_name("page.html").read_text("utf-8"))


def page(history: History, shown: Display, running: bool) -> Iterator[str]:
    """The self-contained report.html, part by part, so that it never stands in memory whole."""
    found = outcome(history, history.completed)
    models = {(f"{role} model", m) for e in history.experiments for role, m in e.models.items()}
    parts = template().stream(
        findings=findings,
        nonce=os.urandom(16).hex(),  # a script without it does not run
        history=history,
        shown=shown,
        running=running,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        headline=re.split(r"(\d+\.\d\d(?![^(]*\)))", findings.headline(history, found)),
        found=found,
        best=found.best if found else history.leader and history.leader.prompt,
        rows=[*findings.search_rows(history), *sorted(models)],
        top=ten_best(history, found),
        chart=chart(history, found),
        most=PAGE_TEXT // max(1, sum(3 + 2 * len(e.trials) for e in history.experiments)),
    )
    parts.enable_buffering(1000)  # a record has fifty
    return parts


def named(e: Experiment) -> str:
    return (e.strategy or e.kind) if e.kind == "proposal" else e.kind


def colour(name: str) -> str:
    """A strategy's name is a text from a file, which may be anything."""
    return f"var(--{name if name in COLOURS else 'other'})"


def cut(text: str, most: int) -> str:
    missing = len(text) - most
    more = f" [... {missing:,} more characters in the results file]" if missing > 0 else ""
    return visible(text[:most]) + more


def ten_best(history: History, found: Confirmation | None) -> list[tuple[Any, ...]]:
    """Standing, confirmed score and difference to the baseline of each; what was confirmed stands
    first, so that no lucky estimate is above it."""
    measured, old = dict[str, Interval](), history.baseline.prompt if history.baseline else ""
    if found is not None:
        measured = {found.baseline: found.baseline_score, found.winner: found.winner_score}
        if found.shortest is not None:
            measured[found.shortest.prompt] = found.shortest.score
    best = found and found.best
    top = sorted(history.top(10), key=lambda s: (s.prompt != best, s.prompt not in measured))
    return [(s, measured.get(s.prompt), differences(old, s.prompt)) for s in top]


def differences(old: str, new: str) -> list[tuple[str, str]]:
    """("span" | "del" | "ins", text) word by word; the new one alone where little is alike."""
    a, b = WORD.findall(old), WORD.findall(new)
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if max(len(a), len(b)) > DIFF_WORDS or matcher.ratio() < ALIKE:
        return [("span", new)] * bool(new)
    found: list[tuple[str, str]] = []
    for op, i, j, k, m in matcher.get_opcodes():
        parts = [("span", b[k:m])] if op == "equal" else [("del", a[i:j]), ("ins", b[k:m])]
        found += [(tag, "".join(words)) for tag, words in parts if words]
    return found


def chart(history: History, found: Confirmation | None) -> dict[str, Any]:
    """Where everything stands, in percent of the drawing from left and top."""
    kinds = "baseline", "proposal"
    ended = [(at, e) for at, e in enumerate(history.experiments, 1) if e.kind in kinds]
    search = [(at, named(e), e.score) for at, e in ended if e.score is not None]
    confirmed = [("best", found.winner_score), ("base", found.baseline_score)] if found else []
    scores = [score for *_, score in search] + [of.low for _, of in confirmed]
    low = min(9, int(max(0.0, min(scores, default=0.0))))
    last = max((at for at, *_ in search), default=1)

    def y(score: float) -> float:
        return 100 * (10 - max(low, min(10, score))) / (10 - low)

    steps = [(96 * at / last, y(score)) for at, score in history.best_line if at <= last]
    line = "".join(f"H{at:.2f}V{level:.2f}" for at, level in steps)
    return {
        "dots": [(at, name, 96 * at / last, y(score)) for at, name, score in search],
        "line": f"M{steps[0][0]:.2f},{steps[0][1]:.2f}{line}H96" if line else "",
        "baseline": f"M0,{y(history.baseline.estimate):.2f}H96" if history.baseline else "",
        "confirmed": [(name, y(of.mean), y(of.low), y(of.high)) for name, of in confirmed],
        "ticks": [(n, y(n)) for n in range(low, 11) if 10 - low <= 5 or n % 2 == 0],
        "last": last,
    }
