"""What the tests share: a client, its answers, loopback servers that answer as they are told."""

from __future__ import annotations

import io
import itertools
import json
import math
import random
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import responses

from autoresearch.simulator import MODEL, server
from autoresearch.simulator.server import Connection, Reply
from client import Client

BASE = "http://127.0.0.1:9/v1"


CHAT = BASE + "/chat/completions"


KEY = "SECRET-KEY-0123456789-abcdef"


def answer(content: Any = "fine", finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    return {
        "choices": [{"message": {"content": content, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


class Waits(list[float]):
    """The seconds waited, on a clock that only waiting moves."""

    now = 1000.0


def make(url: str = BASE, lines: list[str] | None = None, **kwargs: Any) -> Client:
    notify: Callable[[str], None] = (lambda line: None) if lines is None else lines.append
    kwargs.setdefault("models", {"agent": "m", "task": "m", "judge": "m"})
    return Client(KEY, url, notify=notify, **kwargs)


def sent(http: responses.RequestsMock, number: int = 0) -> dict[str, Any]:
    body = http.calls[number].request.body
    assert isinstance(body, bytes)
    return dict(json.loads(body))


def leaks(error: BaseException | None) -> str:
    """All that an exception and its chain could ever show."""
    shown = ""
    while error is not None:
        shown += "".join(traceback.format_exception(error)) + repr(error.args) + repr(vars(error))
        request = getattr(error, "request", None)
        shown += repr(getattr(request, "headers", ""))
        error = error.__cause__ or error.__context__
    return shown


class Server:
    """A loopback server: `script(connection, number)` is called per request, in a thread."""

    def __init__(self, script: Callable[[socket.socket, int], None]) -> None:
        self._script = script
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self.times: list[float] = []
        self.connections = 0
        self._numbers = itertools.count()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while _read_request(connection):
                    self.times.append(time.monotonic())
                    self._script(connection, next(self._numbers))
            except (OSError, StopIteration):
                pass

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def _read_request(connection: socket.socket) -> bool:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return False
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return True


Serve = Callable[[Callable[[socket.socket, int], None]], Server]


FINE = json.dumps(answer()).encode()


def whole(status: str = "200 OK", body: bytes = FINE, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def reset(connection: socket.socket) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Breaking(Connection):
    """A connection that can be reset, or closed before the last bytes of an answer."""

    def send(self, reply: Reply) -> None:
        fault = reply.headers.get("X-Fault")
        if fault not in ("reset", "truncated"):
            return super().send(reply)
        self.close_connection = True
        if fault == "reset":
            return reset(self.connection)
        kept, self.wfile = self.wfile, io.BytesIO()
        super().send(reply)
        answer, self.wfile = self.wfile.getvalue(), kept
        self.wfile.write(answer[:-20])


class Bucket:
    """A token bucket of `rate` requests per minute that holds ten seconds' worth."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.size = self.level = max(1.0, rate / 6)
        self.checked = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether this request may pass, and the headers that say how things stand."""
        with self._lock:
            now = time.monotonic()
            self.level = min(self.size, self.level + (now - self.checked) * self.rate / 60)
            self.checked = now
            passes = self.level >= 1
            self.level -= passes
            full = math.ceil((self.size - self.level) * 60 / self.rate)
            headers = {
                "x-ratelimit-limit-requests": str(self.rate),
                "x-ratelimit-remaining-requests": str(int(self.level)),
                "x-ratelimit-reset-requests": f"{full}s",
            }
            if not passes:
                wait = math.ceil((1 - self.level) * 60 / self.rate)
                headers["retry-after"] = str(max(1, wait))
            return passes, headers


class Simulator(server.Simulator):
    """The product's simulator, with trouble on demand.

    `latency` and `retry_after` in seconds, `rate_limit` in requests per minute, `faults` maps a
    status ("429") or one of reset, truncated, empty and null to its probability; `models` are the
    only ids then served. `counts` holds the chat requests by outcome: "200", "429", "reset", ...
    """

    handler = Breaking

    def __init__(
        self,
        seed: int = 0,
        port: int = 0,
        *,
        latency: float = 0.0,
        rate_limit: int | None = None,
        faults: Mapping[str, float] | None = None,
        retry_after: float = 0.05,
        models: Sequence[str] = (MODEL,),
    ) -> None:
        super().__init__(seed, port)
        self.latency, self.retry_after, self.models = latency, retry_after, tuple(models)
        self.faults = dict(faults or {})
        self.counts: Counter[str] = Counter()
        self.bucket = Bucket(rate_limit) if rate_limit else None
        self.closing = threading.Event()
        self._requests = itertools.count(1)
        self._lock = threading.Lock()

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        super().__exit__()

    def chat(self, asked: Mapping[str, Any]) -> Reply:
        passes, headers = self.bucket.take() if self.bucket else (True, {})
        reply = self._answer(asked) if passes else Reply(429, {"detail": "Rate limit exceeded"})
        reply = reply._replace(headers={**headers, **reply.headers})
        with self._lock:
            self.counts[reply.headers.get("X-Fault") or str(reply.status)] += 1
        return reply

    def _answer(self, asked: Mapping[str, Any]) -> Reply:
        """The completion, or the fault that is drawn for this request."""
        self.closing.wait(self.latency)
        shares = {**self.faults, "": 1 - sum(self.faults.values())}
        dice = random.Random(f"{self.world.seed} fault {next(self._requests)}")
        (fault,) = dice.choices([*shares], [*shares.values()])
        if fault.isdigit():
            wait = {"retry-after": str(self.retry_after)} if fault in ("429", "503") else {}
            return Reply(int(fault), {"detail": f"simulated fault {fault}"}, wait)
        reply = super().chat(asked)
        if fault in ("empty", "null"):
            reply.body["choices"][0]["message"]["content"] = "" if fault == "empty" else None
        return reply._replace(headers={"X-Fault": fault}) if fault else reply
