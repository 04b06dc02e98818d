"""The gate before a server: who waits, how long, how many calls are under way, how fast they begin.

A lone failure makes its own call wait; a run of them closes the gate for all, and one call tries
first. Calls under way: each answer lets one more begin, a time-out halves their number. Calls a
second: as the server's headers allow; without headers, slower where it refuses too many.
"""

import email.utils
import math
import random
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from autoresearch.api.answer import MayPass, read_number
from autoresearch.api.exchange import FatalAPIError, Interrupted

LONGEST_BACKOFF = 60.0  # seconds that the server did not name
AFTER_REFUSAL = 20.0  # the same after a 429: the server is up, and a limit may end soon
LONGEST_WAIT = 120.0  # seconds, whatever the server names
SETUP_PATIENCE = 10.0  # seconds without a connection, before anything has ever succeeded
RUN = 3  # failures in a row, of more than one request, that close the gate for all
AT_FIRST = 4  # calls under way until the first answer shows how long one takes
STOP_SECONDS = 2.0  # that a call may keep the pace for, after stop()
POLL_SECONDS = 0.25  # how late a waiting call may notice stop()
LINE_SECONDS = 10.0  # between two lines about lone failures


@dataclass(frozen=True)
class Turn:
    """A call under way: the model, what it asks, and where the gate stood when it began."""

    model: str
    about: object
    wave: int
    began: float
    answers: int


class _Pace:
    """How fast calls to one model may begin.

    By headers: never more under way than the server says are left, then a pause until the reset;
    where every call taken adds the same time to the reset (a token bucket), one call per token.
    By refusals: when 3 of the last 20 calls were refused, the rate becomes what was answered a
    second in the last minute. It doubles every 3 minutes and every 350 answers, so that neither
    chance nor a limit since lifted holds it down for long.
    """

    REFUSED, CALLS = 3, 20
    MEASURED = 90.0  # seconds
    DOUBLES = (180.0, 350)  # seconds, answers
    CAUTION = 0.9  # of what was answered
    BURST = 2.0  # seconds of the rate that a pause may save up

    def __init__(self, now: float, longest: float) -> None:
        self._longest = longest  # seconds of a pause, whatever the headers name
        self.running = 0
        self.succeeded = False
        self.left = math.inf  # calls, as the server says; only falls until `resets`
        self.resets = 0.0
        self.more = 0.0  # when one more may begin though none is left
        self.most = 0.0  # calls, the most that were ever left
        self.per_call = (math.inf, 0.0)  # least and most seconds to the reset per call taken
        self.rate = math.inf  # calls a second, as learned
        self.credit = 0.0  # calls that it lets begin at once
        self.filled = self.since = now
        self.answers: deque[float] = deque()  # when, since `since`
        self.last: deque[bool] = deque(maxlen=self.CALLS)  # refused or not

    def delay(self, now: float) -> float:
        """Seconds until a call may begin, if nothing changes before."""
        if self.left - self.running < 1 and now < self.more:
            return self.more - now
        self._fill(now)
        return 0.0 if self.credit >= 1 else (1 - self.credit) / self.rate

    def begin(self, now: float) -> None:
        self.running += 1
        self._fill(now)
        self.credit -= 1
        if self.running > self.left:  # let in by the clock; its answer tells how many may follow
            self.left = self.running
            self.more = now + (self.per_call[1] if self._is_bucket() else 5.0)

    def end(self, now: float, headers: Mapping[str, str]) -> float:
        """Takes in what the headers say; the seconds of pause that they name beyond the longest."""
        self.running -= 1
        left = read_number(headers.get("x-ratelimit-remaining-requests"))
        reset = read_seconds(headers.get("x-ratelimit-reset-requests"))
        if left is None or reset is None:
            return 0.0
        named, reset = reset, min(reset, self._longest)
        self.most = max(self.most, left + 1)  # a bucket may hold less than the limit of a minute
        taken = self.most - left
        if taken >= self.most / 4:  # with fewer taken, rounding hides the difference
            each, (low, high) = reset / taken, self.per_call
            self.per_call = (min(low, each), max(high, each))
        # Answers overtake each other: before the reset only the lowest number is to be trusted.
        if now >= self.resets or left <= self.left:
            self.left, self.resets = left, now + reset
            token = now + self.per_call[1]
            if not self._is_bucket():
                self.more = self.resets
            elif not now < self.more < token:
                self.more = token
        return named if left < 1 and named > self._longest else 0.0

    def answered(self, now: float) -> None:
        self.answers.append(now)
        while self.answers[0] < now - self.MEASURED:
            self.answers.popleft()
        self.last.append(False)
        self.rate *= 2 ** (1 / self.DOUBLES[1])

    def refused(self, now: float) -> None:
        self.last.append(True)
        seconds = min(max(now - self.since, 0.1), self.MEASURED)
        few = len(self.answers) < (self.CALLS if seconds < self.MEASURED else 1)
        if self.left < 1 or sum(self.last) < self.REFUSED or few:
            return  # its headers say when to come back, or it may have come by chance
        first, measured = self.rate == math.inf, self.CAUTION * len(self.answers) / seconds
        self.rate = min(self.rate, measured)
        self.credit, self.filled = 0.0, now
        self.last.clear()
        if first:  # what was saved up before the first call is no rate
            self.restart(now)

    def restart(self, now: float) -> None:
        """What came before says nothing of what the server can do."""
        self.since = now
        self.answers.clear()
        self.last.clear()

    def _is_bucket(self) -> bool:
        return self.per_call[1] < 2 * self.per_call[0]

    def _fill(self, now: float) -> None:
        if self.rate == math.inf:
            self.credit = math.inf
        elif now > self.filled:
            passed, self.filled = now - self.filled, now
            self.rate *= 2 ** (passed / self.DOUBLES[0])
            self.credit = min(self.credit + passed * self.rate, self.BURST * self.rate + 1)


