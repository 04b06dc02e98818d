"""The shared client of the model's API: one request in, one `Completion` out.

Sorts every outcome into an answer, a failure that may pass (all threads wait together, then it asks
again), `APIError` (spoils one experiment) or `FatalAPIError` (spoils all), keeps to the pace that
the server allows, and counts tokens and money. Reads no .env; the key stands in the request's
header and nowhere else.
"""

from __future__ import annotations

import email.utils
import html
import http
import io
import ipaddress
import json
import math
import os
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

BASE_URL = "https://api.tokenfactory.nebius.com/v1"
DEFAULT_MODEL = "meta-llama/Llama-3.3-70B-Instruct"
# The vendor has announced the default's removal; its closest stand-in that does not reason.
FALLBACK_MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507"
TEMPERATURES = {"agent": 1.0, "task": 0.7, "judge": 0.0}

CONNECT_SECONDS = 10.0
MAX_BYTES = 10_000_000  # of one response
BACKOFF_SECONDS = (1.0, 60.0)  # shortest and longest wait that the server did not name
LONGEST_WAIT = 120.0  # seconds, whatever the server names
SETUP_PATIENCE = 10.0  # seconds without a connection, before anything has ever succeeded
UNUSABLE_ANSWERS = 3  # to one call, before its experiment is given up
POLL_SECONDS = 0.25  # how late a waiting call may notice stop()

T = TypeVar("T")


class APIError(Exception):
    """Spoils this experiment: this request cannot succeed, others may."""


class FatalAPIError(APIError):
    """Spoils all: no request can succeed until a person changes something."""


class Interrupted(Exception):
    """`Client.stop` was called while a call waited."""


class _MayPass(Exception):
    """Worth asking again later. `after`: seconds that the server asked for; `setup`: a wrong
    setting looks like this too; `told`: the server itself, not just this call, is in trouble."""

    def __init__(
        self, what: str, status: int = 0, after: float | None = None, setup: bool = False
    ) -> None:
        super().__init__(what)
        self.status = status
        self.after = after
        self.setup = setup
        self.told = setup or after is not None or status in (429, 503)


class _Unusable(Exception):
    """The server answered and billed, but not with text that can be used."""


class _UnknownModel(FatalAPIError):
    """The server does not know the model's id."""


class Usage:
    """Running totals of billed answers; safe to share between threads."""

    def __init__(self) -> None:
        self.calls = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cost: float | None = 0.0  # USD; None as soon as one answer's price is unknown
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


@dataclass(frozen=True)
class Completion:
    """One usable answer. `text` is never empty; token counts are None when the server gave none."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str
    reasoning: str = ""


@dataclass(frozen=True)
class ModelCheck:
    """What the first call and the server's list tell about one model; None: not known."""

    id: str
    roles: tuple[str, ...]
    price: tuple[float, float] | None  # USD per prompt and completion token
    context_length: int | None
    requests_per_minute: float | None
    seconds: float  # of the call
    prompt_tokens: int | None  # of the call
    completion_tokens: int | None


