"""The shared client of the model's API: one request in, one `Completion` out.

Asks again for what may pass, differently where a part is refused, and counts tokens and money.
"""

import difflib
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoresearch.api.answer import Completion, MayPass, Unusable
from autoresearch.api.exchange import BASE_URL, APIError, Exchange, FatalAPIError, UnknownModel
from autoresearch.api.models import TEMPERATURES, TIMEOUT, ModelCheck, Preflight, Server
from autoresearch.api.pace import Gate
from autoresearch.text import mended

DEFAULT_MODEL = "meta-llama/Llama-3.3-70B-Instruct"
# The vendor has announced the default's removal; its closest stand-in that does not reason.
FALLBACK_MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507"
UNUSABLE_ANSWERS = 3  # to one call, before its experiment is given up
LONE_TRIES = 4  # of a call that fails, before it is seen whether another request is answered
KNOWN_TRIES = 2  # where an earlier call about the same was the only one to fail
OURS = {"model", "messages", "stream", "n", "temperature"}  # fields that nobody adds to a request
PROBE = "Reply with OK."


@dataclass(eq=False)
class Usage:
    """Running totals of billed answers; safe to share between threads."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0  # USD; None as soon as one answer's price is unknown
    charged: float = 0.0  # USD, where an answer of unknown price counts as the dearest so far
    _dearest: float = 0.0
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, prompt: int | None, output: int | None, cost: float | None) -> None:
        with self._lock:
            self.calls += 1
            self.prompt_tokens += prompt or 0
            self.completion_tokens += output or 0
            self.cost = None if cost is None or self.cost is None else self.cost + cost
            self._dearest = max(self._dearest, cost or 0.0)
            self.charged += self._dearest if cost is None else cost


class Client:
    """Safe to share between threads. Raises FatalAPIError when a key or URL cannot work.
    `servers`: key and URL by role, where they are not the shared ones."""

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        models: Mapping[str, str] = {},
        *,
        servers: Mapping[str, tuple[str, str]] = {},
        temperature: float = TEMPERATURES["task"],
        max_tokens: int = 4096,
        extra_body: Mapping[str, Any] = {},
        patience: float = 1800.0,
        deadline: float = TIMEOUT,
        allow_http: bool = False,
        notify: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self.models = {role: models.get(role) or DEFAULT_MODEL for role in TEMPERATURES}
        self.temperatures = {**TEMPERATURES, "task": temperature}
        self.total = Usage()
        self.notify = notify  # may be replaced, by a display for instance
        self._defaulted = {role for role in TEMPERATURES if not models.get(role)}
        self._fields = {"max_tokens": max_tokens, **extra_body}
        for name in OURS & self._fields.keys():
            instead = ": use NEBIUS_TEMPERATURE" if name == "temperature" else ""
            raise FatalAPIError(f"NEBIUS_EXTRA_BODY must not set {name!r}{instead}")
        self._patience = patience
        self._hopeless: set[str] = set()  # user messages that a server failed at, and at no other
        self._lock = threading.Lock()
        shared, known = (api_key, base_url), dict[tuple[str, str], Server]()
        self._servers = {}
        for role in ("task", "agent", "judge"):
            key, url = where = servers.get(role, shared)
            if where not in known:
                prefix = "NEBIUS_" if where == shared else f"NEBIUS_{role.upper()}_"
                gate = Gate(patience, deadline, lambda line: self.notify(line))
                known[where] = Server(Exchange(key, url, deadline, allow_http, prefix), gate)
            self._servers[role] = known[where]

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
        began, attempt, unusable, alone = time.monotonic(), 0, 0, False
        tries = KNOWN_TRIES if user in self._hopeless else LONE_TRIES
        while True:
            attempt += 1
            try:
                return self._ask(role, system, user, spent, attempt)
            except Unusable as error:
                unusable += 1
                if unusable == UNUSABLE_ANSWERS:
                    what = f"{unusable} unusable answers from {self.models[role]}: {error}"
                    raise APIError(what) from error
            except MayPass as failure:
                if alone and failure.alone:
                    self._hopeless.add(user)
                    what = f"{attempt} failures, though another request was answered: {failure}"
                    raise APIError(what) from failure
                if time.monotonic() - began >= self._patience:  # though others had answers
                    raise APIError(f"no success after {attempt} attempts: {failure}") from failure
                alone = failure.alone and attempt % tries == 0 and self._answers(role, spent)
                self._servers[role].gate.sleep(failure.wait)

    def preflight(self, system: str = "", user: str = PROBE) -> Preflight:
        """Prices, then one real call per distinct model; replaces an unknown default.
        Raises FatalAPIError for whatever would fail every later call too."""
        problems = [p for s in dict.fromkeys(self._servers.values()) for p in s.fetch_list()]
        checks: dict[tuple[Server, str], ModelCheck] = {}
        for role, server in self._servers.items():
            if (server, self.models[role]) not in checks:
                check = self._check(role, system, user, problems)
                checks[server, check.id] = check
        self._defaulted = set()  # from now on another model would mix two series
        return Preflight(list(checks.values()), problems)

    def _ask(
        self, role: str, system: str, user: str, spent: Usage | None, attempt: int = 1
    ) -> Completion:
        """One answer; asks again at once where the server wants another model or request."""
        server, model = self._servers[role], self.models[role]
        fields = {**self._fields, "temperature": self.temperatures[role]}
        body, bills = server.body(model, system, user, fields), filter(None, (self.total, spent))
        try:
            completion: Completion = server.ask(body, user, attempt, bills)
        except UnknownModel as error:
            with self._lock:
                if self.models[role] == model:  # no other thread has replaced it
                    self._replace_default(role, error)
        except (APIError, MayPass) as error:
            if line := server.learn(body, error):
                self.notify(line)
        else:
            if completion.finish_reason == "length" and role != "task":
                raise Unusable("the answer was cut off at max_tokens")
            return completion
        return self._ask(role, system, user, spent, attempt)

    def _answers(self, role: str, spent: Usage | None = None) -> bool:
        """Whether the server answers another request."""
        try:
            self._ask(role, "", PROBE, spent)
        except (APIError, MayPass, Unusable) as error:
            if isinstance(error, FatalAPIError):
                raise
            return isinstance(error, Unusable)
        return True

    def _replace_default(self, role: str, error: UnknownModel) -> None:
        """For all roles that use it; raises FatalAPIError where a person has to choose."""
        server, model = self._servers[role], self.models[role]
        if role in self._defaulted and FALLBACK_MODEL in (server.listed or [FALLBACK_MODEL]):
            self.models.update(dict.fromkeys(self._defaulted, FALLBACK_MODEL))
            self._defaulted = set()
            return self.notify(f"{model} is not served: using {FALLBACK_MODEL} instead")
        if not server.listed:
            server.fetch_list()
        own = "" if model == self.models["task"] else f"{role.upper()}_"
        ids = {known.lower(): known for known in server.listed}
        near = difflib.get_close_matches(model.lower(), ids, n=5, cutoff=0.0)
        nearest = "; nearest served: " + ", ".join(ids[n] for n in near) if near else ""
        raise FatalAPIError(f"{error} with NEBIUS_{own}MODEL{nearest}") from error

    def _check(self, role: str, system: str, user: str, problems: list[str]) -> ModelCheck:
        found = Completion("", "", None, None, "")
        try:
            found = self.generate_response(system, user, role=role)
        except FatalAPIError:
            raise
        except APIError as error:
            problems.append(str(error))
            if not isinstance(error.__cause__, Unusable) and not self._answers(role):
                raise FatalAPIError(f"the first call failed: {error}") from error
        server, model = where = self._servers[role], self.models[role]
        roles = tuple(r for r in self.models if (self._servers[r], self.models[r]) == where)
        check = replace(server.listed.get(model, ModelCheck(model)), roles=roles)
        if server.listed and check.price is None:
            problems.append(f"the server names no price for {model}")
        read, written = found.prompt_tokens, found.completion_tokens
        if found.text and not read:
            problems.append(f"the server does not report the tokens that {model} uses")
        return replace(check, seconds=found.seconds, prompt_tokens=read, completion_tokens=written)
