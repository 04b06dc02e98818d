"""What the loop itself costs beside the API's calls, against the limits it has to keep.

    python -m tests.benchmarks.loop [--repeats 3] [--minute]

The simulator runs in a process of its own, and so does each measured run: `python main.py` as it
stands, or a plain reading of the article's loop. One pass per experiment (temperature 0, rule
criteria), no confirmation. A page that main.py writes between two experiments counts in their CPU
and wall time; the table tells how many those were, since a short run may see none, and what one
costs. Medians of runs that take turns, since machines are noisy. --minute adds the run at a true
60 requests a minute, which takes minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

from autoresearch.files.record import Response

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "program.md"
MODEL = "simulated/model"
LATENCY = 0.1  # seconds of a call, where wall time is measured
LONG = 10_000  # experiments of the long history
BURST = 1 / 6  # minutes' worth of calls that the simulator's bucket holds at first

SHOWN = "Prompt, score {score:.2f}:\n```\n{prompt}\n```"
PARTS = ("starts", "processor", "wall", "driven", "limited", "pace")

HEAD = ("", "limit", "measured", "", "article's loop")


# --- what runs in processes of its own ---


def serve(settings: str) -> None:
    """The simulator, until stdin closes; prints its address, then its counts of replies."""
    from tests.servers import Simulator

    with Simulator(seed=1, **json.loads(settings)) as simulator:
        print(simulator.url, flush=True)
        sys.stdin.read()
        print(json.dumps(simulator.counts))


@dataclass(frozen=True)
class Mark:
    """How a process stands when it has recorded one more experiment."""

    cpu: float  # seconds of all threads
    wall: float  # seconds
    peak: int  # bytes of memory
    written: int  # bytes to results.json so far
    pages: int = 0  # report.html so far


def peak() -> int:
    """VmHWM in bytes; unlike ru_maxrss without what the parent had before exec."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def mark(written: int, memory: bool = False, pages: int = 0) -> Mark:
    """Memory only now and then: reading it takes 2 % of an experiment's time."""
    return Mark(time.process_time(), time.perf_counter(), peak() if memory else 0, written, pages)


def report_marks(path: str, marks: Sequence[Mark], page: float = 0.0) -> None:
    Path(path).write_text(json.dumps({"marks": [vars(each) for each in marks], "page": page}))


def ours(marks_path: str, argv: list[str]) -> int:
    """main.py as it stands, with a mark after each append."""
    import main
    from autoresearch.files.results import Results
    from autoresearch.report.reports import Reports

    marks: list[Mark] = []
    pages: list[float] = []  # CPU seconds of each
    append, first = Results.append, [-1]
    draw = Reports._page

    def marked(self: Results, experiment: Any) -> None:
        append(self, experiment)
        size = os.path.getsize("results.json")
        first[0] = size if first[0] < 0 else first[0]
        marks.append(mark(size - first[0], len(marks) % 50 == 0, len(pages)))

    def timed(*args: Any, **more: Any) -> list[str]:
        began = time.process_time()
        written = draw(*args, **more)
        pages.append(time.process_time() - began)
        return written

    Results.append = marked  # type: ignore[method-assign]
    Reports._page = timed  # type: ignore[method-assign]
    try:
        return main.main(argv)
    finally:
        report_marks(marks_path, marks, pages[-1] if pages else 0.0)