@dataclass(frozen=True)
class Preflight:
    models: list[ModelCheck]
    problems: list[str] = field(default_factory=list)  # one line each; none stops the run


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
        self._wire = _Wire(_checked_key(api_key), base_url, deadline, allow_http)
        self._fields = {"max_tokens": max_tokens, **_checked_fields(extra_body or {})}
        self._notify = notify
        self._gate = _Gate(patience)
        self._catalogue: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def generate_response(
        self, system: str, user: str, *, role: str = "task", spent: Usage | None = None
    ) -> Completion:
        """The model's answer to one user message; an empty `system` sends no system message.

        Adds every billed answer to `total` and to `spent`. Waits and asks again for what may pass.
        Raises APIError, FatalAPIError, and Interrupted after `stop`.
        """
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        for left in reversed(range(UNUSABLE_ANSWERS)):
            try:
                return self._persist(lambda: self._ask(role, messages, spent))
            except _Unusable as error:
                if not left:
                    raise APIError(
                        f"{UNUSABLE_ANSWERS} unusable answers from {self.models[role]}: {error}"
                    ) from error
        raise AssertionError("not reached")

    def preflight(self) -> Preflight:
        """One real small call per distinct model, prices before it; replaces an unknown default.

        Raises FatalAPIError for whatever would fail every later call too.
        """
        problems = self._fetch_catalogue()
        checks: list[ModelCheck] = []
        for role in self.models:
            if self.models[role] not in [check.id for check in checks]:
                checks.append(self._check(role, problems))
        return Preflight(checks, problems)

    def price(self, role: str) -> tuple[float, float] | None:
        """USD per prompt and per completion token; None when the server did not tell."""
        return _price(self._catalogue.get(self.models[role], {}))

    def stop(self) -> None:
        """Ends every wait with Interrupted; calls under way go on. Takes no lock: signal-safe."""
        self._gate.stopped = True

    # --- one call

    def _persist(self, attempt: Callable[[], T]) -> T:
        """The first outcome of `attempt` that is no _MayPass; between two, the gate's waits."""
        import tenacity  # 30 ms that --help need not pay

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_MayPass),
            wait=lambda state: self._wait_after(state.outcome.exception()),
            sleep=self._gate.sleep,
        )(attempt)

    def _wait_after(self, failure: Any) -> float:
        seconds, line = self._gate.failed(failure)
        if line:
            self._notify(line)
        return seconds

    def _ask(self, role: str, messages: list[dict[str, str]], spent: Usage | None) -> Completion:
        model = self.models[role]
        body = {
            "model": model,
            "messages": messages,
            "temperature": self.temperatures[role],
            **self._fields,
        }
        try:
            data = self._turn(model, lambda: self._wire.post(body))
        except _UnknownModel as error:
            if self._fall_back(role, model):
                return self._ask(role, messages, spent)
            raise FatalAPIError(f"{error}{self._nearest(model)}") from error
        completion, complaint = _read_answer(data, model)
        self._count(completion, spent)
        if completion.finish_reason == "length" and role != "task":
            complaint = complaint or "the answer was cut off at max_tokens"
        if complaint:
            raise _Unusable(complaint)
        return completion

    def _turn(self, model: str, call: Callable[[], tuple[Any, Mapping[str, str]]]) -> Any:
        """One exchange, when the gate lets it begin; tells the gate how it went."""
        turn = self._gate.enter(model)
        headers: Mapping[str, str] = {}
        try:
            data, headers = call()
        except _MayPass as failure:
            self._gate.leave(turn, headers, failed=True)
            failure.turn = turn  # type: ignore[attr-defined]
            raise
        except BaseException:
            self._gate.leave(turn, headers)
            raise
        self._gate.leave(turn, headers)
        return data

    def _count(self, completion: Completion, spent: Usage | None) -> None:
        prompt, output = completion.prompt_tokens, completion.completion_tokens
        price = _price(self._catalogue.get(completion.model, {}))
        cost = None
        if price and prompt is not None and output is not None:
            cost = price[0] * prompt + price[1] * output
        self.total.add(prompt, output, cost)
        if spent is not None:
            spent.add(prompt, output, cost)

    def _fall_back(self, role: str, unknown: str) -> bool:
        """Replaces the unknown default model, for all roles that use it; a chosen one never."""
        with self._lock:
            if role not in self._defaulted or unknown == FALLBACK_MODEL:
                return False
            if self.models[role] == unknown:
                self.models.update(dict.fromkeys(self._defaulted, FALLBACK_MODEL))
                self._notify(f"{unknown} is not served any more: using {FALLBACK_MODEL} instead")
        return True

    # --- models and prices

    def _fetch_catalogue(self) -> list[str]:
        """Reads the server's list of models; returns the problems met, which are never fatal."""
        try:
            data, _ = self._wire.get_models()
        except (_MayPass, APIError) as error:
            return [f"no prices and limits: {error}"]
        entries = data.get("data") if isinstance(data, dict) else data
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                self._catalogue[entry["id"]] = entry
        return [] if self._catalogue else ["no prices and limits: the server lists no models"]

    def _check(self, role: str, problems: list[str]) -> ModelCheck:
        spent = Usage()
        began = time.monotonic()
        try:
            self.generate_response("", "Reply with OK.", role=role, spent=spent)
        except FatalAPIError:
            raise
        except APIError as error:
            problems.append(str(error))
        model = self.models[role]
        entry = self._catalogue.get(model, {})
        if self._catalogue and _price(entry) is None:
            problems.append(f"the server names no price for {model}")
        limits = entry.get("per_request_limits")
        return ModelCheck(
            id=model,
            roles=tuple(r for r, m in self.models.items() if m == model),
            price=_price(entry),
            context_length=_count_of(entry.get("context_length", entry.get("max_model_len"))),
            requests_per_minute=_number(
                limits.get("requests_per_minute") if isinstance(limits, dict) else None
            ),
            seconds=time.monotonic() - began,
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


# --- request


def _checked_key(key: str) -> str:
    key = key.strip()
    for place, character in enumerate(key, 1):
        if not "!" <= character <= "~":
            raise FatalAPIError(
                f"NEBIUS_API_KEY has a character at place {place} that no key has "
                f"(U+{ord(character):04X}): copy the key again"
            )
    if not key:
        raise FatalAPIError("NEBIUS_API_KEY is empty")
    return key


def _checked_fields(extra: Mapping[str, Any]) -> dict[str, Any]:
    for name in ("model", "messages", "stream"):
        if name in extra:
            raise FatalAPIError(f"NEBIUS_EXTRA_BODY must not set {name!r}")
    try:
        json.dumps(extra, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise FatalAPIError(f"NEBIUS_EXTRA_BODY is not plain JSON: {error}") from error
    return dict(extra)


def _api_root(base_url: str, allow_http: bool) -> str:
    """The URL that /chat/completions is appended to; /v1 is added only where no path stands."""
    wrong = f"NEBIUS_BASE_URL is not a URL such as {BASE_URL}: {_one_line(base_url)!r}"
    try:
        parts = urlsplit(base_url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise FatalAPIError(wrong) from error
    if parts.scheme not in ("http", "https") or not host:
        raise FatalAPIError(wrong)
    if "@" in parts.netloc:
        raise FatalAPIError("NEBIUS_BASE_URL must not hold a user name or password")
    if parts.scheme == "http" and not (allow_http or _is_loopback(host)):
        raise FatalAPIError(
            f"the key would travel unencrypted to {host}: use https in NEBIUS_BASE_URL, "
            "or allow it with NEBIUS_ALLOW_HTTP=1"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return parts._replace(path=path or "/v1", fragment="").geturl()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _Deadline(io.RawIOBase):
    """A socket's reader whose time-out covers the whole answer instead of each read."""

    def __init__(self, sock: socket.socket, raw: Any) -> None:
        self._sock, self._raw = sock, raw
        self._ends = time.monotonic() + (sock.gettimeout() or math.inf)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer's time is over")
        self._sock.settimeout(None if left == math.inf else left)
        return self._raw.readinto(buffer)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Deadline(sock, self.fp.detach()))


class _HTTPConnection(HTTPConnection):
    response_class = _Response


class _HTTPSConnection(HTTPSConnection):
    response_class = _Response


def _socket_options() -> list[tuple[int, int, int]]:
    """Small packets at once, and signs of life every 30 s so that no NAT forgets a long answer."""
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), 30))
    return options


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        secure = pool.scheme == "https"
        pool.ConnectionCls = _HTTPSConnection if secure else _HTTPConnection
        pool.conn_kw["socket_options"] = _socket_options()
        return pool


