"""What loading and appending cost at 10 and at 100,000 records of 2 kB.

python -m tests.benchmarks.results [records]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[2]))

from autoresearch.files.record import Experiment, Trial
from autoresearch.files.results import Results

APPENDS = 300  # to each file, in turn
TEXTS = {
    "English": "Nine words, of which a reader may believe all. ",
    "Russian": "Девять слов, и всем им может верить читатель. ",
    "English with an emoji": "Nine words, of which you may believe all \U0001f642. ",
}
LOAD = """
import resource, sys, time
from pathlib import Path
from autoresearch.files.results import load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start, busy = time.perf_counter(), time.process_time()
count = len(load(Path(sys.argv[1])))
seconds, busy = time.perf_counter() - start, time.process_time() - busy
print(count, seconds, busy, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def experiment(text: str) -> Experiment:
    """A record of about 2 kB: two trials, one of which repeats its response at the top level."""
    short = text * 2
    trials = tuple(
        Trial(f"input {n}", short * 2, 7.25, {"words: 60-120": 1.0, "judge: warm?": 0.45}, short)
        for n in range(2)
    )
    return Experiment(
        1, "proposal", "refine", short, short * 2, short * 2, 7.25, trials, 1234, 0.00123, 2.5,
        "2026-01-01T00:00:00Z", {"agent": "model/a", "task": "model/b", "judge": "model/c"},
        "0123456789ab", "ba9876543210",
    )  # fmt: skip


def write_file(path: Path, records: int, text: str) -> None:
    """As `records` appends would have left it, without 100,000 calls of fsync."""
    path.unlink(missing_ok=True)
    with Results(path) as results:
        results.append(experiment(text))
    record = path.read_bytes().removeprefix(b"[\n").removesuffix(b"\n]\n")
    with open(path, "wb") as file:
        file.write(b"[\n" + record)
        for _ in range(records - 1):
            file.write(b",\n" + record)
        file.write(b"\n]\n")


def time_load(path: Path, name: str) -> None:
    command = [sys.executable, "-c", LOAD, str(path.resolve())]
    root = Path(__file__).parents[2]
    outputs = [subprocess.check_output(command, cwd=root, text=True) for _ in range(3)]
    runs = [[float(figure) for figure in output.split()] for output in outputs]
    count, seconds, busy, peak = min(runs, key=lambda run: run[1])
    size = path.stat().st_size
    print(
        f"load, {name}: {count:,.0f} records, {size / 1e6:.0f} MB, {size / count:,.0f} B each: "
        f"{seconds:.2f} s, of which {busy:.2f} s on the processor (best of 3), "
        f"peak memory {peak / size:.2f} times the file's size"
    )


def time_appends(small: Path, large: Path) -> None:
    """In turn, so that a noisy machine disturbs both alike."""
    with Results(small) as few, Results(large) as many:
        files = {f"{len(each.experiments):,} records": each for each in (few, many)}
        times: dict[str, list[float]] = {name: [] for name in files}
        for number in range(APPENDS):
            for name, results in files.items():
                new = replace(experiment(TEXTS["English"]), iteration=number)
                start = time.perf_counter()
                results.append(new)
                times[name].append(time.perf_counter() - start)
    medians = [statistics.median(each) for each in times.values()]
    for name, median in zip(times, medians, strict=True):
        print(f"append to {name}: {median * 1e3:.2f} ms")
    print(f"ratio: {medians[1] / medians[0]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("records", type=int, nargs="?", default=100_000)
    records = parser.parse_args().records
    with tempfile.TemporaryDirectory(dir=".") as folder:
        small, large = Path(folder, "small.json"), Path(folder, "large.json")
        for name, text in reversed(TEXTS.items()):
            write_file(large, records, text)
            time_load(large, name)
        write_file(small, 10, TEXTS["English"])
        time_appends(small, large)


if __name__ == "__main__":
    main()
