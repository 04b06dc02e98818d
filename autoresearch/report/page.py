"""report.html: the night as one self-contained page that opens offline.

Facts and texts go into it as JSON, page.html draws them. Prompts and responses are a model's words:
they become text, never markup. Which prompt is best history.py and confirmation.py decide.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.files.record import Experiment, Trial
from autoresearch.report.terminal import grounds, interval, margin, search_rows, shortest
from autoresearch.search.confirmation import Confirmation, outcome
from autoresearch.search.history import History, Standing
from autoresearch.search.intervals import Interval
from autoresearch.text import count, money, visible

if TYPE_CHECKING:
    from jinja2 import Template

PAGE_TEXT = 11_000_000  # bytes of prompts and responses in report.html, of 20 MB in all
PAGE_TRIALS = 60_000  # responses in report.html
LONGEST = 12  # bytes of one character in them: what is no character at all, twice escaped
WINDOW = 25  # experiments in a rolling mean
POINTS = 120  # points of a sparkline
ALIKE = 0.3  # difflib ratio below which two prompts share words by chance only
DIFF_WORDS = 2_000  # longer prompts are shown without a difference: its cost is quadratic
WORD = re.compile(r"[\u2e80-\u9fff]|[^\s\u2e80-\u9fff]+\s*|\s+")  # Chinese has no spaces


@cache
def template() -> Template:
    """page.html, compiled once: that takes longer than filling it for a short night."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = FileSystemLoader(Path(__file__).parent)
    pages = Environment(
        autoescape=True,
        loader=folder,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"visible": visible, "count": count, "interval": interval, "money": money}
    pages.globals |= {"grounds": grounds}
    return pages.get_template("page.html")