class Gate:
    """Lets the calls to one server begin, for all threads together."""

    def __init__(
        self,
        patience: float,
        deadline: float,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stopped, self.setting = False, "NEBIUS_BASE_URL"
        self._patience, self._deadline = patience, deadline
        self.notify, self._clock = notify, clock
        self._opens = 0.0
        self._wave = 0  # how often it closed
        self._running = 0  # of this wave
        self._most = float(AT_FIRST)  # calls under way at once
        self._steady = math.inf  # up to here each answer lets one more begin, beyond a part of one
        self._answers = 0
        self._row: list[object] = []  # what the failures since the last answer asked
        self._closings = 0  # since the last answer; above 0 it is shut
        self._failing_since: float | None = None
        self._over: FatalAPIError | None = None
        self._next_line = 0.0
        longest = min(LONGEST_WAIT, patience)
        self.paces = defaultdict[str, _Pace](lambda: _Pace(self._clock(), longest))
        self._changed = threading.Condition()

    def enter(self, model: str, about: object = None) -> Turn:
        """Waits until a call may begin; raises Interrupted at a closed gate, or in a long pause,
        after `stop`. One that only keeps the pace goes on after it: what runs is to end."""
        with self._changed:
            while (left := self.delay(model)) > 0:
                closed = self._clock() < self._opens or (left == math.inf and bool(self._row))
                if self.stopped and (closed or STOP_SECONDS < left < math.inf):
                    raise Interrupted
                self._pause(left)
            return self.begin(model, about)

    def delay(self, model: str) -> float:
        if self._over is not None:
            raise self._over
        now = self._clock()
        if now < self._opens:
            return self._opens - now
        if self._running >= int(self._most):
            return math.inf
        return self.paces[model].delay(now)

    def begin(self, model: str, about: object = None) -> Turn:
        now = self._clock()
        self._running += 1
        self.paces[model].begin(now)
        return Turn(model, about, self._wave, now, self._answers)

    def answered(self, turn: Turn, headers: Mapping[str, str], worked: bool = True) -> None:
        """`worked`: with an answer, not a refusal for good."""
        with self._changed:
            now, pace = self._clock(), self.paces[turn.model]
            took, pause = now - turn.began, pace.end(now, headers)
            pace.answered(now)
            pace.succeeded = pace.succeeded or worked
            self._failing_since = None
            if turn.model and worked:  # not the list of models, which says nothing of an answer
                if not self._answers:  # as many as one at a time would take half the time
                    self._most = max(self._most, self._deadline / 2 / max(took, 1e-3))
                self._answers += 1
            if turn.wave == self._wave:
                self._running -= 1
                part = (0.25 if took > self._deadline / 2 else 1) / self._most
                self._most += 1 if self._most < self._steady else part
                self._closings = 0
                self._row.clear()
            self._changed.notify_all()
        if pause and now >= self._next_line:
            self._next_line = now + LONGEST_WAIT
            again = f"trying again in {min(LONGEST_WAIT, self._patience):g} s"
            self.notify(f"the server allows no call for {pause / 3600:.3g} h: {again}")

    def failed(self, turn: Turn, failure: MayPass, attempt: int = 1) -> float:
        """Seconds that this call has to wait after its `attempt`.

        Raises FatalAPIError, now and for every later call, when patience is at its end.
        """
        with self._changed:
            now, pace = self._clock(), self.paces[turn.model]
            pace.end(now, failure.headers)
            fresh = turn.wave == self._wave
            self._running -= fresh
            self._changed.notify_all()
            # a time-out is load, but for one that all others overtook
            if failure.late and self._answers - turn.answers <= 2 * self._most:
                self._most = self._steady = max(1.0, min(self._most, self._running + 1) / 2)
            left = self._patience_left(failure, now)
            if failure.status == 429:
                pace.refused(now)
            if not fresh:  # was under way when the gate closed: nothing new
                return 0.0
            self._row.append(turn.about)
            in_a_row = len(self._row) >= RUN and (not failure.alone or len(set(self._row)) > 1)
            attempt = max(attempt, self._closings + 1)
            wait = min(_wait(failure, attempt), left)
            if self._closings or in_a_row or (failure.setup and not failure.alone):
                self._opens, self._most, self._running = now + wait, 1.0, 0
                self._closings += 1
                self._wave += 1
                for pace in self.paces.values() if failure.status != 429 else ():
                    pace.restart(self._opens)
            elif (attempt == 1 or failure.alone) and now < self._next_line:
                return wait
            self._next_line = now + LINE_SECONDS
        self.notify(f"waiting {wait:.1f} s after attempt {attempt}: {failure}")
        return wait

    def sleep(self, seconds: float) -> None:
        ends = self._clock() + seconds
        with self._changed:
            while (left := ends - self._clock()) > 0:
                if self.stopped:
                    raise Interrupted
                self._pause(left)

    def _pause(self, seconds: float) -> None:
        self._changed.wait(min(seconds, POLL_SECONDS))

    def _patience_left(self, failure: MayPass, now: float) -> float:
        if self._failing_since is None:
            self._failing_since = now
        setup = failure.setup and not any(pace.succeeded for pace in self.paces.values())
        patience = min(self._patience, SETUP_PATIENCE) if setup else self._patience
        left = patience - (now - self._failing_since)
        if left > 0:
            return left
        if setup:
            raise FatalAPIError(f"{failure}: check {self.setting} and the network")
        what = f"no success for {patience / 60:.3g} minutes (last: {failure}): everything so far is"
        self._over = FatalAPIError(f"{what} kept; start the same command again to go on")
        raise self._over


def _wait(failure: MayPass, attempt: int) -> float:
    """What the server asks; without a word from it, or when that did not help, twice as long from
    attempt to attempt, with jitter."""
    after = retry_after(failure.headers)
    high = min(2.0 ** min(attempt, 9), AFTER_REFUSAL if failure.status == 429 else LONGEST_BACKOFF)
    wait = random.uniform(high / 2, high) if after is None or attempt > 1 else 0.0
    return min(max(wait, after or 0.0), LONGEST_WAIT)


UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def read_seconds(value: str | None) -> float | None:
    """Seconds from "2", "1.5", "1s", "250ms", "6m0s"; None from anything else."""
    value = (value or "").strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", value)
    if not value or "".join(number + unit for number, unit in parts) != value:
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; None when it does not, or not in words we know."""
    value = headers.get("Retry-After", "")
    seconds = read_seconds(value)
    if seconds is None and value:
        with suppress(ValueError, OverflowError):
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    return seconds if seconds is not None and seconds >= 0 else None
