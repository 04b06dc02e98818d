"""What the tests share: fixtures; no variable of the developer's own ever reaches a test."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import responses

from autoresearch.api import pace
from autoresearch.api.exchange import Interrupted
from tests.servers import (
    Server,
    Waits,
)


@pytest.fixture(autouse=True)
def no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NEBIUS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Waiting takes no time; what was waited is recorded."""
    waits = Waits()

    def pause(gate: pace.Gate, seconds: float) -> None:
        if gate.stopped:
            raise Interrupted
        waits.append(seconds)
        waits.now += seconds

    def slow_init(gate: pace.Gate, patience: float, deadline: float, notify: Any) -> None:
        original(gate, patience, deadline, notify, lambda: waits.now)

    original = pace.Gate.__init__
    monkeypatch.setattr(pace.Gate, "__init__", slow_init)
    monkeypatch.setattr(pace.Gate, "_pause", pause)
    return waits


@pytest.fixture
def http() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket, int], None]], Server]]:
    servers: list[Server] = []

    def start(script: Callable[[socket.socket, int], None]) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
