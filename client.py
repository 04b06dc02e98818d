"""The shared client of the model's API: one request in, one `Completion` out.

Joins exchange and gate, asks again for what may pass, and counts tokens and money; knows which
server and model each role uses. Reads no .env.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from autoresearch.api.answer import NONE, Completion, MayPass, Unusable, read_answer, tokens
from autoresearch.api.exchange import (
    BASE_URL,
    APIError,
    Exchange,
    FatalAPIError,
    UnknownModel,
    WrongSetting,
)
from autoresearch.api.models import (
    DEFAULT_MODEL,
    FALLBACK_MODEL,
    INSTEAD,
    TEMPERATURES,
    TIMEOUT,
    Catalogue,
    ModelCheck,
    Preflight,
    refused_part,
)
from autoresearch.api.pace import Gate
from autoresearch.text import mended

UNUSABLE_ANSWERS = 3  # to one call, before its experiment is given up
LONE_TRIES = 4  # of one call that fails where another request is answered
KNOWN_TRIES = 2  # where an earlier call about the same failed so
PROBE = "Reply with OK."

T = TypeVar("T")


class Usage:
    """Running totals of billed answers; safe to share between threads."""

    def __init__(self) -> None:
        self.calls = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cost: float | None = 0.0  # USD; None as soon as one answer's price is unknown
        self.charged = 0.0  # USD, where an answer of unknown price counts as the dearest so far
        self._dearest = 0.0
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(
        self, prompt_tokens: int | None, completion_tokens: int | None, cost: float | None
    ) -> None:
        with self._lock:
            self.calls += 1
            self.prompt_tokens += prompt_tokens or 0
            self.completion_tokens += completion_tokens or 0
            self.cost = None if cost is None or self.cost is None else self.cost + cost
            self._dearest = max(self._dearest, cost or 0.0)
            self.charged += self._dearest if cost is None else cost


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Server:
    """One API server: its exchanges, who may begin one, its models, and what each has refused."""

    def __init__(self, exchange: Exchange, gate: Gate) -> None:
        self.exchange, self.gate = exchange, gate
        self.catalogue = Catalogue()
        self.refused: dict[str, set[str]] = defaultdict(set)  # by model, parts of a request


class Client:
    """Safe to share between threads. Raises FatalAPIError when a key or URL cannot work."""

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        models: Mapping[str, str] | None = None,
        *,
        servers: Mapping[str, tuple[str, str]] | None = None,
        temperature: float = TEMPERATURES["task"],
        max_tokens: int = 4096,
        extra_body: Mapping[str, Any] | None = None,
        patience: float = 1800.0,
        deadline: float = TIMEOUT,
        allow_http: bool = False,
        notify: Callable[[str], None] = _to_stderr,
    ) -> None:
        """`servers`: key and URL by role, where they are not the shared ones."""
        chosen = {role: model for role, model in (models or {}).items() if model}
        self.models = {role: chosen.get(role, DEFAULT_MODEL) for role in TEMPERATURES}
        self.temperatures = {**TEMPERATURES, "task": temperature}
        self.total = Usage()
        self.notify = notify  # may be replaced, by a display for instance
        self._defaulted = set(TEMPERATURES) - set(chosen)
        self._max_tokens, self._extra = max_tokens, _checked_fields(extra_body or {})
        self._patience = patience
        self._hopeless: set[str] = set()  # user messages that a server failed at, and at no other
        self._lock = threading.Lock()
        shared, known = (api_key, base_url), dict[tuple[str, str], _Server]()
        self._servers = {}
        for role in ("task", "agent", "judge"):
            key, url = where = (servers or {}).get(role, shared)
            if where not in known:
                prefix = "NEBIUS_" if where == shared else f"NEBIUS_{role.upper()}_"
                exchange = Exchange(key, url, deadline, allow_http, prefix)
                known[where] = _Server(exchange, Gate(patience, deadline, self._tell))
            self._servers[role] = known[where]

    def _tell(self, line: str) -> None:
        self.notify(line)

    def stop(self) -> None:
        """Ends every wait with Interrupted; calls under way go on. Takes no lock: signal-safe."""
        for server in self._servers.values():
            server.gate.stopped = True

    def generate_response(
        self, system: str, user: str, *, role: str = "task", spent: Usage | None = None
    ) -> Completion:
        """The model's answer to one user message; an empty `system` sends no system message.

        Adds every billed answer to `total` and `spent`; waits and asks again for what may pass.
        Raises APIError, FatalAPIError, and Interrupted when it had to wait after `stop`.
        """
        system, user = mended(system), mended(user)
        began, attempt, unusable, doubted = time.monotonic(), 0, 0, False
        tries = KNOWN_TRIES if user in self._hopeless else LONE_TRIES
        while True:
            attempt += 1
            try:
                return self._ask(role, system, user, spent, attempt)
            except Unusable as error:
                unusable += 1
                if unusable == UNUSABLE_ANSWERS:
                    raise APIError(
                        f"{unusable} unusable answers from {self.models[role]}: {error}"
                    ) from error
            except MayPass as failure:
                if doubted and failure.alone:
                    self._hopeless.add(user)
                    raise APIError(
                        f"{attempt} failures, though another request was answered: {failure}"
                    ) from failure
                if (
                    time.monotonic() - began >= self._patience
                ):  # though others had answers meanwhile
                    raise APIError(f"no success after {attempt} attempts: {failure}") from failure
                if failure.alone and attempt % tries == 0:
                    doubted = self._answers(role)
                self._servers[role].gate.sleep(failure.wait)

    def _answers(self, role: str) -> bool:
        """Whether the server answers another request."""
        try:
            self._ask(role, "", PROBE, None)
        except Unusable:
            return True
        except FatalAPIError:
            raise
        except (APIError, MayPass):
            return False
        return True

    def preflight(self, system: str = "", user: str = PROBE) -> Preflight:
        """Prices, then one real call per distinct model; replaces an unknown default.

        Raises FatalAPIError for whatever would fail every later call too.
        """
        problems: list[str] = []
        for server in dict.fromkeys(self._servers.values()):
            problems += self._fetch_catalogue(server)
        checks: dict[tuple[_Server, str], ModelCheck] = {}
        for role in self.models:
            if (self._servers[role], self.models[role]) not in checks:
                check = self._check(role, system, user, problems)
                checks[self._servers[role], check.id] = check
        self._defaulted = set()  # from now on another model would mix two series
        return Preflight(list(checks.values()), problems)

    # --- one call

    def _ask(
        self, role: str, system: str, user: str, spent: Usage | None, attempt: int = 1
    ) -> Completion:
        server, model = self._servers[role], self.models[role]
        body = self._body(role, system, user)

        def call() -> tuple[Completion, Mapping[str, str]]:
            began = time.monotonic()
            data, headers = server.exchange.post(body)
            self._count(server, model, tokens(data), spent)
            return read_answer(data, model, time.monotonic() - began), headers

        try:
            completion = self._take_turn(server, model, user, call, attempt)
        except UnknownModel as error:
            if not self._fall_back(role, model):
                if not server.catalogue:
                    self._fetch_catalogue(server)
                raise FatalAPIError(f"{error}{server.catalogue.nearest(model)}") from error
        except (APIError, MayPass) as error:
            if isinstance(error, FatalAPIError) or not self._refuses(role, str(error), body):
                raise
        else:
            if completion.finish_reason == "length" and role != "task":
                raise Unusable("the answer was cut off at max_tokens")
            return completion
        return self._ask(role, system, user, spent, attempt)

    def _body(self, role: str, system: str, user: str) -> dict[str, Any]:
        refused = self._servers[role].refused[self.models[role]]
        if system and "system" in refused:
            system, user = "", f"{system}\n\n{user}"
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        limits = [n for n in ("max_tokens", "max_completion_tokens") if n not in refused]
        limits = [] if "max_completion_tokens" in self._extra else limits
        return {
            "model": self.models[role],
            "messages": messages,
            "stream": False,
            **({} if "temperature" in refused else {"temperature": self.temperatures[role]}),
            **dict.fromkeys(limits[:1], self._max_tokens),
            **self._extra,
        }

    def _refuses(self, role: str, said: str, body: dict[str, Any]) -> bool:
        """Whether the server does not take a part of the request, and the next goes without it."""
        part, model = refused_part(said, body), self.models[role]
        if not part:
            return False
        with self._lock:
            refused = self._servers[role].refused[model]
            told = part in refused
            refused.add(part)
        if not told:
            self.notify(f"{model} does not take {part}: {INSTEAD[part]} from now on")
        user = body["messages"][-1]["content"]
        system = body["messages"][0]["content"] if len(body["messages"]) > 1 else ""
        return self._body(role, system, user) != body

    def _take_turn(
        self,
        server: _Server,
        model: str,
        about: str,
        call: Callable[[], tuple[T, Mapping[str, str]]],
        attempt: int = 1,
    ) -> T:
        """One exchange, when the gate lets it begin; tells the gate how it went."""
        turn = server.gate.enter(model, about)
        try:
            result, headers = call()
        except (MayPass, WrongSetting) as error:
            trouble = error if isinstance(error, MayPass) else MayPass(str(error))
            # what has worked before is no wrong setting: a gateway is in trouble
            if isinstance(error, WrongSetting) and not server.gate.worked(model):
                server.gate.answered(turn, NONE, worked=False)
                raise
            trouble.wait = server.gate.failed(turn, trouble, attempt)
            raise trouble from None
        except BaseException:  # refused for good, but the server is up
            server.gate.answered(turn, NONE, worked=False)
            raise
        server.gate.answered(turn, headers)
        return result

    def _count(
        self,
        server: _Server,
        model: str,
        billed: tuple[int | None, int | None],
        spent: Usage | None,
    ) -> None:
        (prompt, output), price, cost = billed, server.catalogue.price(model), None
        if price and prompt is not None and output is not None:
            cost = price[0] * prompt + price[1] * output
        for usage in (self.total, spent):
            if usage is not None:
                usage.add(prompt, output, cost)

    # --- models

    def _fall_back(self, role: str, unknown: str) -> bool:
        """Replaces the unknown default, for all roles that use it; a chosen model never."""
        catalogue = self._servers[role].catalogue
        with self._lock:
            if role not in self._defaulted or unknown == FALLBACK_MODEL:
                return False
            if catalogue and FALLBACK_MODEL not in catalogue:
                return False
            if self.models[role] == unknown:
                self.models.update(dict.fromkeys(self._defaulted, FALLBACK_MODEL))
                self.notify(f"{unknown} is not served: using {FALLBACK_MODEL} instead")
        return True

    def _fetch_catalogue(self, server: _Server) -> list[str]:
        """Reads the server's list of models; returns the problem met, which is never fatal."""
        try:
            server.catalogue.read(self._take_turn(server, "", "", server.exchange.get_models))
        except (MayPass, Unusable, APIError) as error:
            return [f"no prices and limits: {error}"]
        return [] if server.catalogue else ["no prices and limits: the server lists no models"]

    def _check(self, role: str, system: str, user: str, problems: list[str]) -> ModelCheck:
        completion = None
        try:
            completion = self.generate_response(system, user, role=role)
        except FatalAPIError:
            raise
        except APIError as error:
            problems.append(str(error))
            if not isinstance(error.__cause__, Unusable) and not self._answers(role):
                raise FatalAPIError(f"the first call failed: {error}") from error
        server, model = self._servers[role], self.models[role]
        catalogue = server.catalogue
        if catalogue and not catalogue.price(model):
            problems.append(f"the server names no price for {model}")
        if completion and not completion.prompt_tokens:
            problems.append(f"the server does not report the tokens that {model} uses")
        return ModelCheck(
            id=model,
            roles=tuple(
                r for r, m in self.models.items() if (self._servers[r], m) == (server, model)
            ),
            price=catalogue.price(model),
            context_length=catalogue.context_length(model),
            requests_per_minute=catalogue.requests_per_minute(model),
            seconds=completion.seconds if completion else 0.0,
            prompt_tokens=completion.prompt_tokens if completion else None,
            completion_tokens=completion.completion_tokens if completion else None,
        )


def _checked_fields(extra: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("model", "messages", "stream", "n"):
        if name in extra:
            raise FatalAPIError(f"NEBIUS_EXTRA_BODY must not set {name!r}")
    if "temperature" in extra:  # it would be the judge's and the agent's too
        raise FatalAPIError("NEBIUS_EXTRA_BODY must not set 'temperature': use NEBIUS_TEMPERATURE")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FatalAPIError(f"NEBIUS_EXTRA_BODY is not plain JSON: {error}") from error
    return dict(extra)
