"""What the page of a made-up night costs: `python -m tests.benchmarks.page [experiments [length]]`

`length` repeats the text of each response (1: 60 words).
Prints the page's size, the time and memory of writing it, and how long Chromium takes to open it.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoresearch.files.record import Experiment, Trial
from autoresearch.files.results import write_whole
from autoresearch.options import parse_arguments
from autoresearch.report.page import page
from autoresearch.report.terminal import Display
from autoresearch.search.confirmation import Step, next_steps
from autoresearch.search.history import History

FLAGS = (
    "headless=new no-sandbox disable-gpu disable-background-networking disable-component-update "
    "disable-sync no-first-run"
)
LABELS = ("words: 60-120", "mentions: similarity | distance, embedding", "matches: /for example/i")
STRATEGIES = ("refine", "combine", "simplify", "explore", "fresh")
ASKS = (
    "Explain in plain words, as to a curious colleague.",
    "Open with a one-sentence definition.",
    "Name embeddings, similarity search and approximate indexes.",
    "Give one everyday example, introduced by 'for example'.",
    "Stay between 70 and 110 words.",
    "Avoid filler and hype; every sentence must say something new.",
    "Close with when an ordinary database would do.",
    "Compare it with looking up a word in a dictionary.",
)
REPLY = (
    "A vector database stores embeddings: lists of numbers that place texts or images in a space "
    "where near means alike. A query becomes a vector too, and an index such as HNSW finds its "
    "nearest neighbours without comparing every pair. For example, a shop can answer 'warm jacket "
    "for rain' with a parka whose description shares none of those words. "
)


def made_up(number: int, chance: random.Random, total: int, words: int = 1) -> Experiment:
    asks = chance.sample(ASKS, k=min(8, 2 + 6 * number // total + chance.randint(0, 1)))
    truth = 4.6 + 0.5 * len(asks)
    trials = []
    for _ in range(chance.choice((1, 1, 1, 2, 4)) if number else 4):
        score = max(0.0, min(10.0, chance.gauss(truth, 0.7)))
        marks = {label: float(chance.random() < truth / 10) for label in LABELS}
        missed = "; ".join(f"missed {label}" for label, mark in marks.items() if mark < 1)
        trials.append(Trial("", REPLY * words + f"({chance.random():.6f})", score, marks, missed))
    strategy = STRATEGIES[number % 5]
    return Experiment(
        iteration=number,
        kind="proposal" if number else "baseline",
        strategy=strategy if number else "",
        thought=f"The replies lack an example, so {strategy} the best and ask for one."
        * (number > 0),
        prompt=" ".join(asks) if number else "You are a helpful assistant.",
        response=trials[0].response,
        score=sum(t.score for t in trials) / len(trials),
        trials=tuple(trials),
        tokens=600 + 310 * len(trials) + chance.randint(0, 99),
        cost=0.0001 * len(trials),
        seconds=round(chance.uniform(2, 6), 2),
        timestamp="2025-11-25T02:14:00Z",
        models={"agent": "example/large", "task": "example/small"},
    )


def sampled(step: Step, chance: random.Random, target: int) -> Experiment:
    truth = 4.6 + 0.5 * sum(ask in step.prompt for ask in ASKS)
    trials = tuple(
        Trial("", REPLY, max(0.0, min(10.0, chance.gauss(truth, 0.7))), {}, "")
        for _ in range(step.passes)
    )
    score = sum(t.score for t in trials) / len(trials)
    return Experiment(
        target,
        "confirmation",
        step.stage,
        prompt=step.prompt,
        score=score,
        trials=trials,
        tokens=310 * step.passes,
        cost=0.00002 * step.passes,
        seconds=9.0,
    )


def failed(number: int) -> Experiment:
    return Experiment(number, strategy="explore", error="no prompt in the reply", seconds=2.0)


def night(experiments: int, *, confirmed: bool = True, words: int = 1, seed: int = 0) -> History:
    """The history of a night of so many proposals after a baseline, every 40th failed."""
    chance = random.Random(seed)
    history = History()
    for number in range(experiments + 1):
        fails = number and number % 40 == 0
        history.add(failed(number) if fails else made_up(number, chance, experiments, words))
    while confirmed and (steps := next_steps(history, history.completed)):
        for step in steps:
            history.add(sampled(step, chance, history.completed))
    return history


def measure(path: Path, history: History, experiments: int) -> tuple[float, float]:
    """Seconds and MB of peak memory that writing the page took."""
    before, began = peak(), time.perf_counter()
    shown = Display(parse_arguments(["--iterations", str(experiments)]), simulated=True)
    write_whole(path, page(history, shown, running=False))
    return time.perf_counter() - began, peak() - before


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def no_browser() -> str:
    """Why no page can be opened here; empty when one can."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(missing)} in PATH" if missing else ""


@contextmanager
def chromium() -> Iterator[Any]:
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in [*FLAGS.split(), f"user-data-dir={profile}"]:
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        browser: Any = Chrome(options, Service(shutil.which("chromedriver")))
        try:
            browser.get("about:blank")
            browser.get_log("performance")  # the requests of Chromium's own first tab
            yield browser
        finally:
            browser.quit()


def open_page(browser: Any, page: Path) -> float:
    """Seconds from the start of loading until the page's scripts have drawn chart and table."""
    browser.get(page.as_uri())
    return int(browser.execute_script("return document.documentElement.dataset.ready")) / 1000


def requests_made(browser: Any) -> list[str]:
    """Every address asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]


def main() -> None:
    experiments, length = map(int, (sys.argv[1:] + ["5000", "1"][len(sys.argv) - 1 :])[:2])
    history = night(experiments, words=length)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report.html")
        seconds, memory = measure(path, history, experiments)
        print(f"experiments: {experiments}")
        print(f"size: {path.stat().st_size / 1e6:.1f} MB")
        print(f"written: {seconds:.2f} s, {memory:.0f} MB more memory at the peak")
        if why := no_browser():
            print(f"opened: not measured, {why}")
            return
        with chromium() as browser:
            opened = [open_page(browser, path) for _ in range(3)]
        print(f"opened: {', '.join(f'{s:.2f} s' for s in opened)}, chart and table drawn")


if __name__ == "__main__":
    main()
