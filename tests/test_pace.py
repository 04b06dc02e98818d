"""The gate: how long calls wait, who waits, and at what pace they begin.

Run: pytest tests/test_pace.py
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest
import responses

from autoresearch.api import pace
from autoresearch.api.exchange import APIError, FatalAPIError, Interrupted, MayPass
from tests.servers import (
    CHAT,
    KEY,
    Serve,
    Waits,
    answer,
    leaks,
    make,
    whole,
)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "2s"}, 2),
        ({"Retry-After": "1m30s"}, 90),
        ({"Retry-After": "250ms"}, 0.25),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "999999"}, 120),
        ({"Retry-After": "0"}, 0),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 500])
def test_waits_as_long_as_the_server_asks(
    http: responses.RequestsMock, waits: Waits, headers: dict[str, str], seconds: float, status: int
) -> None:
    http.post(CHAT, status=status, headers=headers)
    http.post(CHAT, json=answer())
    make().generate_response("", "x")
    assert sum(waits) == pytest.approx(seconds)


def test_a_date_to_retry_after_is_waited_for(http: responses.RequestsMock, waits: Waits) -> None:
    http.post(CHAT, status=503, headers={"Retry-After": formatdate(time.time() + 20, usegmt=True)})
    http.post(CHAT, json=answer())
    make().generate_response("", "x")
    assert 18 < sum(waits) <= 20


@pytest.mark.parametrize(
    "value", ["soon", "-1", "1e9", "nan", "", "Mon, 99 Foo", "Tue, 01 Jan 2019 00:00:00 GMT"]
)
def test_a_retry_after_that_says_nothing_is_ignored(
    http: responses.RequestsMock, waits: Waits, value: str
) -> None:
    http.post(CHAT, status=503, headers={"Retry-After": value})
    http.post(CHAT, json=answer())
    make().generate_response("", "x")
    assert 1 <= sum(waits) <= 2


def test_waits_grow_up_to_a_minute(http: responses.RequestsMock, waits: Waits) -> None:
    http.post(CHAT, status=503)
    lines: list[str] = []
    with pytest.raises(FatalAPIError, match="start the same command again"):
        make(lines=lines).generate_response("", "x")
    shown = [float(line.split()[1]) for line in lines]
    assert shown[:-1] == sorted(shown[:-1]) and 1 <= shown[0] <= 2  # the last: patience's rest
    assert 50 < max(shown) <= 60
    assert sum(waits) == pytest.approx(1800, rel=1e-6)
    assert "attempt 3: 503 service unavailable" in lines[2]


def test_progress_resets_the_clock_of_patience(http: responses.RequestsMock, waits: Waits) -> None:
    client = make(patience=100)
    for _ in range(6):
        http.post(CHAT, status=503, headers={"Retry-After": "60"})
        http.post(CHAT, json=answer())
        client.generate_response("", "x")
        waits.now += 1000  # idle: nothing was asked for, so nothing failed
    assert sum(waits) == 360


def test_a_server_that_was_never_reached_is_given_up_soon(waits: Waits) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(FatalAPIError, match="refused: check NEBIUS_BASE_URL") as caught:
        make(url).generate_response("", "x")
    assert sum(waits) == pytest.approx(10)
    assert KEY not in leaks(caught.value)
    waits.clear()
    client = make(url, patience=1800)
    client._gate.succeeded = True
    with pytest.raises(FatalAPIError, match="no success for 30 minutes"):
        client.generate_response("", "x")


def test_stop_ends_a_wait_at_once(http: responses.RequestsMock) -> None:
    http.post(CHAT, status=503, headers={"Retry-After": "60"})
    client = make()
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(client.generate_response, "", "x") for _ in range(3)]
        time.sleep(0.1)
        began = time.monotonic()
        client.stop()
        for call in calls:
            with pytest.raises(Interrupted):
                call.result()
    assert time.monotonic() - began < 0.5


def test_after_stop_a_call_that_need_not_wait_goes_on(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer())
    client = make()
    client.stop()
    assert client.generate_response("", "x").text == "fine"


def test_an_outside_judge_sees_right_conduct(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "BACKOFF_SECONDS", (0.1, 1.0))
    steps = [
        whole("429 Too Many Requests", b"{}", "Retry-After: 0.1\r\n"),
        whole("503 Service Unavailable", b"busy"),
        whole(),
        whole("400 Bad Request", b"{}"),
    ]

    def script(connection: socket.socket, number: int) -> None:
        time.sleep(0.1 if number == 2 else 0)
        connection.sendall(steps[number])

    server = serve(script)
    client = make(server.url)
    assert client.generate_response("", "x").text == "fine"
    with pytest.raises(APIError):
        client.generate_response("", "x")
    assert len(server.times) == 4
    first, second = server.times[1] - server.times[0], server.times[2] - server.times[1]
    assert 0.1 <= first <= second + 0.02 <= 0.6


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_all_wait_together_and_no_burst_follows(serve: Serve, status: str) -> None:
    lock = threading.Lock()
    refused: list[float] = []
    under_way = [0]
    crowd: list[int] = []

    def script(connection: socket.socket, number: int) -> None:
        with lock:
            under_way[0] += 1
            if refused:
                crowd.append(under_way[0])
        time.sleep(0.03)
        if number < 8:
            refused.append(time.monotonic())
            reply = whole(status, b"{}", "Retry-After: 0.2\r\n")
        else:
            reply = whole()
        with lock:
            under_way[0] -= 1
        connection.sendall(reply)

    lines: list[str] = []
    server = serve(script)
    client = make(server.url, lines)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: client.generate_response("", "x"), range(24)))) == 24
    after = [moment for moment in server.times if moment > refused[0] + 0.02]
    assert after[0] - refused[0] >= 0.19, "all wait, those too that were not refused"
    assert len(lines) == 1, "one line per wait, not one per worker"
    assert crowd[0] == 1 and after[1] - after[0] >= 0.03, "one call tries, the others follow"


def test_a_lone_failure_does_not_stop_the_others(serve: Serve) -> None:
    def script(connection: socket.socket, number: int) -> None:
        connection.sendall(whole("500 Internal Server Error", b"") if number == 3 else whole())

    client = make(serve(script).url)
    client._gate.sleep = lambda seconds: None  # type: ignore[method-assign]
    for _ in range(8):
        client.generate_response("", "x")
    assert client._gate._wave == 0


class Bucket:
    """A token bucket of 60 a minute; resets: when it is full again."""

    def __init__(self, size: float) -> None:
        self.limit = self.level = size
        self.at = 0.0

    def take(self, now: float) -> bool:
        self.level = min(self.limit, self.level + now - self.at)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def state(self, now: float) -> tuple[float, float, float]:
        """Calls left, seconds until the reset, seconds until one more call."""
        return int(self.level), self.limit - self.level, max(0.0, 1 - self.level)


class Window:
    """60 in each minute, or (sliding) in the last minute before any moment."""

    limit = 60.0

    def __init__(self, sliding: bool) -> None:
        self.sliding = sliding
        self.taken: list[float] = []

    def take(self, now: float) -> bool:
        begin = now - 60 if self.sliding else now // 60 * 60
        self.taken = [moment for moment in self.taken if moment >= begin]
        if len(self.taken) >= self.limit:
            return False
        self.taken.append(now)
        return True

    def state(self, now: float) -> tuple[float, float, float]:
        reset = (self.taken[0] if self.sliding else now // 60 * 60) + 60 - now
        return self.limit - len(self.taken), reset, reset


def ideal(server: Bucket | Window, calls: int) -> float:
    """Seconds that the limit itself needs for so many calls."""
    now = 0.0
    while calls:
        if server.take(now):
            calls -= 1
        else:
            now += 0.05
    return now


def simulate(
    server: Bucket | Window | Chance,
    calls: int,
    latency: float,
    headers: bool,
    lifted: float = math.inf,
    workers: int = 16,
) -> tuple[float, int]:
    """Seconds and refusals of workers that make so many calls, the first one alone."""
    rng = random.Random(7)
    random.seed(7)  # the gate's jitter
    now = 0.0
    gate = pace.Gate(math.inf, lambda line: None, lambda: now)
    ready = [0.0] * workers  # when each idle worker wants to begin
    events: list[Any] = []
    order = itertools.count()
    begun = done = refused = 0
    owed = 0  # refused calls that their workers have to repeat
    while done < calls:
        wake = math.inf
        for when in sorted(ready):
            if not owed and (begun == calls or (begun == 1 and not done)):
                break
            start = max(when, now + gate.delay("m"))
            if start > now:
                wake = min(wake, start)
                break
            ready.remove(when)
            owed, begun = (owed - 1, begun) if owed else (0, begun + 1)
            arrives = now + latency * rng.uniform(0.2, 0.8)
            heapq.heappush(events, (arrives, next(order), gate.begin("m"), None))
        if wake < (events[0][0] if events else math.inf):
            now = wake + 1e-9
            continue
        now, _, turn, reply = heapq.heappop(events)
        if reply is None:
            ok = now > lifted or server.take(now)
            left, resets, after = server.state(now)
            told = {
                "x-ratelimit-limit-requests": f"{server.limit:.0f}",
                "x-ratelimit-remaining-requests": f"{left:.0f}",
                "x-ratelimit-reset-requests": f"{resets:.2f}s",
            }
            told = told if headers and now < lifted else {}
            if not ok:
                told["Retry-After"] = str(math.ceil(after))
            heapq.heappush(events, (now + latency / 2, next(order), turn, (ok, told)))
        elif reply[0]:
            gate.answered(turn, reply[1])
            done += 1
            ready.append(now)
        else:
            refused += 1
            owed += 1
            ready.append(now + gate.failed(turn, MayPass("slow", 429, reply[1])))
    return now, refused


SERVERS: dict[str, Callable[[], Bucket | Window]] = {
    "bucket of 60": lambda: Bucket(60),
    "bucket of 10": lambda: Bucket(10),
    "fixed window": lambda: Window(False),
    "sliding window": lambda: Window(True),
}


@pytest.mark.parametrize("latency", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", SERVERS)
def test_keeps_just_below_the_limit_that_headers_tell(name: str, latency: float) -> None:
    seconds, refused = simulate(SERVERS[name](), 250, latency, headers=True)
    assert seconds <= 1.15 * ideal(SERVERS[name](), 250)
    assert refused <= 0.05 * 250


@pytest.mark.parametrize("latency", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", SERVERS)
def test_learns_the_pace_from_refusals_alone(name: str, latency: float) -> None:
    seconds, refused = simulate(SERVERS[name](), 500, latency, headers=False)
    assert seconds <= 1.15 * ideal(SERVERS[name](), 500)
    assert refused <= 26  # 16 of them were under way when the first refusal came


@pytest.mark.parametrize("latency", [5.0, 20.0])
def test_a_slow_server_that_refuses_by_chance_is_driven_on(latency: float) -> None:
    """Nearly all calls beside a refused one are answered: that is no limit."""
    seconds, _ = simulate(Chance(0.02), 2000, latency, headers=False, workers=64)
    assert seconds <= 2 * 2000 * latency / 64


class Chance:
    """No limit: now and then a call is refused, as by a busy server."""

    limit = 1e6

    def __init__(self, share: float = 0.05) -> None:
        self.share, self.rng = share, random.Random(3)

    def take(self, now: float) -> bool:
        return self.rng.random() >= self.share

    def state(self, now: float) -> tuple[float, float, float]:
        return self.limit, 0.0, 0.0


def test_refusals_by_chance_do_not_pass_for_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    paced, _ = simulate(Chance(), 1000, 0.05, headers=False, workers=4)
    monkeypatch.setattr(pace._Pace, "refused", lambda *_: None)
    gate_alone, _ = simulate(Chance(), 1000, 0.05, headers=False, workers=4)
    assert paced <= 2.5 * gate_alone


def test_full_speed_returns_when_the_limit_is_lifted() -> None:
    seconds, _ = simulate(Bucket(10), 4000, 0.1, headers=False, lifted=120)
    assert seconds < 120 + 400
    seconds, _ = simulate(Bucket(10), 4000, 0.1, headers=True, lifted=120)
    assert seconds < 120 + 60


def test_the_end_of_patience_leaves_nobody_waiting_for_a_turn() -> None:
    """The call that tries first is the one that gives up: the others must not wait for it."""
    now = 0.0
    gate = pace.Gate(10, lambda line: None, lambda: now)
    down = MayPass("down", 503)
    first = gate.enter("m")
    wait = gate.failed(first, down)
    now = max(wait, 11.0)
    probe = gate.enter("m")
    with pytest.raises(FatalAPIError, match="no success"):
        gate.failed(probe, down)
    assert gate.delay("m") < math.inf


def test_after_stop_a_long_pause_is_not_waited_for() -> None:
    gate = pace.Gate(1800, lambda line: None)
    told = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1h",
    }
    gate.answered(gate.enter("m"), told)
    gate.stopped = True
    with pytest.raises(Interrupted):
        gate.enter("m")


def test_without_a_limit_the_pace_costs_nothing() -> None:
    gate = pace.Gate(1800, lambda line: None)
    turns = [gate.enter("m") for _ in range(1000)]
    for turn in turns:
        gate.answered(turn, {})
    assert gate.delay("m") == 0
