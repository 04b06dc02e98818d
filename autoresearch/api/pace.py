"""The gate before a server: who waits, how long, how many calls are under way, how fast they begin.

A lone failure makes its own call wait; a run of them closes the gate for all, and one call tries
first. Calls under way: each answer lets one more begin, time-outs in a row halve their number.
Calls a second: as the server's headers allow; without headers, slower where it refuses too many.
"""

import math
import random
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import urllib3

from autoresearch.api.answer import MayPass, read_number
from autoresearch.api.exchange import FatalAPIError, Interrupted

LONGEST_BACKOFF = 60.0  # seconds that the server did not name
AFTER_REFUSAL = 20.0  # the same after a 429: the server is up, and a limit may end soon
LONGEST_WAIT = 120.0  # seconds, whatever the server names
SETUP_PATIENCE = 10.0  # seconds without a connection, before anything has ever succeeded
RUN = 3  # failures in a row, of more than one request, that close the gate for all
UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, eq=False)
class Turn:
    """A call under way: the model, what it asks, when it began."""

    model: str
    about: object
    began: float


@dataclass(eq=False)
class _Pace:
    """How fast calls to one model may begin. By headers: never more under way than are left, then a
    pause until the reset; where every call taken adds the same time to it (a token bucket), until
    the next token. By refusals: when 3 of the last 20 calls were refused, at 0.9 of what was
    answered a second in the last 90. That grows by 1/400 a second and an answer, so that neither
    chance nor a limit since lifted holds it down for long."""

    longest: float  # seconds of a pause, whatever the headers name
    succeeded: bool = False
    began: float = 0.0  # when the last call did
    running: int = 0
    left: float = math.inf  # calls, those that run too, as headers say; only falls until `resets`
    resets: float = 0.0
    more: float = 0.0  # when one more may begin though none is left
    most: float = 0.0  # calls that were ever left
    each: tuple[float, float] = (math.inf, 0.0)  # least, most seconds that a call adds to the reset
    rate: float = math.inf  # calls a second, as learned
    answers: deque[float] = field(default_factory=deque)  # when
    last: deque[bool] = field(default_factory=lambda: deque(maxlen=20))  # refused or not

    def delay(self, now: float) -> float:
        none_left = self.left - self.running < 1
        return max(0.0, self.more - now if none_left else 0.0, self.began + 1 / self.rate - now)

    def begin(self, now: float) -> None:
        self.began, self.running = now, self.running + 1
        if self.running > self.left:  # let in by the clock; its answer tells how many may follow
            self.left, (low, high) = self.running, self.each
            self.more = now + (high if high < 2 * low else 5.0)

    def end(self, now: float, headers: Mapping[str, str], status: int = 200) -> float:
        """Takes in how a call ended; seconds of a pause that headers name beyond the longest."""
        self.running -= 1
        left = read_number(headers.get("x-ratelimit-remaining-requests"))
        named = _seconds(headers.get("x-ratelimit-reset-requests", ""))
        if left is not None and named is not None:
            self._told(now, left, min(named, self.longest))
        elif status == 200:
            self.left = math.inf
        if status in (200, 429):
            self.last.append(status == 429)
        seconds = min(now - self.answers[0], 90) if self.answers else 0.0
        if status == 200:
            self.rate *= 1 + (1 + now - self.answers[-1] if self.answers else 1) / 400
            self.answers.append(now)
            while self.answers[0] < now - 90:
                self.answers.popleft()
        elif status == 429 and sum(self.last) >= 3 and (len(self.answers) >= 20 or seconds > 60):
            measured = 0.9 * len(self.answers) / max(seconds, 0.1)
            if self.rate == math.inf:  # what was saved up before the first call is no rate
                self.answers.clear()
            self.rate = min(self.rate, measured)
            self.last.clear()
        return named if named and left is not None and left < 1 and named > self.longest else 0.0

    def _told(self, now: float, left: float, reset: float) -> None:
        self.most = max(self.most, left + 1)  # a bucket may hold less than the limit of a minute
        taken, (low, high) = self.most - left, self.each
        if taken >= self.most / 4:  # with fewer taken, rounding hides the difference
            self.each = low, high = min(low, reset / taken), max(high, reset / taken)
        # Answers overtake each other: before the reset only the lowest number is to be trusted.
        if now >= self.resets or left <= self.left:
            self.left, self.resets = left, now + reset
            if high >= 2 * low:
                self.more = self.resets
            elif not now < self.more < now + high:
                self.more = now + high