def write_page(
    path: Path, history: History, *, program_text: str, target: int, running: bool, simulated: bool
) -> None:
    """Writes the self-contained report.html at once or not at all; raises OSError.

    It goes out part by part, so that neither plotly.js nor the responses stand in memory whole.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    parts = template().generate(
        nonce=os.urandom(16).hex(),  # a script without it does not run
        program=program_text,
        target=target,
        running=running,
        simulated=simulated,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z"),
        history=history,
        **page_facts(history),
    )
    try:
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(parts)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def page_facts(history: History) -> dict[str, Any]:
    """What the template shows; `data` and `plotly` are iterators, read as the page is written."""
    top, found = history.top(10), outcome(history, history.completed)
    labels = list(
        dict.fromkeys(c for e in history.experiments for t in e.trials for c in t.criteria)
    )
    compared = [top_row(history, top, at) for at in range(len(top))]
    return {
        "rows": [*search_rows(history)],
        "criteria": [criterion_row(history, label) for label in labels],
        "top": compared,
        "first_view": first_view(compared),
        "models": sorted({(r, m) for e in history.experiments for r, m in e.models.items()}),
        "found": found,
        "shortest": shortest(found) if found else None,
        "strategies": history.strategies(),
        "gain": history.history_gain(),
        "data": page_data(history, found, labels),
        "plotly": plotly_js(),
    }


def top_row(history: History, top: list[Standing], at: int) -> dict[str, Any]:
    this, baseline = top[at], history.baseline
    return {
        "standing": this,
        "low": max(0.0, this.estimate - margin(this)),
        "high": min(10.0, this.estimate + margin(this)),
        "baseline": differences(baseline.prompt, this.prompt) if baseline else [],
        "before": differences(top[at - 1].prompt, this.prompt) if at else [],
    }


def first_view(compared: list[dict[str, Any]]) -> str:
    """Which difference says more: to the baseline, where the ten best have something of it."""
    kept = any(op == "same" for row in compared for op, _ in row["baseline"])
    return "baseline" if kept else "before"


def differences(old: str, new: str) -> list[tuple[str, str]]:
    """("same" | "del" | "ins", text) word by word; [] when there is nothing to compare."""
    import difflib

    a, b = WORD.findall(old), WORD.findall(new)
    if not a or max(len(a), len(b)) > DIFF_WORDS:
        return []
    found: list[tuple[str, str]] = []
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    if matcher.ratio() < ALIKE:
        return [("del", old.rstrip() + "\n"), ("ins", new)]
    for op, i, j, k, m in matcher.get_opcodes():
        if op == "equal":
            found.append(("same", "".join(b[k:m])))
            continue
        found += [("del", "".join(a[i:j]))] * (j > i) + [("ins", "".join(b[k:m]))] * (m > k)
    return found


def criterion_row(history: History, label: str) -> dict[str, Any]:
    """How well one criterion is met, 0..1: as it went and for baseline and leader."""
    tried = [e for e in history.experiments if e.kind in ("baseline", "proposal")]
    met = [m for m in (mean_met([e], label) for e in tried) if m is not None]
    rolling = [
        sum(w) / len(w) for w in (met[max(0, i - WINDOW + 1) : i + 1] for i in range(len(met)))
    ]
    step = max(1, -(-len(rolling) // POINTS))
    shown = rolling[::-step][::-1]  # the latest always among them
    across = 100 / max(1, len(shown) - 1)
    points = " ".join(f"{i * across:.1f},{24 - 22 * y:.1f}" for i, y in enumerate(shown))
    best = history.leader and history.leader.prompt
    return {
        "label": label,
        "points": points,
        "baseline": mean_met([e for e in tried if e.kind == "baseline"], label),
        "lately": rolling[-1] if rolling else None,
        "best": mean_met([e for e in tried if e.prompt == best], label),
    }


def mean_met(experiments: list[Experiment], label: str) -> float | None:
    met = [t.criteria[label] for e in experiments for t in e.trials if label in t.criteria]
    return sum(met) / len(met) if met else None


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
MARKUP = re.compile("[<>&\u2028\u2029]")


def script_json(value: Any) -> str:
    """JSON that may stand inside a <script>: no tag or comment can begin or end in it."""
    return MARKUP.sub(lambda found: f"\\u{ord(found[0]):04x}", _encode(value))


def size(text: str) -> int:
    return len(script_json(text).encode("utf-8", "backslashreplace"))


def fair_cap(sizes: list[int], budget: int) -> int:
    """The largest size to which texts of `sizes` can be cut so that together they fit `budget`."""
    left = budget
    for at, length in enumerate(sorted(sizes)):
        share = left // (len(sizes) - at)
        if length > share:
            return share
        left -= length
    return max(sizes, default=0)


def cut(text: str, cap: int) -> str:
    """`text` in at most about `cap` bytes of JSON, saying how much is missing."""
    if LONGEST * len(text) <= cap or (whole := size(text)) <= cap:
        return text
    kept = len(text) * cap // whole
    return f"{text[:kept]} [... {len(text) - kept:,} more characters in the results file]"


def page_data(history: History, found: Confirmation | None, labels: list[str]) -> Iterator[str]:
    """The records as JSON, one experiment a part."""
    from markupsafe import Markup

    each = max(1, PAGE_TRIALS // max(1, len(history.experiments)))
    texts = [t for e in history.experiments for t in experiment_texts(e, each)]
    cap = PAGE_TEXT
    if LONGEST * sum(map(len, texts)) > PAGE_TEXT:  # else all fits, and nothing need be measured
        cap = fair_cap([size(text) for text in texts], PAGE_TEXT)
    del texts
    baseline, leader = history.baseline, history.leader
    inputs = {t.input: 0 for e in history.experiments for t in e.trials}
    places = {text: at for at, text in enumerate(inputs)}
    head = {
        "labels": labels,
        "inputs": [cut(text, cap) for text in inputs],
        "best_line": history.best_line,
        "baseline": baseline and baseline.estimate,
        "best": found.best if found else leader and leader.prompt,
        "shortest": found and shortest(found),
        "confirmed": found
        and [chart_interval(found.winner_score), chart_interval(found.baseline_score)],
    }
    yield Markup(script_json(head)[:-1] + ',"experiments":[')
    for at, e in enumerate(history.experiments):
        row = experiment_row(e, labels, places, each, cap)
        yield Markup("," * (at > 0) + "\n" + script_json(row))
    yield Markup("]}")


def chart_interval(of: Interval) -> list[float]:
    return [of.mean, of.low, of.high, of.samples]


def experiment_texts(e: Experiment, each: int) -> Iterator[str]:
    """The texts of `experiment_row` that may have to be cut."""
    yield from (e.thought, e.prompt, e.error or "")
    if not e.trials:
        yield e.response
    for trial in e.trials[:each]:
        yield from (trial.response, trial.reason)


def experiment_row(
    e: Experiment, labels: list[str], places: dict[str, int], each: int, cap: int
) -> dict[str, Any]:
    """One record for the page's script; `trials` are arrays, see `trial_row`."""
    return {
        "n": e.iteration,
        "kind": e.kind,
        "strategy": e.strategy,
        "thought": cut(e.thought, cap),
        "prompt": cut(e.prompt, cap),
        "response": "" if e.trials else cut(e.response, cap),
        "score": e.score,
        "error": e.error and cut(e.error, cap),
        "passes": len(e.passes()) if e.score is not None else 0,
        "tokens": e.tokens,
        "cost": e.cost,
        "seconds": None if e.seconds is None else round(e.seconds, 3),
        "time": e.timestamp,
        "trials": [trial_row(t, labels, places, cap) for t in e.trials[:each]],
        "more": max(0, len(e.trials) - each),
    }


def trial_row(t: Trial, labels: list[str], places: dict[str, int], cap: int) -> list[Any]:
    """Input's place, response, score, marks in the order of the labels, reason, finish."""
    marks = [None if label not in t.criteria else round(t.criteria[label], 2) for label in labels]
    return [
        places[t.input],
        cut(t.response, cap),
        round(t.score, 2),
        marks,
        cut(t.reason, cap),
        t.finish,
    ]


def plotly_js() -> Iterator[str]:
    """plotly.js from the installed package, in parts; the package itself is not imported."""
    from markupsafe import Markup

    package = importlib.util.find_spec("plotly")
    if package is None or package.origin is None:
        raise FileNotFoundError("plotly is not installed: pip install -r requirements.txt")
    source = Path(package.origin).parent / "package_data" / "plotly.min.js"
    with source.open(encoding="utf-8") as file:
        while part := file.read(1 << 16):
            yield Markup(part)
