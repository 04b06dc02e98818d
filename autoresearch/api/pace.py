"""The gate: who waits, how long, and at what pace calls to the server begin.

After a refusal all threads wait together, and one call tries first. The pace that a server allows
is read from its headers, or learned from its refusals. Sends nothing itself.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoresearch.api.answer import read_number
from autoresearch.api.exchange import FatalAPIError, Interrupted, MayPass, read_seconds

BACKOFF_SECONDS = (1.0, 60.0)  # shortest and longest wait that the server did not name
LONGEST_WAIT = 120.0  # seconds, whatever the server names
SETUP_PATIENCE = 10.0  # seconds without a connection, before anything has ever succeeded
LONGEST_PAUSE = 60.0  # seconds that a call may keep the pace for, after stop()
POLL_SECONDS = 0.25  # how late a waiting call may notice stop()


@dataclass(frozen=True)
class Turn:
    """A call under way: the model it asks, how often the gate had closed before, and its start."""

    model: str
    wave: int
    began: float


class _Pace:
    """How fast one model's server lets us go: read from its headers, or learned from refusals.

    Headers: never more calls under way than the server says are left, then a pause until the reset;
    where every call taken adds the same time to the reset (a token bucket), one call per token.
    Refusals: nothing was left at either of two, so the answers between them / the seconds between
    them is the rate, of a bucket and of a window alike. The seconds count from the moment at which
    the server said that it opens, to the next one: a window then holds its whole time. The rate
    grows with the cube of the answers since: a lifted limit is noticed, a standing one seldom hit.
    A refusal beside which nearly all others under way were answered came by chance: no limit.
    """

    ENOUGH = 16  # answers for a measurement; with fewer the rate is only lowered
    KEPT = 3  # measurements, of which the highest counts: those of chance refusals differ
    DOUBLES = 5.0  # times the measured answers: unrefused for so many, twice the rate is tried,
    LATEST = 400  # but at the latest after so many
    CHANCE = 0.1  # of the calls: where no more are refused, a refusal may be one by chance
    BURST = 2.0  # seconds of the rate that a pause may save up

    def __init__(self, now: float) -> None:
        self.running = 0
        self.left = math.inf  # calls, as the server says; only falls until `resets`
        self.resets = 0.0
        self.more = 0.0  # when one more may begin though none is left
        self.most = 0.0  # calls, the most that were ever left
        self.per_call = (math.inf, 0.0)  # least and most seconds to the reset per call taken
        self.rate = math.inf  # calls a second, as learned
        self.evidence = 0  # answers that the rate was learned from
        self.measured: list[float] = []  # the last rates of ENOUGH answers
        self.shut = False  # refused, and no answer since
        self.closed = 0.0  # when it shut, or will open again if the server said so
        self.since = self.opens = now  # where the next measurement begins, and the one after it
        self.answers = 0  # since `since`
        self.quiet = 0  # answers since the last refusal
        self.beside = [0, 0]  # refused, and answered, of those under way when it shut
        self.refusals = 0  # since `since`
        self.credit = 0.0  # calls that the learned rate lets begin at once
        self.filled = now

    def delay(self, now: float) -> float:
        """Seconds until a call may begin, if nothing changes before."""
        if self.left - self.running < 1 and now < self.more:
            return self.more - now
        self._fill(now)
        return 0.0 if self.credit >= 1 else (1 - self.credit) / self._rate()

    def begin(self, now: float) -> None:
        self.running += 1
        self._fill(now)
        self.credit -= 1
        if self.running > self.left:  # let in by the clock; its answer tells how many may follow
            self.left = self.running
            self.more = now + (self.per_call[1] if self._is_bucket() else 5.0)

    def end(self, now: float, headers: Mapping[str, str]) -> None:
        self.running -= 1
        limit = read_number(headers.get("x-ratelimit-limit-requests"))
        left = read_number(headers.get("x-ratelimit-remaining-requests"))
        reset = read_seconds(headers.get("x-ratelimit-reset-requests"))
        if left is None or reset is None:
            return
        self.most = max(self.most, left + 1)  # a bucket may hold less than the limit of a minute
        taken = min(limit or math.inf, self.most) - left
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

    def answered(self, began: float, fresh: bool) -> bool:
        """Counts an answer; `fresh`: its call began after the last refusal. True when no burst
        need be feared any more: the pace is known, or there is none to keep."""
        self.answers += 1
        if not fresh:
            self.beside[1] += 1
            return False
        self.quiet += 1
        opened, self.shut = self.shut, False
        return opened and self._learn(began)

    def refused(self, now: float, wait: float, told: bool) -> None:
        """`told`: the server named the wait."""
        if self.left < 1:
            return  # its headers say when to come back
        self.opens = now + wait if told else now
        if not self.shut:
            self.shut, self.closed, self.beside = True, self.opens, [1, 0]
            self.refusals += 1
        self.credit, self.filled, self.quiet = 0.0, max(now, now + wait - self.BURST), 0

    def _learn(self, began: float) -> bool:
        """What the answers up to the refusal tell, now that a call after it was answered."""
        answers = self.answers - 1
        few = self.rate == math.inf or self.refusals <= self.CHANCE * answers
        if few and self.beside[1] >= 3 * self.beside[0]:
            return True
        if self.rate == math.inf and answers:  # some were saved up before the first call
            self.rate, self.evidence = answers / max(began - self.since, 0.001), answers
        elif answers:
            rate = answers / max(self.closed - self.since, 0.001)
            if answers >= self.ENOUGH:
                self.measured = [*self.measured[1 - self.KEPT :], rate]
                self.rate, self.evidence = max(self.measured), answers
            elif self.measured:
                return True
            else:
                self.rate, self.evidence = min(self.rate, rate), max(4, answers)
                return False
        self.since, self.answers, self.refusals = self.opens, 1, 0
        return bool(self.measured)

    def _is_bucket(self) -> bool:
        return self.per_call[1] < 2 * self.per_call[0]

    def _rate(self) -> float:
        return self.rate * (1 + (self.quiet / min(self.DOUBLES * self.evidence, self.LATEST)) ** 3)

    def _fill(self, now: float) -> None:
        if self.rate == math.inf:
            self.credit = math.inf
        elif now > self.filled:
            rate = self._rate()
            self.credit = min(self.credit + (now - self.filled) * rate, self.BURST * rate + 1)
            self.filled = now


class Gate:
    """Lets calls begin, for all threads together.

    A server in trouble, or a second failure in a row, closes it for all. It opens for one call;
    every second answer then lets one more be under way, so that no burst follows a refusal. A lone
    failure makes only its own call wait.
    """

    def __init__(
        self,
        patience: float,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stopped = False
        self.succeeded = False
        self._patience, self.notify, self._clock = patience, notify, clock
        self._opens = 0.0
        self._window = math.inf  # calls under way at once
        self._running = 0  # of this wave
        self._wave = 0
        self._failures = 0  # in a row, one per wave
        self._last_wait = 0.0
        self._failing_since: float | None = None
        self._paces: dict[str, _Pace] = {}
        self._changed = threading.Condition()

    def enter(self, model: str) -> Turn:
        """Waits until a call may begin; raises Interrupted at a closed gate after `stop`.

        One that only keeps the pace goes on after it: what runs is to end.
        """
        with self._changed:
            while (left := self.delay(model)) > 0:
                closed = self._clock() < self._opens
                if self.stopped and (closed or LONGEST_PAUSE < left < math.inf):
                    raise Interrupted
                self._pause(left)
            return self.begin(model)

    def delay(self, model: str) -> float:
        now = self._clock()
        if now < self._opens:
            return self._opens - now
        if self._running >= self._window:
            return math.inf
        return self._paces.setdefault(model, _Pace(now)).delay(now)

    def begin(self, model: str) -> Turn:
        now = self._clock()
        self._running += 1
        self._paces[model].begin(now)
        return Turn(model, self._wave, now)

    def answered(self, turn: Turn, headers: Mapping[str, str]) -> None:
        with self._changed:
            self.succeeded, self._failing_since = True, None
            now, pace = self._clock(), self._paces[turn.model]
            pace.end(now, headers)
            fresh = turn.wave == self._wave
            safe = pace.answered(turn.began, fresh)
            if fresh:
                self._running -= 1
                self._window += math.inf if safe else 0.5
                self._failures, self._last_wait = 0, 0.0
            self._changed.notify_all()

    def failed(self, turn: Turn, failure: MayPass) -> float:
        """Seconds that this call has to wait. Raises FatalAPIError when patience is at its end."""
        with self._changed:
            now = self._clock()
            pace = self._paces[turn.model]
            pace.end(now, failure.headers)
            fresh = turn.wave == self._wave
            self._running -= fresh
            self._changed.notify_all()
            left = self._patience_left(failure, now)
            if not fresh:  # was under way when the gate closed: nothing new
                pace.beside[0] += failure.status == 429
                return 0.0
            self._failures += 1
            wait = self._last_wait = min(self._wait(failure), left)
            if failure.told or self._failures > 1:
                self._opens, self._running = now + wait, 0
                self._wave += 1
                self._window = 1
            if failure.status == 429:
                pace.refused(now, wait, failure.after is not None and self._failures == 1)
            attempt = self._failures
        self.notify(f"waiting {wait:.1f} s after attempt {attempt}: {failure}")
        return wait

    def sleep(self, seconds: float) -> None:
        with self._changed:
            ends = self._clock() + seconds
            while (left := ends - self._clock()) > 0:
                if self.stopped:
                    raise Interrupted
                self._pause(left)

    def _pause(self, seconds: float) -> None:
        self._changed.wait(min(seconds, POLL_SECONDS))

    def _wait(self, failure: MayPass) -> float:
        """What the server asks; without a word from it, or when that did not help, full jitter
        that never falls below the wait before it."""
        wait = 0.0
        if failure.after is None or self._failures > 1:
            low, high = BACKOFF_SECONDS
            jitter = random.uniform(low, min(high, low * 2**self._failures))
            wait = max(jitter, min(self._last_wait, high))
        return min(max(wait, failure.after or 0.0), LONGEST_WAIT)

    def _patience_left(self, failure: MayPass, now: float) -> float:
        if self._failing_since is None:
            self._failing_since = now
        setup = failure.setup and not self.succeeded
        patience = min(self._patience, SETUP_PATIENCE) if setup else self._patience
        left = patience - (now - self._failing_since)
        if left > 0:
            return left
        if setup:
            raise FatalAPIError(f"{failure}: check NEBIUS_BASE_URL and the network")
        raise FatalAPIError(
            f"no success for {patience / 60:.3g} minutes (last: {failure}): everything so far is "
            "kept; start the same command again to go on"
        )