class _Wire:
    """HTTP exchanges with one server, sorted by how they ended.

    An adapter without a Session: no cookies, no .netrc, no redirects, and urllib3's pool gives each
    call under way a connection of its own, last used first.
    """

    def __init__(self, key: str, base_url: str, deadline: float, allow_http: bool) -> None:
        self._key = key
        self._deadline = deadline
        root = urlsplit(_api_root(base_url, allow_http))
        self._host = root.netloc
        self._adapter = _Adapter(pool_maxsize=256)
        self._chat = self._prepared("POST", root._replace(path=root.path + "/chat/completions"))
        query = "&".join(filter(None, [root.query, "verbose=true"]))
        self._models = self._prepared("GET", root._replace(path=root.path + "/models", query=query))
        local = _is_loopback(root.hostname or "")
        self._proxies = {} if local else requests.utils.get_environ_proxies(root.geturl())
        self._verify: str | bool = next(
            filter(None, map(os.environ.get, ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))), True
        )

    def _prepared(self, method: str, url: Any) -> requests.PreparedRequest:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # answers are small; nothing to unpack, no bombs
            "User-Agent": requests.utils.default_user_agent(),
        }
        try:
            return requests.Request(method, url.geturl(), headers=headers).prepare()
        except (requests.RequestException, ValueError) as error:
            raise FatalAPIError(f"NEBIUS_BASE_URL is not a URL: {url.geturl()!r}") from error

    def post(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, str]]:
        """The JSON object of a 200 and the response's headers."""
        request = self._chat.copy()
        request.body = json.dumps(body, allow_nan=False).encode()
        request.headers["Content-Length"] = str(len(request.body))
        return self._sorted(request)

    def get_models(self) -> tuple[Any, Mapping[str, str]]:
        return self._sorted(self._models, timeout=30.0)

    def _sorted(
        self, request: requests.PreparedRequest, timeout: float = math.inf
    ) -> tuple[Any, Mapping[str, str]]:
        status, headers, content = self._exchange(request, min(timeout, self._deadline))
        data = _parsed(content)
        error = isinstance(data, dict) and data.get("error")
        if 200 <= status < 300 and data is not None and not error:
            return data, headers
        raise _failure(status, headers, content, data, str(request.url))

    def _exchange(
        self, request: requests.PreparedRequest, deadline: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        timeout = urllib3.Timeout(total=deadline, connect=min(CONNECT_SECONDS, deadline))
        began = time.monotonic()
        try:
            response = self._adapter.send(
                request, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies
            )
            content = _read_body(response)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            OSError,
            HTTPException,
        ) as e:
            late = time.monotonic() - began >= deadline
            failure = _broken(e, self._host, f"{deadline:g} s" if late else "")
        else:
            secret = self._key.encode()
            if len(secret) >= 8 and secret in content:
                content = content.replace(secret, b"[key]")
            return response.status_code, response.headers, content
        raise failure  # outside the handler: its exception holds the request and so the key


