"""What the tests of client, wire and pace share: a client, its answers, a loopback server."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import responses

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
