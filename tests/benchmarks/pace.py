"""How well the gate drives servers of many kinds, on a simulated clock: seconds for whole nights.

    python -m tests.benchmarks.pace

Workers make one call after another through a `Gate`; what a server does is a function of the
moment at which a call arrives. Shares are of what the server could do, refused ones of all calls.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from autoresearch.api.answer import MayPass
from autoresearch.api.exchange import FatalAPIError
from autoresearch.api.pace import Gate

Row = tuple[str, str, str]  # server, goal, measured

DEADLINE = 180.0
SEEDS = 7


class Server:
    """Answers each call after `latency` seconds; subclasses refuse, hang, queue."""

    limit = math.inf

    def __init__(self, latency: float = 0.5, headers: bool = False, after: bool = False) -> None:
        self.latency, self.headers, self.after = latency, headers, after
        self.rng = random.Random(1)

    def takes(self, now: float) -> bool:
        return True

    def state(self, now: float) -> tuple[float, float, float]:
        """Calls left, seconds until the reset, seconds until one more call."""
        return math.inf, 0.0, 0.0

    def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
        """Seconds until the reply, its status, its headers."""
        taken = self.takes(now)
        left, resets, after = self.state(now)
        told = {}
        if self.headers and left < math.inf:
            told["x-ratelimit-limit-requests"] = f"{self.limit:.0f}"
            told["x-ratelimit-remaining-requests"] = f"{left:.0f}"
            told["x-ratelimit-reset-requests"] = f"{resets:.2f}s"
        if not taken and (self.headers or self.after):
            told["Retry-After"] = str(math.ceil(after))
        return self.latency * self.rng.uniform(0.8, 1.2), 200 if taken else 429, told


class Bucket(Server):
    """`rate` calls a second, `size` of them saved up."""

    def __init__(self, rate: float, size: float, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.rate, self.limit, self.level, self.at = rate, size, size, 0.0

    def takes(self, now: float) -> bool:
        self.level = min(self.limit, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def state(self, now: float) -> tuple[float, float, float]:
        short = (self.limit - self.level) / self.rate
        return int(self.level), short, max(0.0, 1 - self.level) / self.rate


class Window(Server):
    """`limit` calls in each minute, or (sliding) in the last minute before any moment."""

    def __init__(self, limit: float, sliding: bool = False, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.limit, self.sliding = limit, sliding
        self.taken: list[float] = []

    def takes(self, now: float) -> bool:
        begin = now - 60 if self.sliding else now // 60 * 60
        if self.taken and self.taken[0] < begin:
            self.taken = [moment for moment in self.taken if moment >= begin]
        if len(self.taken) >= self.limit:
            return False
        self.taken.append(now)
        return True

    def state(self, now: float) -> tuple[float, float, float]:
        first = self.taken[0] if self.sliding and self.taken else now // 60 * 60
        return self.limit - len(self.taken), first + 60 - now, first + 60 - now


class Chance(Server):
    """Another server, a share of whose calls fail by chance."""

    def __init__(self, inner: Server, share: float, status: int = 429, after: bool = False) -> None:
        super().__init__()
        self.inner, self.share, self.status, self.after = inner, share, status, after

    def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
        if self.rng.random() < self.share:
            return 0.05, self.status, {"Retry-After": "1"} if self.after else {}
        return self.inner.reply(now)


class Outage(Server):
    """Another server, which is down for a while."""

    def __init__(self, inner: Server, begins: float, ends: float) -> None:
        super().__init__()
        self.inner, self.begins, self.ends = inner, begins, ends

    def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
        if self.begins <= now < self.ends:
            return 0.05, 503, {}
        return self.inner.reply(now)


class Queue(Server):
    """One call at a time, in the order of arrival, also those that nobody waits for any more."""

    free = 0.0

    def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
        self.free = max(now, self.free) + self.latency
        return self.free - now, 200, {}


class Hangs(Server):
    """Answers until a moment, then never."""

    def __init__(self, at: float, *args: Any) -> None:
        super().__init__(*args)
        self.at = at

    def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
        return (self.latency if now < self.at else math.inf), 200, {}


@dataclass
class Night:
    """What came of it."""

    seconds: float = 0.0
    answers: list[float] = field(default_factory=list)  # when
    refused: int = 0
    late: int = 0
    gave_up: list[float] = field(default_factory=list)  # when each worker did
    lines: list[str] = field(default_factory=list)

    @property
    def share_refused(self) -> float:
        return self.refused / max(1, self.refused + len(self.answers))


def drive(
    server: Server,
    workers: int,
    *,
    calls: float = math.inf,
    seconds: float = math.inf,
    patience: float = 1800.0,
    seed: int = 7,
) -> Night:
    """So many calls, or so many seconds, of workers that begin with one call alone."""
    random.seed(seed)  # the gate's jitter
    server.rng = random.Random(seed)
    night, now = Night(), 0.0
    gate = Gate(patience, DEADLINE, night.lines.append, lambda: now)
    ready = [(0.0, worker, 1) for worker in range(workers)]  # when, who, which attempt
    events: list[Any] = []
    order, begun = itertools.count(), 0
    while len(night.answers) < calls and now < seconds and (ready or events):
        wake = math.inf
        while ready:
            when, worker, attempt = ready[0]
            if attempt == 1 and (begun >= calls or (begun and not night.answers)):
                break
            try:
                start = max(when, now + gate.delay("m"))
            except FatalAPIError:
                heapq.heappop(ready)
                night.gave_up.append(now)
                continue
            if start > now:
                wake = start
                break
            heapq.heappop(ready)
            begun += attempt == 1
            turn = gate.begin("m", worker)
            takes, status, headers = server.reply(now)
            ends = now + min(takes, DEADLINE)
            status = 0 if takes > DEADLINE else status
            heapq.heappush(events, (ends, next(order), turn, worker, attempt, status, headers))
        if wake < (events[0][0] if events else math.inf):
            now = wake + 1e-9
            continue
        if not events:
            break
        now, _, turn, worker, attempt, status, headers = heapq.heappop(events)
        if status == 200:
            gate.answered(turn, headers)
            night.answers.append(now)
            heapq.heappush(ready, (now, worker, 1))
            continue
        night.refused += status != 0
        night.late += status == 0
        try:
            wait = gate.failed(turn, MayPass("x", status, headers, late=not status), attempt)
        except FatalAPIError:
            night.gave_up.append(now)
        else:
            heapq.heappush(ready, (now + wait, worker, attempt + 1))
    night.seconds = now
    return night


def ideal(server: Server, calls: int) -> float:
    """Seconds that the limit itself needs for so many calls."""
    now = 0.0
    while calls:
        if server.takes(now):
            calls -= 1
        else:
            now += 0.05
    return now


# --- the table


def rate(server: Callable[[], Server], workers: int, seconds: float) -> tuple[float, float]:
    """Answers a second and the share refused: medians over seeds."""
    nights = [drive(server(), workers, seconds=seconds, seed=s) for s in range(SEEDS)]
    return (
        median(len(night.answers) / night.seconds for night in nights),
        median(night.share_refused for night in nights),
    )


def over(server: Callable[[], Server], bare: Callable[[], Server], calls: int) -> list[float]:
    """Time over the possible, sorted, of several seeds and latencies."""
    possible = ideal(bare(), calls)
    found = []
    for latency in (0.1, 0.5, 1.0):  # with 2 s 16 workers could not use the limit up
        for seed in range(SEEDS):
            made = server()
            getattr(made, "inner", made).latency = latency
            found.append(drive(made, 16, calls=calls, seed=seed).seconds / possible)
    return sorted(found)


def by_chance(name: str, bare: Callable[[], Server], calls: int, after: bool) -> Row:
    ratios = over(lambda: Chance(bare(), 0.05, after=after), bare, calls)
    told = f"{median(ratios):.2f}, worst {ratios[-1]:.2f}"
    return f"600/min {name}, 5 % chance 429", "median 1.3, worst 2.5", told


def rows() -> Iterable[Row]:
    got, _ = rate(lambda: Chance(Server(1.0), 0.01, 503), 64, 900)
    yield "64 in flight, 1 s a call, 1 % lone 503", "58/s", f"{got:.1f}/s"
    yield by_chance("bucket of 600, no headers", lambda: Bucket(10, 600), 6000, False)
    yield by_chance("bucket of 10, no headers", lambda: Bucket(10, 10), 6000, False)
    yield by_chance("window, no headers", lambda: Window(600), 6000, False)
    yield by_chance("bucket of 600, Retry-After", lambda: Bucket(10, 600, after=True), 6000, True)
    shares = []
    for seed in range(SEEDS):
        night = drive(Outage(Bucket(5, 5), 600, 1500), 12, seconds=5100, seed=seed)
        shares.append(sum(moment > 1500 for moment in night.answers) / (5 * 3600))
    told = f"{100 * median(shares):.0f} %, worst {100 * min(shares):.0f} %"
    yield "the hour after a 15-minute outage, 300/min holding 5", "85 %", told
    got, refused = rate(lambda: Bucket(10, 10, 0.1), 12, 1800)
    told = f"{got:.1f}/s, {100 * refused:.0f} %"
    yield "10/s bucket holding 1 s, 12 threads", "8.5/s, 10 %", told
    for name, bare in {
        "bucket of 60": lambda: Bucket(1, 60),
        "bucket of 10": lambda: Bucket(1, 10),
        "window": lambda: Window(60),
        "sliding window": lambda: Window(60, True),
    }.items():
        nights = []
        for latency in (0.1, 0.5, 2.0):
            for seed in range(SEEDS):
                made = bare()
                made.latency = latency
                nights.append(drive(made, 16, calls=770, seed=seed))
        ratios = sorted(night.seconds / ideal(bare(), 770) for night in nights)
        refusals = sorted(night.share_refused for night in nights)
        told = (
            f"{median(ratios):.2f} (worst {ratios[-1]:.2f}), "
            f"{100 * median(refusals):.0f} % (worst {100 * refusals[-1]:.0f} %)"
        )
        yield f"60/min {name}, no headers", "1.15, 10 %", told
    night = drive(Hangs(60.0), 64, seconds=86400)
    late = (night.gave_up[-1] - 60 - DEADLINE - 1800) / DEADLINE if night.gave_up else math.inf
    yield "hanging: the last gives up, after patience", "1 deadline", f"{late:.2f} deadlines"
    shares, lates = [], []
    for workers in (8, 24, 64):
        night = drive(Queue(25.0), workers, seconds=8 * 3600)
        shares.append(len(night.answers) * 25 / night.seconds)
        lates.append(night.late)
    told = ", ".join(f"{share:.2f}" for share in shares) + f"; time-outs {lates}"
    yield "one at a time, 25 s; 8, 24, 64 threads; 8 hours", "0.9", told


def main() -> None:
    print(f"{'server':58} {'goal':22} measured")
    for name, goal, told in rows():
        print(f"{name:58} {goal:22} {told}", flush=True)


if __name__ == "__main__":
    main()