@dataclass(eq=False)
class Gate:
    """Lets the calls to one server begin, for all threads together."""

    patience: float  # seconds
    deadline: float  # seconds, of one answer
    notify: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    stopped: bool = False
    setting: str = "NEBIUS_BASE_URL"
    paces: dict[str, _Pace] = field(init=False)  # by model
    _opens: float = 0.0
    _running: set[Turn] = field(default_factory=set)  # since it opened
    _most: float = 4.0  # of them, until the first answer shows how long one takes
    _least: float = math.inf  # seconds of the quickest answer
    _steady: float = math.inf  # from here on not each answer lets one more begin, but each round
    _row: list[tuple[float, object]] = field(default_factory=list)  # failures since an answer
    _over: FatalAPIError | None = None
    _next_line: float = 0.0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        longest = min(LONGEST_WAIT, self.patience)
        self.paces = defaultdict(lambda: _Pace(longest))

    def enter(self, model: str, about: object = None) -> Turn:
        """Waits for a turn; after `stop` raises Interrupted where more than the pace holds it."""
        with self._changed:
            while (left := self.delay(model)) > 0:
                closed = self.clock() < self._opens or (left == math.inf and bool(self._row))
                if self.stopped and (closed or 2 < left < math.inf):  # what runs is to end
                    raise Interrupted
                self._pause(left)
            return self.begin(model, about)

    def delay(self, model: str) -> float:
        """Seconds until a call may begin, if nothing changes before."""
        if self._over is not None:
            raise self._over
        if len(self._running) >= int(self._most):
            return math.inf
        return max(self._opens - self.clock(), self.paces[model].delay(self.clock()))

    def begin(self, model: str, about: object = None) -> Turn:
        turn = Turn(model, about, self.clock())
        self.paces[model].begin(turn.began)
        self._running.add(turn)
        return turn

    def answered(self, turn: Turn, headers: Mapping[str, str], worked: bool = True) -> None:
        """`worked`: with an answer, not a refusal for good."""
        with self._changed:
            self._changed.notify_all()
            now, pace = self.clock(), self.paces[turn.model]
            took, half = max(now - turn.began, 1e-3), self.deadline / 2
            pause = pace.end(now, headers)
            if turn.model and worked:  # the list of models shows nothing
                if not pace.succeeded:  # as many as one by one take half of the deadline
                    self._most = max(self._most, half / took)
                self._least = min(self._least, took)
            pace.succeeded |= worked
            if turn in self._running:
                self._running.remove(turn)
                self._row.clear()
                if 2 * len(self._running) + 2 <= self._most:
                    pass  # more would not be made use of
                elif self._most < self._steady:
                    self._most += took < max(half, 2 * self._least)  # else they wait in a queue
                else:
                    self._most += (took < half) / self._most
        if pause and now >= self._next_line:
            self._next_line = now + LONGEST_WAIT
            then = f"trying again in {pace.longest:g} s"
            self.notify(f"the server allows no call for {pause / 3600:.3g} h: {then}")

    def failed(self, turn: Turn, failure: MayPass, attempt: int = 1) -> float:
        """Seconds to wait until the next attempt; raises FatalAPIError when patience is over."""
        with self._changed:
            now = self.clock()
            self.paces[turn.model].end(now, failure.headers, failure.status)
            if failure.late and self._row:  # a lone one may hang by chance: that is no load
                self._most = self._steady = max(1.0, min(self._most, len(self._running)) / 2)
            if turn not in self._running:  # was under way when the gate closed: nothing new
                return 0.0
            self._running.remove(turn)
            self._row.append((now, turn.about))
            general = not failure.alone or len({about for _, about in self._row}) > 1
            attempt = max(attempt, general * (len(self._row) - RUN + 1))
            wait = self._wait(failure, attempt, now)
            if general and (failure.setup or len(self._row) >= RUN):
                self._opens, self._most = now + wait, 1.0
                self._running.clear()
                for pace in self.paces.values() if failure.status != 429 else ():
                    pace.answers.clear()  # they say nothing of what the server can do later
            elif (attempt == 1 or failure.alone) and now < self._next_line:
                return wait
            self._next_line = now + 10
        self.notify(f"waiting {wait:.1f} s after attempt {attempt}: {failure}")
        return wait

    def sleep(self, seconds: float) -> None:
        ends = self.clock() + seconds
        with self._changed:
            while (left := ends - self.clock()) > 0:
                if self.stopped:
                    raise Interrupted
                self._pause(left)

    def _pause(self, seconds: float) -> None:
        self._changed.wait(min(seconds, 0.25))  # so soon it notices stop()

    def _wait(self, failure: MayPass, attempt: int, now: float) -> float:
        """What the server asks, else a jittered 2 ** attempt; at most what patience leaves."""
        setup = failure.setup and not any(pace.succeeded for pace in self.paces.values())
        patience = min(self.patience, SETUP_PATIENCE) if setup else self.patience
        left = self._row[0][0] + patience - now
        if left <= 0:
            over = f"no success for {patience / 60:.3g} minutes (last: {failure}): everything so"
            over += " far is kept; start the same command again to go on"
            check = f"{failure}: check {self.setting} and the network"
            self._over = FatalAPIError(check if setup else over)
            raise self._over
        after = _seconds(failure.headers.get("Retry-After", ""))
        high = min(2**attempt, AFTER_REFUSAL if failure.status == 429 else LONGEST_BACKOFF)
        wait = random.uniform(high / 2, high) if after is None or attempt > 1 else 0.0
        return min(max(wait, after or 0.0), LONGEST_WAIT, left)


def _seconds(told: str) -> float | None:
    """From "2", "1.5", "250ms", "6m0s", or until a date to come; None from anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", told)
    if told and "".join(number + unit for number, unit in parts) == told:
        return sum(float(number) * UNITS[unit] for number, unit in parts)
    with suppress(ValueError, OverflowError, urllib3.exceptions.HTTPError):
        return urllib3.Retry().parse_retry_after(told) or None
    return None