def _read_body(response: requests.Response) -> bytes:
    chunks, size = [], 0
    for chunk in response.iter_content(65536):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            response.close()
            raise _TooLarge
    return b"".join(chunks)


class _TooLarge(OSError):
    pass


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


# --- sorting

# What an `error` object's code says, where it says more than the status (or the status is 200).
CODES = {
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "context_length_exceeded": 400,
}


def _broken(error: Exception, host: str, late: str) -> Exception:
    """The failure for an exchange that ended without a whole response."""
    if isinstance(error, _TooLarge):
        return _Unusable(f"the answer is larger than {MAX_BYTES // 1_000_000} MB")
    if late:
        return _MayPass(f"no whole answer from {host} within {late}")
    root: Any = error
    while True:
        inner = getattr(root, "reason", None) or (root.args[0] if root.args else None)
        if not isinstance(inner, Exception):
            break
        root = inner
    why = _one_line(str(root))
    if isinstance(error, requests.exceptions.SSLError):
        return _MayPass(f"no secure connection to {host}: {why}", setup=True)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return _MayPass(f"no connection to {host} within {CONNECT_SECONDS:g} s", setup=True)
    if isinstance(error, requests.exceptions.ProxyError) or isinstance(
        root, urllib3.exceptions.NewConnectionError
    ):
        return _MayPass(f"no connection to {host}: {why}", setup=True)
    return _MayPass(f"the connection to {host} broke: {why}")


