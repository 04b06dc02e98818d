"""The gate: how long calls wait, who waits, and at what pace they begin.

Run: pytest tests/test_pace.py
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
import responses

from autoresearch.api import pace
from autoresearch.api.answer import MayPass
from autoresearch.api.exchange import APIError, FatalAPIError, Interrupted
from tests.benchmarks.pace import (
    DEADLINE,
    Bucket,
    Chance,
    Hangs,
    Outage,
    Queue,
    Server,
    Window,
    drive,
    ideal,
)
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
    "value",
    [
        "soon",
        "-1",
        "1e9",
        "nan",
        "",
        "Mon, 99 Foo",
        "Tue, 01 Jan 2019 00:00:00 GMT",
        "Tue, 01 Jan 99999 00:00:00 GMT",
    ],
)
def test_a_retry_after_that_says_nothing_is_ignored(
    http: responses.RequestsMock, waits: Waits, value: str
) -> None:
    http.post(CHAT, status=503, headers={"Retry-After": value})
    http.post(CHAT, json=answer())
    make().generate_response("", "x")
    assert 1 <= sum(waits) <= 2


def test_waits_grow_up_to_a_minute(http: responses.RequestsMock, waits: Waits) -> None:
    http.post(CHAT, status=409)
    lines: list[str] = []
    with pytest.raises(FatalAPIError, match="start the same command again"):
        make(lines=lines).generate_response("", "x")
    shown = [float(line.split()[1]) for line in lines]
    assert shown[:5] == sorted(shown[:5]) and 1 <= shown[0] <= 2
    assert 50 < max(shown) <= 60
    assert sum(waits) == pytest.approx(1800, rel=1e-6)
    assert "attempt 3: 409 conflict" in lines[2]


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
    client._servers["task"].gate.paces["m"].succeeded = True
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
    monkeypatch.setattr(pace, "LONGEST_BACKOFF", 0.4)
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
    together = threading.Barrier(8)  # so many are under way when the first is refused
    lock = threading.Lock()
    refused: list[float] = []
    begun: dict[int, float] = {}
    under_way = [0]
    crowd: list[int] = []

    def script(connection: socket.socket, number: int) -> None:
        begun[number] = time.monotonic()
        with lock:
            under_way[0] += 1
            if number >= 9:
                crowd.append(under_way[0])
        if 1 <= number < 9:
            together.wait(timeout=30)
            refused.append(time.monotonic())
            reply = whole(status, b"{}", "Retry-After: 0.2\r\n")
        else:
            time.sleep(0.03)
            reply = whole()
        with lock:
            under_way[0] -= 1
        connection.sendall(reply)

    lines: list[str] = []
    server = serve(script)
    client = make(server.url, lines)
    client.generate_response("", "x")
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda n: client.generate_response("", f"{n}"), range(24)))) == 24
    assert begun[9] - min(refused) >= 0.2, "all wait, those too that were not refused"
    assert len(lines) <= 2, "one line for the first failure and one for all, not one per worker"
    assert crowd[0] == 1 and begun[10] - begun[9] >= 0.03, "one call tries, the others follow"


def test_a_lone_failure_does_not_stop_the_others(serve: Serve) -> None:
    def script(connection: socket.socket, number: int) -> None:
        connection.sendall(whole("500 Internal Server Error", b"") if number == 3 else whole())

    client = make(serve(script).url)
    client._servers["task"].gate.sleep = lambda seconds: None  # type: ignore[method-assign]
    for _ in range(8):
        client.generate_response("", "x")
    assert client._servers["task"].gate._opens == 0


BUCKETS_AND_WINDOWS: dict[str, Callable[..., Server]] = {
    "bucket of 60": lambda **more: Bucket(1, 60, **more),
    "bucket of 10": lambda **more: Bucket(1, 10, **more),
    "fixed window": lambda **more: Window(60, **more),
    "sliding window": lambda **more: Window(60, True, **more),
}


@pytest.mark.parametrize("latency", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", BUCKETS_AND_WINDOWS)
def test_keeps_just_below_the_limit_that_headers_tell(name: str, latency: float) -> None:
    server = BUCKETS_AND_WINDOWS[name]
    night = drive(server(latency=latency, headers=True), 16, calls=770)
    assert night.seconds <= 1.15 * ideal(server(), 770)
    assert night.share_refused <= 0.05


@pytest.mark.parametrize("latency", [0.5, 2.0, 10.0])
@pytest.mark.parametrize("size", [1, 5, 10])
@pytest.mark.parametrize("rate", [0.5, 1, 10])
def test_a_small_bucket_with_headers_is_used_in_full(
    rate: float, size: int, latency: float
) -> None:
    night = drive(Bucket(rate, size, latency=latency, headers=True), 128, seconds=1800)
    assert len(night.answers) / night.seconds > 0.93 * rate
    assert night.share_refused <= 0.13


@pytest.mark.parametrize("latency", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", BUCKETS_AND_WINDOWS)
def test_learns_the_pace_from_refusals_alone(name: str, latency: float) -> None:
    server = BUCKETS_AND_WINDOWS[name]
    night = drive(server(latency=latency), 16, calls=770)
    assert night.seconds <= 1.2 * ideal(server(), 770)
    assert night.share_refused <= 0.13


class AllCount(Window):
    """Refused calls count too, as with OpenAI."""

    def takes(self, now: float) -> bool:
        taken = super().takes(now)
        self.taken += [] if taken else [now]
        return taken


class SomeAtOnce(Server):
    """Refuses beyond so many calls under way."""

    limit = 4.0

    def __init__(self, latency: float) -> None:
        super().__init__(latency)
        self.ends: list[float] = []

    def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
        self.ends = [end for end in self.ends if end > now]
        if len(self.ends) >= self.limit:
            return 0.05, 429, {}
        self.ends.append(now + self.latency)
        return self.latency, 200, {}


@pytest.mark.parametrize(
    ("server", "possible", "share"),
    [
        (lambda: AllCount(3, True), 3 / 60, 0.4),
        (lambda: Window(3), 3 / 60, 0.9),
        (lambda: Window(10, True), 10 / 60, 0.9),
        (lambda: SomeAtOnce(20.0), 4 / 20, 0.8),
    ],
    ids=["all calls count", "3 a minute", "10 a minute", "4 at once"],
)
def test_a_limit_of_a_few_calls_a_minute_is_learned_too(
    server: Callable[[], Server], possible: float, share: float
) -> None:
    night = drive(server(), 24, seconds=4 * 3600)
    assert len(night.answers) / night.seconds > share * possible
    assert night.share_refused < 0.5


def test_an_hour_of_refusals_says_nothing_of_the_pace_after_it() -> None:
    class Refuses(Outage):
        def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
            seconds, status, headers = super().reply(now)
            return seconds, 429 if status == 503 else status, headers

    night = drive(Refuses(Bucket(0.2, 2), 600, 4200), 12, seconds=4800, patience=7200)
    assert sum(moment > 4200 for moment in night.answers) > 0.7 * 0.2 * 600


@pytest.mark.parametrize("kind", [lambda: Bucket(10, 600), lambda: Bucket(10, 10)])
def test_refusals_by_chance_do_not_pass_for_a_limit(kind: Callable[[], Server]) -> None:
    night = drive(Chance(kind(), 0.05), 16, calls=3000)
    assert night.seconds <= 2 * ideal(kind(), 3000)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_fails_by_chance_is_driven_on(status: int) -> None:
    night = drive(Chance(Server(latency=1.0), 0.01, status), 64, seconds=300)
    assert len(night.answers) / night.seconds > 58


class ToldWhenRefused(Bucket):
    """Its headers come with a refusal only."""

    def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
        seconds, status, headers = super().reply(now)
        return seconds, status, headers if status == 429 else {}


@pytest.mark.parametrize("latency", [0.1, 1.0, 10.0])
def test_headers_that_come_with_refusals_only_do_not_hold_the_pace_down(latency: float) -> None:
    night = drive(ToldWhenRefused(2, 20, latency=latency, headers=True), 16, seconds=1800)
    assert len(night.answers) / night.seconds > 0.9 * min(2, 16 / latency)
    assert night.share_refused <= 0.1


def test_a_lone_refusal_that_names_a_reset_holds_the_pace_no_longer_than_that() -> None:
    class RefusesNowAndThen(Server):
        calls = 0

        def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
            seconds, status, headers = super().reply(now)
            self.calls += 1
            if self.calls % 200:
                return seconds, status, headers
            told = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "5s"}
            return seconds, 429, told

    night = drive(RefusesNowAndThen(latency=1.0), 64, seconds=900)
    assert len(night.answers) / night.seconds > 40


def test_one_request_that_fails_in_many_calls_makes_none_of_them_wait_longer() -> None:
    gate = pace.Gate(1800, 180, lambda line: None, lambda: 0.0)
    gate._most = 24.0
    turns = [gate.enter("m", "poison") for _ in range(24)]
    assert all(gate.failed(turn, MayPass("x", 500, alone=True)) <= 2 for turn in turns)


def test_after_an_outage_the_pace_returns_at_once() -> None:
    night = drive(Outage(Bucket(5, 5), 600, 1500), 12, seconds=2400)
    assert sum(moment > 1500 for moment in night.answers) > 0.9 * 5 * 900


def test_full_speed_returns_in_minutes_when_a_limit_is_lifted() -> None:
    class Lifted(Bucket):
        def takes(self, now: float) -> bool:
            return now > 120 or super().takes(now)

    assert drive(Lifted(1, 10, latency=0.1), 16, calls=4000).seconds < 120 + 600


def test_the_first_answer_of_a_model_tells_how_many_calls_may_be_under_way() -> None:
    now = 0.0
    gate = pace.Gate(1800, 180, lambda line: None, lambda: now)
    gate.answered(gate.enter(""), {})  # the list of models, at once
    turn = gate.enter("m")
    now = 25.0
    gate.answered(turn, {})
    under_way = 0
    while gate.delay("m") == 0:
        gate.begin("m")
        under_way += 1
    assert under_way <= 7 < 180 / 25 + 1


def test_one_call_that_hangs_among_many_answers_is_no_load() -> None:
    class HangsNowAndThen(Server):
        def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
            seconds, status, headers = super().reply(now)
            return (math.inf if self.rng.random() < 0.001 else seconds), status, headers

    night = drive(HangsNowAndThen(latency=1.0), 64, seconds=900)
    assert night.late > 10 and len(night.answers) / night.seconds > 45


def test_slow_answers_side_by_side_are_no_load() -> None:
    class SlowAndHangsNowAndThen(Server):
        def reply(self, now: float) -> tuple[float, int, dict[str, str]]:
            seconds, status, headers = super().reply(now)
            return (math.inf if self.rng.random() < 0.01 else seconds), status, headers

    night = drive(SlowAndHangsNowAndThen(latency=100.0), 8, seconds=8 * 3600)
    assert night.late > 5 and len(night.answers) / night.seconds > 0.9 * 8 / 100


def test_on_a_hanging_server_nobody_outlives_patience_by_more_than_an_answer() -> None:
    night = drive(Hangs(60.0), 64, seconds=86400)
    assert len(night.gave_up) == 64
    assert night.gave_up[-1] <= 60 + DEADLINE + 1800 + DEADLINE


def test_the_end_of_patience_leaves_nobody_waiting_for_a_turn() -> None:
    """The call that tries first is the one that gives up: the others must not wait for it."""
    now = 0.0
    gate = pace.Gate(10, 180, lambda line: None, lambda: now)
    down = MayPass("down", 503)
    first = gate.enter("m")
    wait = gate.failed(first, down)
    now = max(wait, 11.0)
    probe = gate.enter("m")
    with pytest.raises(FatalAPIError, match="no success"):
        gate.failed(probe, down)
    with pytest.raises(FatalAPIError, match="no success"):
        gate.delay("m")


def test_a_long_pause_that_headers_name_is_told_and_tried_before_patience_ends() -> None:
    now, lines = 0.0, list[str]()
    gate = pace.Gate(1800, 180, lines.append, lambda: now)
    told = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "24h",
    }
    gate.answered(gate.enter("m"), told)
    assert len(lines) == 1 and "24 h" in lines[0] and "120 s" in lines[0]
    assert gate.delay("m") == 120
    now = 121.0
    refused = MayPass("slow", 429, told)
    with pytest.raises(FatalAPIError, match="no success for 30 minutes"):
        while now < 3000:
            now += gate.failed(gate.enter("m"), refused) + 120


def test_after_stop_a_long_pause_is_not_waited_for() -> None:
    gate = pace.Gate(1800, 180, lambda line: None)
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
    gate = pace.Gate(1800, 180, lambda line: None)
    gate.answered(gate.enter("m"), {})
    turns = [gate.enter("m") for _ in range(1000)]
    for turn in turns:
        gate.answered(turn, {})
    assert gate.delay("m") == 0


@pytest.mark.parametrize("workers", [8, 64])
@pytest.mark.parametrize("latency", [2.0, 25.0, 80.0, 100.0])
def test_a_server_that_answers_one_at_a_time_is_not_overrun(latency: float, workers: int) -> None:
    night = drive(Queue(latency), workers, seconds=8 * 3600)
    assert len(night.answers) / night.seconds > 0.9 / latency
    assert len(night.lines) <= 20


@pytest.mark.parametrize("latency", [30.0, 100.0, 150.0])
def test_slow_answers_side_by_side_are_all_begun(latency: float) -> None:
    night = drive(Server(latency), 64, seconds=7200)
    assert len(night.answers) / night.seconds > 0.85 * 64 / latency