def article(marks_path: str, experiments: int) -> int:
    """The article's loop, read plainly: the last 3 attempts in the prompt, one call after another,
    each over a new connection, and results.json written anew and whole after each."""
    import requests

    from agent import SYSTEM
    from autoresearch.files.program import load_program
    from autoresearch.search.proposal import parse_proposal
    from scorer import score

    url = f"{os.environ['NEBIUS_BASE_URL']}/chat/completions"
    program, file = load_program(PROGRAM), Path("results.json")
    given = program.inputs[0]
    records = json.loads(file.read_text()) if file.exists() else []
    marks, written = [mark(0)], 0

    def call(system: str, user: str, temperature: float) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        body = {"model": MODEL, "messages": messages, "temperature": temperature}
        reply = requests.post(url, json=body, headers={"Authorization": "Bearer none"}, timeout=60)
        reply.raise_for_status()
        return str(reply.json()["choices"][0]["message"]["content"])

    for _ in range(experiments):
        last = "\n\n".join(SHOWN.format(**record) for record in records[-3:])
        asked = f"{program.goal}\n\nThe last attempts:\n\n{last}\n\nPropose a better prompt."
        prompt = parse_proposal(call(SYSTEM, asked, 1.0))[1]
        response = call(prompt, program.question(given), 0.0)
        value = score(None, program, Response(given, response)).score
        records.append(
            {"prompt": prompt, "response": response, "score": value, "timestamp": time.time()}
        )
        written += file.write_text(json.dumps(records, indent=2))
        marks.append(mark(written))
    report_marks(marks_path, marks)
    return 0


# --- one run ---


@dataclass(frozen=True)
class Outcome:
    marks: list[Mark]
    wall: float  # seconds, from the start of the process to the last record
    counts: dict[str, int]  # replies by status
    kept: bytes  # results.json
    page: float  # CPU seconds of the last report.html

    @property
    def pages(self) -> int:
        """Pages written between the first mark and the last."""
        return self.marks[-1].pages - self.marks[0].pages

    @property
    def steps(self) -> int:
        return len(self.marks) - 1

    @property
    def calls(self) -> int:
        return self.counts["200"]

    @property
    def cpu(self) -> float:
        """Seconds per experiment; start and loading came before the first mark."""
        return (self.marks[-1].cpu - self.marks[0].cpu) / self.steps

    @property
    def seconds(self) -> float:
        return self.marks[-1].wall - self.marks[0].wall


