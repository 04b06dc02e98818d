"""The shared client of the model's API: one request in, one `Completion` out.

Joins the wire and the gate, asks again for what may pass, and counts tokens and money; knows which
model each role uses and what it costs. Reads no .env.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from autoresearch.api.answer import Completion, read_answer, read_number, read_whole
from autoresearch.api.exchange import (
    BASE_URL,
    APIError,
    Exhausted,
    FatalAPIError,
    Interrupted,
    MayPass,
    Reply,
    UnknownModel,
    Unusable,
    Wire,
)
from autoresearch.api.models import (
    DEFAULT_MODEL,
    FALLBACK_MODEL,
    TEMPERATURES,
    ModelCheck,
    Preflight,
    price_of,
)
from autoresearch.api.pace import Gate

__all__ = [
    "BASE_URL",
    "TEMPERATURES",
    "APIError",
    "Client",
    "Completion",
    "FatalAPIError",
    "Interrupted",
    "ModelCheck",
    "Preflight",
    "Usage",
]

UNUSABLE_ANSWERS = 3  # to one call, before its experiment is given up

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


class Client:
    """Safe to share between threads. Raises FatalAPIError when key or base URL cannot work."""

    def __init__(
        self,
        api_key: str,
        base_url: str = BASE_URL,
        models: Mapping[str, str] | None = None,
        *,
        temperature: float = TEMPERATURES["task"],
        max_tokens: int = 4096,
        extra_body: Mapping[str, Any] | None = None,
        patience: float = 1800.0,
        deadline: float = 180.0,
        allow_http: bool = False,
        notify: Callable[[str], None] = _to_stderr,
    ) -> None:
        chosen = {role: model for role, model in (models or {}).items() if model}
        self.models = {role: chosen.get(role, DEFAULT_MODEL) for role in TEMPERATURES}
        self.temperatures = {**TEMPERATURES, "task": temperature}
        self.total = Usage()
        self._defaulted = set(TEMPERATURES) - set(chosen)
        self._fields = {"max_tokens": max_tokens, **_checked_fields(extra_body or {})}
        self._wire = Wire(api_key, base_url, deadline, allow_http)
        self.notify = notify  # may be replaced, by a display for instance
        self._gate = Gate(patience, lambda line: self.notify(line))
        self._patience = patience
        self._catalogue: dict[str, dict[str, Any]] = {}  # model id -> the server's entry
        self._lock = threading.Lock()

    def generate_response(
        self, system: str, user: str, *, role: str = "task", spent: Usage | None = None
    ) -> Completion:
        """The model's answer to one user message; an empty `system` sends no system message.

        Adds every billed answer to `total` and `spent`; waits and asks again for what may pass.
        Raises APIError, FatalAPIError, and Interrupted when it had to wait after `stop`.
        """
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        for left in reversed(range(UNUSABLE_ANSWERS)):
            try:
                return self._persist(lambda: self._ask(role, messages, spent))
            except Unusable as error:
                if not left:
                    raise Exhausted(
                        f"{UNUSABLE_ANSWERS} unusable answers from {self.models[role]}: {error}"
                    ) from error
        raise AssertionError("not reached")

    def preflight(self, system: str = "", user: str = "Reply with OK.") -> Preflight:
        """Prices, then one real call per distinct model; replaces an unknown default.

        Raises FatalAPIError for whatever would fail every later call too.
        """
        problems = self._fetch_catalogue()
        checks: list[ModelCheck] = []
        for role in self.models:
            if self.models[role] not in [check.id for check in checks]:
                checks.append(self._check(role, system, user, problems))
        self._defaulted = set()  # from now on another model would mix two series
        return Preflight(checks, problems)

    def stop(self) -> None:
        """Ends every wait with Interrupted; calls under way go on. Takes no lock: signal-safe."""
        self._gate.stopped = True

    # --- one call

    def _persist(self, attempt: Callable[[], T]) -> T:
        """The first outcome of `attempt` that is no MayPass, however long that takes."""
        import tenacity  # 30 ms that --help need not pay

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(MayPass),
            wait=self._wait_after,
            sleep=self._gate.sleep,
        )(attempt)

    def _wait_after(self, state: Any) -> float:
        failure: MayPass = state.outcome.exception()
        if state.seconds_since_start >= self._patience:  # though others had answers meanwhile
            raise APIError(f"no success after {state.attempt_number} attempts: {failure}")
        return failure.wait

    def _ask(self, role: str, messages: list[dict[str, str]], spent: Usage | None) -> Completion:
        model = self.models[role]
        body = {"model": model, "messages": messages, "temperature": self.temperatures[role]}
        try:
            data = self._take_turn(model, lambda: self._wire.post(body | self._fields))
        except UnknownModel as error:
            if self._fall_back(role, model):
                return self._ask(role, messages, spent)
            raise FatalAPIError(f"{error}{self._nearest(model)}") from error
        completion, complaint = read_answer(data, model)
        self._count(completion, spent)
        if completion.finish_reason == "length" and role != "task":
            complaint = complaint or "the answer was cut off at max_tokens"
        if complaint:
            raise Unusable(complaint)
        return completion

    def _take_turn(self, model: str, call: Callable[[], Reply]) -> Any:
        """One exchange, when the gate lets it begin; tells the gate how it went."""
        turn = self._gate.enter(model)
        headers: Mapping[str, str] = {}
        try:
            data, headers = call()
        except MayPass as failure:
            failure.wait = self._gate.failed(turn, failure)
            raise
        except BaseException:  # refused for good, but the server is up
            self._gate.answered(turn, headers)
            raise
        self._gate.answered(turn, headers)
        return data

    def _count(self, completion: Completion, spent: Usage | None) -> None:
        prompt, output = completion.prompt_tokens, completion.completion_tokens
        price = price_of(self._catalogue.get(completion.model, {}))
        cost = None
        if price and prompt is not None and output is not None:
            cost = price[0] * prompt + price[1] * output
        for usage in (self.total, spent):
            if usage is not None:
                usage.add(prompt, output, cost)

    def _fall_back(self, role: str, unknown: str) -> bool:
        """Replaces the unknown default, for all roles that use it; a chosen model never."""
        with self._lock:
            if role not in self._defaulted or unknown == FALLBACK_MODEL:
                return False
            if self._catalogue and FALLBACK_MODEL not in self._catalogue:
                return False
            if self.models[role] == unknown:
                self.models.update(dict.fromkeys(self._defaulted, FALLBACK_MODEL))
                self.notify(f"{unknown} is not served: using {FALLBACK_MODEL} instead")
        return True

    # --- models and prices

    def _fetch_catalogue(self, tries: int = 3) -> list[str]:
        """Reads the server's list of models; returns the problem met, which is never fatal."""
        try:
            data = self._take_turn("", self._wire.get_models)
        except (MayPass, Unusable, APIError) as error:
            if isinstance(error, MayPass) and error.status and tries > 1:
                self._gate.sleep(error.wait)
                return self._fetch_catalogue(tries - 1)
            return [f"no prices and limits: {error}"]
        entries = data.get("data") if isinstance(data, dict) else data
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                self._catalogue[entry["id"]] = entry
        return [] if self._catalogue else ["no prices and limits: the server lists no models"]

    def _check(self, role: str, system: str, user: str, problems: list[str]) -> ModelCheck:
        spent = Usage()
        began = time.monotonic()
        try:
            self.generate_response(system, user, role=role, spent=spent)
        except Exhausted as error:
            problems.append(str(error))
        except FatalAPIError:
            raise
        except APIError as error:
            raise FatalAPIError(f"the first call failed: {error}") from error
        seconds = time.monotonic() - began
        model = self.models[role]
        entry = self._catalogue.get(model, {})
        if self._catalogue and not price_of(entry):
            problems.append(f"the server names no price for {model}")
        if not spent.tokens:
            problems.append(f"the server does not report the tokens that {model} uses")
        limits = entry.get("per_request_limits")
        return ModelCheck(
            id=model,
            roles=tuple(r for r, m in self.models.items() if m == model),
            price=price_of(entry),
            context_length=read_whole(entry.get("context_length", entry.get("max_model_len"))),
            requests_per_minute=read_number(
                limits.get("requests_per_minute") if isinstance(limits, dict) else None
            ),
            seconds=seconds,
            prompt_tokens=spent.prompt_tokens or None,
            completion_tokens=spent.completion_tokens or None,
        )

    def _nearest(self, model: str) -> str:
        """The tail of the error about an unknown model: what the server does serve."""
        import difflib

        if not self._catalogue:
            self._fetch_catalogue()
        ids = {known.lower(): known for known in self._catalogue}
        near = difflib.get_close_matches(model.lower(), ids, n=5, cutoff=0.0)
        return "; nearest served: " + ", ".join(ids[n] for n in near) if near else ""


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