def _failure(
    status: int, headers: Mapping[str, str], content: bytes, data: Any, url: str
) -> Exception:
    """Sorts a response that is no answer."""
    message, code = _message(content, data)
    status = CODES.get(code, int(code) if code.isdigit() and 400 <= int(code) < 600 else status)
    name = http.HTTPStatus(status).phrase.lower() if status in set(http.HTTPStatus) else ""
    said = f"{status} {name}".strip() + (f": {message}" if message else "")
    if status < 300:
        if isinstance(data, dict):
            return _MayPass(f"the server answered {status} with an error: {message}")
        return _MayPass(
            f"the server's answer is not whole JSON: {message}", setup=b"<" in content[:99]
        )
    if status < 400:
        to = _one_line(headers.get("Location", "nowhere"))
        return FatalAPIError(
            f"{said}: {url} redirects to {to}: set NEBIUS_BASE_URL to the API itself"
        )
    if status in (408, 409, 425, 429) or status >= 500:
        return _MayPass(said, status, _retry_after(headers))
    if status == 401:
        return FatalAPIError(f"{said}: check NEBIUS_API_KEY")
    if status == 402:
        return FatalAPIError(f"{said}: add credit, then start the same command again")
    if status == 403:
        return FatalAPIError(f"{said}: NEBIUS_API_KEY may not do this")
    if status == 404 and "model" in message.lower():
        return _UnknownModel(f"{said}: choose another with NEBIUS_MODEL")
    if status in (404, 405, 407, 410):
        return FatalAPIError(f"{said}: {url} is not the API: check NEBIUS_BASE_URL")
    return APIError(said)


def _message(content: bytes, data: Any) -> tuple[str, str]:
    """What an error body says, on one line, and its machine-readable code or ""."""
    if not isinstance(data, dict):
        text = content[:20_000].decode("utf-8", "replace")
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
        if title:
            return _one_line(f"a web page, {html.unescape(title[1]).strip()!r}"), ""
        return _one_line("a web page" if text.lstrip()[:1] == "<" else text), ""
    error = data.get("error")
    inner = error if isinstance(error, dict) else data
    code = next((str(inner[k]) for k in ("code", "status", "type") if inner.get(k)), "")
    said = error if isinstance(error, str) else inner.get("message", inner.get("detail", ""))
    if isinstance(said, list):  # a validation error; its `input` repeats the request: left out
        said = "; ".join(
            f"{'.'.join(map(str, item.get('loc', [])))}: {item.get('msg')}"
            for item in said[:3]
            if isinstance(item, dict)
        )
    return _one_line(said if isinstance(said, str) else json.dumps(said)), code


def _one_line(text: str, limit: int = 300) -> str:
    """`text` on one line, whitespace folded, control characters shown, cut at `limit`."""
    text = " ".join(text[: 4 * limit].split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= limit else text[:limit] + "..."


def _read_answer(data: Any, model: str) -> tuple[Completion, str]:
    """A 200's completion, and why it cannot be used, or ""."""
    usage = data.get("usage") if isinstance(data, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) and finish else "stop"
    text, thought, closed = _without_thinking(_text_of(message.get("content")))
    reasoning = thought or next(
        (r for k in ("reasoning_content", "reasoning") if isinstance(r := message.get(k), str)), ""
    )
    completion = Completion(
        text=text,
        finish_reason=finish,
        prompt_tokens=_count_of(usage.get("prompt_tokens")),
        completion_tokens=_count_of(usage.get("completion_tokens")),
        model=model,
        reasoning=reasoning,
    )
    refusal = message.get("refusal")
    if not choice:
        return completion, "no choices in the answer"
    if isinstance(refusal, str) and refusal and not text:
        return completion, f"the model refused: {_one_line(refusal)}"
    if finish == "content_filter":
        return completion, "the server's content filter stopped the answer"
    if text and closed:
        return completion, ""
    if reasoning or not closed:
        return completion, (
            "it only thought and did not answer: raise max_tokens or switch thinking off, such as "
            """NEBIUS_EXTRA_BODY='{"reasoning_effort": "none"}' or """
            """'{"chat_template_kwargs": {"enable_thinking": false}}'"""
        )
    return completion, f"no text in the answer (finish_reason {_one_line(finish)})"


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else p for p in content]
        return "".join(p for p in parts if isinstance(p, str))
    return content if isinstance(content, str) else ""


def _without_thinking(text: str) -> tuple[str, str, bool]:
    """The text after its <think> blocks, what they held, and whether every one was closed."""
    if "think>" not in text:
        return text.strip(), "", True
    thoughts = re.findall(r"<think>(.*?)</think>", text, re.S)
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.S)
    if "</think>" in text:  # its beginning was swallowed: all before it is thinking
        before, _, text = text.rpartition("</think>")
        thoughts.insert(0, before)
    text, unclosed, rest = text.partition("<think>")
    return text.strip(), "\n".join([*thoughts, rest]).strip(), not unclosed