class Bench:
    """Runs things in a temporary folder, with compiled modules kept there too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results, self.marks = folder / "results.json", folder / "marks.json"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("NEBIUS_", "PYTHON"))},
            "PYTHONPATH": str(ROOT),
            "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
            "NEBIUS_API_KEY": "none",
            "NEBIUS_MODEL": MODEL,
            "NEBIUS_TEMPERATURE": "0",
        }

    def start(self, *command: object, url: str = "", **more: Any) -> subprocess.Popen[str]:
        environment = {**self.environment, "NEBIUS_BASE_URL": url}
        words = [sys.executable, *map(str, command)]
        return subprocess.Popen(words, cwd=self.folder, env=environment, text=True, **more)

    @contextmanager
    def server(self, counts: dict[str, int], **settings: Any) -> Iterator[str]:
        me = ("-m", "tests.benchmarks.loop", "serve", json.dumps(settings))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = self.start(*me, **pipes)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            counts.update(json.loads(process.communicate()[0]))

    def run(self, what: str, *words: object, history: bytes = b"", **settings: Any) -> Outcome:
        self.results.unlink(missing_ok=True)
        if history:
            self.results.write_bytes(history)
        counts: dict[str, int] = {}
        with self.server(counts, **settings) as url, open(self.folder / "log", "w") as log:
            me = ("-m", "tests.benchmarks.loop", what, self.marks, *words)
            began = time.perf_counter()
            if self.start(*me, url=url, stdout=log, stderr=log).wait():
                raise SystemExit((self.folder / "log").read_text()[-2000:])
        told = json.loads(self.marks.read_text())
        marks = [Mark(**each) for each in told["marks"]]
        wall = marks[-1].wall - began  # one clock for all processes of the machine
        return Outcome(marks, wall, counts, self.results.read_bytes(), told["page"])

    def ours(self, done: int, more: int, workers: int = 1, **settings: Any) -> Outcome:
        words = ["--program", PROGRAM, "--no-confirm", "--iterations", done + more]
        return self.run("ours", *words, "--workers", workers, **settings)

    def article(self, experiments: int, **settings: Any) -> Outcome:
        return self.run("article", experiments, **settings)

    def help_seconds(self) -> float:
        began = time.perf_counter()
        process = self.start(ROOT / "main.py", "--help", stdout=subprocess.DEVNULL)
        process.wait()
        return time.perf_counter() - began

    def first_request_seconds(self) -> float:
        """From the start of `python main.py` until a server has its first bytes."""
        self.results.unlink(missing_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
            began = time.perf_counter()
            process = self.start(
                ROOT / "main.py", "--program", PROGRAM, url=url, stdout=subprocess.DEVNULL
            )
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1)
                    return time.perf_counter() - began
            finally:
                process.kill()
                process.wait()


def lengthened(kept: bytes, experiments: int) -> bytes:
    """The records of a run grown to a longer history: each prompt joins three others' sentences
    in a new order, so that no two are alike, and keeps the scores of one of the three."""
    chance = random.Random(1)
    baseline, *rest = json.loads(kept)
    records = [baseline]
    for number in range(1, experiments + 1):
        joined = chance.sample(rest, 3)
        parts = [part for record in joined for part in record["prompt"].split(". ")]
        prompt = ". ".join(chance.sample(parts, len(parts)))
        records.append(dict(joined[0], iteration=number, prompt=prompt))
    return json.dumps(records, indent=2, ensure_ascii=False).encode() + b"\n"


# --- the table ---


def row(name: str, limit: str, measured: str, ok: bool | None = None, rival: str = "") -> None:
    verdict = "" if ok is None else "ok" if ok else "MISSED"
    line(name, limit, measured, verdict, rival)


def line(*cells: str) -> None:
    print("{:<48} {:>13} {:>10} {:<6} {:>14}".format(*cells).rstrip(), flush=True)


def header() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    version = platform.python_version()
    return f"{cores} cores, {memory:.0f} GB, Python {version}, {platform.system()}; simulated model"


def starts(bench: Bench, repeats: int) -> None:
    helps, firsts = [], []
    for _ in range(2 * repeats + 2):  # the first of each compiles
        helps.append(bench.help_seconds())
        firsts.append(bench.first_request_seconds())
    for name, limit, taken in (
        ("python main.py --help", 0.35, median(helps[1:])),
        ("start to first request", 0.6, median(firsts[1:])),
    ):
        row(name, f"{limit:.2f} s", f"{taken:.2f} s", taken <= limit)


def memory(bench: Bench) -> bytes:
    """Peak and growth of one long run; its records, to make a longer history of."""
    run = bench.ours(0, 1500)
    at, end = run.marks[250], run.marks[-1]
    record = (end.written - at.written) / (run.steps - 250)
    grown = (end.peak - at.peak) / (run.steps - 250)
    row("peak memory at 250 experiments", "80 MB", f"{at.peak / 1e6:.1f} MB", at.peak <= 80e6)
    name = f"growth per further one / its record of {record:,.0f} B"
    row(name, "4.0", f"{grown / record:.2f}", grown <= 4 * record)
    return run.kept


def processor(bench: Bench, history: bytes, repeats: int) -> None:
    runs: dict[str, list[Outcome]] = {"0": [], "long": [], "rival": [], "long rival": []}
    for _ in range(repeats):
        runs["0"].append(bench.ours(0, 250))
        runs["long"].append(bench.ours(LONG, 100, history=history))
        runs["rival"].append(bench.article(250))
    runs["long rival"].append(bench.article(5, history=history))
    ms = {name: 1000 * median(run.cpu for run in each) for name, each in runs.items()}
    ratio = ms["long"] / ms["0"]
    rival = ms["long rival"] / ms["rival"]
    row("CPU per experiment, no history", "4 ms", f"{ms['0']:.2f} ms", ms["0"] <= 4,
        f"{ms['rival']:.2f} ms")  # fmt: skip
    row("  with so many pages written meanwhile", "", str(runs["0"][0].pages))
    row(f"CPU per experiment, history {LONG:,}", "", f"{ms['long']:.2f} ms", None,
        f"{ms['long rival']:.0f} ms")  # fmt: skip
    row("  with so many pages written meanwhile", "", str(runs["long"][0].pages))
    row("  ratio", "1.30", f"{ratio:.2f}", ratio <= 1.3, f"{rival:.0f}")
    for name, each in (("250 experiments", "0"), (f"{LONG:,}", "long")):
        page = median(run.page for run in runs[each])
        row(f"CPU of one page, {name}", "", f"{1000 * page:.0f} ms")
    for name, each in (("no history", "0"), (f"history {LONG:,}", "long")):
        written = [
            fmean(run.marks[-1].written / run.steps for run in runs[who])
            for who in (each, "rival" if each == "0" else "long rival")
        ]
        row(f"results.json written per experiment, {name}", "", f"{written[0] / 1e3:,.1f} kB",
            None, f"{written[1] / 1e3:,.0f} kB")  # fmt: skip


def wall(bench: Bench, repeats: int) -> None:
    limits = {1: 1.05, 8: 1.10, 32: 1.25}
    runs: dict[int, list[Outcome]] = {workers: [] for workers in limits}
    rivals = []
    for _ in range(repeats):
        for workers in limits:
            runs[workers].append(bench.ours(0, 20 * workers + 10, workers, latency=LATENCY))
        rivals.append(bench.article(20, latency=LATENCY))
    rival = median(run.seconds / run.steps for run in rivals)
    for workers, limit in limits.items():
        # the calls before the first mark: preflight and baseline
        ratio = median(run.seconds * workers / ((run.calls - 2) * LATENCY) for run in runs[workers])
        each = median(run.seconds / run.steps for run in runs[workers])
        row(f"wall / ideal at 100 ms a call, {workers} workers", f"{limit:.2f}", f"{ratio:.2f}",
            ratio <= limit)  # fmt: skip
        row("  per experiment", "", f"{1000 * each:.0f} ms", None, f"{1000 * rival:.0f} ms")


def driven(bench: Bench, repeats: int) -> None:
    """How many requests this process can drive when the answers take no time."""
    for workers in (1, 8, 32):
        runs = [bench.ours(0, 250, workers) for _ in range(repeats)]
        rate = median((run.calls - 2) / run.seconds for run in runs)
        row(f"requests a second at no latency, {workers} workers", "", f"{rate:.0f}")


def limited(bench: Bench, per_minute: int, experiments: int) -> None:
    run = bench.ours(0, experiments, 16, rate_limit=per_minute)
    allowed = (run.calls - BURST * per_minute) * 60 / per_minute
    refused = run.counts.get("429", 0) / sum(run.counts.values())
    ratio = run.wall / allowed
    name = f"wall / allowed at {per_minute} requests a minute, 16 workers"
    row(name, "1.15", f"{ratio:.2f}", ratio <= 1.15)
    row("  calls refused", "5.0 %", f"{100 * refused:.1f} %", refused <= 0.05)


def pace() -> None:
    """How the gate drives servers of many kinds, on a simulated clock."""
    from tests.benchmarks.pace import rows

    for name, goal, measured in rows():
        print(f"{name:54} {goal:22} {measured}", flush=True)


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
        return 0
    if sys.argv[1:2] == ["ours"]:
        return ours(sys.argv[2], sys.argv[3:])
    if sys.argv[1:2] == ["article"]:
        return article(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--minute", action="store_true", help="also at 60 requests a minute")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    began = time.perf_counter()
    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        print(header())
        line(*HEAD)
        if "starts" in options.only:
            starts(bench, options.repeats)
        if "processor" in options.only:
            processor(bench, lengthened(memory(bench), LONG), options.repeats)
        if "wall" in options.only:
            wall(bench, options.repeats)
        if "driven" in options.only:
            driven(bench, 1)
        if "limited" in options.only:
            limited(bench, 600, 160)
        if "pace" in options.only:
            pace()
        if options.minute:
            limited(bench, 60, 60)
    print(f"measured in {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