# --- numbers as servers write them


def _number(value: Any) -> float | None:
    """A finite number of at least 0 from a JSON number or string, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _count_of(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _price(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    pricing = entry.get("pricing")
    if not isinstance(pricing, dict):
        return None
    prompt, output = _number(pricing.get("prompt")), _number(pricing.get("completion"))
    return None if prompt is None or output is None else (prompt, output)


UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(value: str | None) -> float | None:
    """Seconds from "2", "1.5", "1s", "250ms", "6m0s"; None from anything else."""
    value = (value or "").strip().lower()
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h)?)+", value):
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", value)
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; None when it does not, or not in words we know."""
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After", "")
    seconds = _seconds(value)
    if seconds is None and value:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if seconds is not None and seconds >= 0 else None


# --- waiting and pace


@dataclass
class _Turn:
    model: str
    began: float
    wave: int


class _Gate:
    """Lets calls begin, for all threads together."""

    def __init__(self, patience: float) -> None:
        self.stopped = False
        self.patience = patience
        self.opens = 0.0
        self.closed = 0.0
        self.window = math.inf  # calls at once; 1 after a refusal, then one more per answer
        self.running = 0
        self.wave = 0
        self.failures = 0
        self.last_wait = 0.0
        self.failing_since: float | None = None
        self.succeeded = False
        self._changed = threading.Condition()

    def enter(self, model: str) -> _Turn:
        with self._changed:
            while (left := self._delay(time.monotonic())) > 0:
                if self.stopped:
                    raise Interrupted
                self._changed.wait(min(left, POLL_SECONDS))
            self.running += 1
            return _Turn(model, time.monotonic(), self.wave)

    def _delay(self, now: float) -> float:
        if now < self.opens:
            return self.opens - now
        return math.inf if self.running >= self.window else 0.0

    def leave(self, turn: _Turn, headers: Mapping[str, str], failed: bool = False) -> None:
        with self._changed:
            if turn.wave == self.wave:
                self.running -= 1
                if not failed:
                    self.window += 1
                    self.failures, self.last_wait = 0, 0.0
            if not failed:
                self.succeeded = True
                self.failing_since = None
            if self.window < math.inf:
                self._changed.notify_all()

    def failed(self, failure: _MayPass) -> tuple[float, str]:
        with self._changed:
            now = time.monotonic()
            turn: _Turn = failure.turn  # type: ignore[attr-defined]
            if self.failing_since is None:
                self.failing_since = now
            left = self._patience_left(failure, now)
            if turn.wave != self.wave:  # was under way when the gate closed: nothing new
                return 0.0, ""
            self.failures += 1
            wait = min(self._wait(failure), left)
            if failure.told or self.failures > 1:
                self.opens, self.closed = now + wait, now
                self.window, self.running = 1, 0
                self.wave += 1
            self.last_wait = wait
            return wait, f"waiting {wait:.1f} s after attempt {self.failures}: {failure}"

    def _wait(self, failure: _MayPass) -> float:
        if failure.after is not None:
            return min(failure.after, LONGEST_WAIT)
        low, high = BACKOFF_SECONDS
        jitter = random.uniform(low, min(high, low * 2**self.failures))
        return max(jitter, min(self.last_wait, high))

    def _patience_left(self, failure: _MayPass, now: float) -> float:
        setup = failure.setup and not self.succeeded
        patience = min(self.patience, SETUP_PATIENCE) if setup else self.patience
        left = patience - (now - (self.failing_since or now))
        if left > 0:
            return left
        if setup:
            raise FatalAPIError(f"{failure}: check NEBIUS_BASE_URL and the network")
        raise FatalAPIError(
            f"no success for {patience / 60:.0f} minutes (last: {failure}): everything so far is "
            "kept; start the same command again to go on"
        )

    def sleep(self, seconds: float) -> None:
        with self._changed:
            ends = time.monotonic() + seconds
            while (left := ends - time.monotonic()) > 0:
                if self.stopped:
                    raise Interrupted
                self._changed.wait(min(left, POLL_SECONDS))
