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
from http.client import HTTPResponse
from typing import Any, AnyStr, TypeVar
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
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
    setting looks like this too; `told`: the server, not only this call, is in trouble."""

    def __init__(
        self,
        what: str,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        setup: bool = False,
    ) -> None:
        super().__init__(what)
        self.status, self.setup = status, setup
        self.headers = headers or {}
        self.after = _retry_after(self.headers)
        self.told = setup or self.after is not None or status in (429, 503)
        self.wait = 0.0  # seconds, as the gate decides


class _Unusable(Exception):
    """The server answered and billed, but not with text that can be used."""


class _Exhausted(APIError):
    """Unusable answers only, time after time."""


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
        self._fields = {"max_tokens": max_tokens, **_checked_fields(extra_body or {})}
        self._wire = _Wire(_checked_key(api_key), base_url, deadline, allow_http)
        self.notify = notify  # may be replaced, by a display for instance
        self._gate = _Gate(patience, lambda line: self.notify(line))
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
            except _Unusable as error:
                if not left:
                    raise _Exhausted(
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
        return Preflight(checks, problems)

    def price(self, role: str) -> tuple[float, float] | None:
        """USD per prompt and per completion token; None when the server did not tell."""
        return _price(self._catalogue.get(self.models[role], {}))

    def stop(self) -> None:
        """Ends every wait with Interrupted; calls under way go on. Takes no lock: signal-safe."""
        self._gate.stopped = True

    # --- one call

    def _persist(self, attempt: Callable[[], T]) -> T:
        """The first outcome of `attempt` that is no _MayPass, however long that takes."""
        import tenacity  # 30 ms that --help need not pay

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_MayPass),
            wait=self._wait_after,
            sleep=self._gate.sleep,
        )(attempt)

    def _wait_after(self, state: Any) -> float:
        failure: _MayPass = state.outcome.exception()
        if state.seconds_since_start >= self._patience:  # though others had answers meanwhile
            raise APIError(f"no success after {state.attempt_number} attempts: {failure}")
        return failure.wait

    def _ask(self, role: str, messages: list[dict[str, str]], spent: Usage | None) -> Completion:
        model = self.models[role]
        body = {"model": model, "messages": messages, "temperature": self.temperatures[role]}
        try:
            data = self._take_turn(model, lambda: self._wire.post(body | self._fields))
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

    def _take_turn(self, model: str, call: Callable[[], tuple[Any, Mapping[str, str]]]) -> Any:
        """One exchange, when the gate lets it begin; tells the gate how it went."""
        turn = self._gate.enter(model)
        headers: Mapping[str, str] = {}
        try:
            data, headers = call()
        except _MayPass as failure:
            failure.wait = self._gate.failed(turn, failure)
            raise
        except BaseException:  # refused for good, but the server is up
            self._gate.answered(turn, headers)
            raise
        self._gate.answered(turn, headers)
        return data

    def _count(self, completion: Completion, spent: Usage | None) -> None:
        prompt, output = completion.prompt_tokens, completion.completion_tokens
        price = _price(self._catalogue.get(completion.model, {}))
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
            if self.models[role] == unknown:
                self.models.update(dict.fromkeys(self._defaulted, FALLBACK_MODEL))
                self.notify(f"{unknown} is not served: using {FALLBACK_MODEL} instead")
        return True

    # --- models and prices

    def _fetch_catalogue(self, tries: int = 3) -> list[str]:
        """Reads the server's list of models; returns the problem met, which is never fatal."""
        try:
            data = self._take_turn("", self._wire.get_models)
        except (_MayPass, _Unusable, APIError) as error:
            if isinstance(error, _MayPass) and error.status and tries > 1:
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
        except _Exhausted as error:
            problems.append(str(error))
        except FatalAPIError:
            raise
        except APIError as error:
            raise FatalAPIError(f"the first call failed: {error}") from error
        seconds = time.monotonic() - began
        model = self.models[role]
        entry = self._catalogue.get(model, {})
        if self._catalogue and not _price(entry):
            problems.append(f"the server names no price for {model}")
        if not spent.tokens:
            problems.append(f"the server does not report the tokens that {model} uses")
        limits = entry.get("per_request_limits")
        return ModelCheck(
            id=model,
            roles=tuple(r for r, m in self.models.items() if m == model),
            price=_price(entry),
            context_length=_whole(entry.get("context_length", entry.get("max_model_len"))),
            requests_per_minute=_number(
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


def _api_root(base_url: str, allow_http: bool) -> SplitResult:
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
    return parts._replace(path=path or "/v1", fragment="")


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
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        secure = pool.scheme == "https"
        pool.ConnectionCls = _HTTPSConnection if secure else _HTTPConnection
        pool.conn_kw["socket_options"] = _socket_options()
        return pool


class _Wire:
    """HTTP exchanges with one server, sorted by how they ended.

    An adapter without a Session: no cookies, no .netrc, no redirects; urllib3's pool gives each
    call under way a connection of its own, last used first.
    """

    def __init__(self, key: str, base_url: str, deadline: float, allow_http: bool) -> None:
        root = _api_root(base_url, allow_http)
        self._key, self._deadline, self._host = key, deadline, root.netloc
        query = f"{root.query}&verbose=true".lstrip("&")
        self._chat = self._prepare("POST", root._replace(path=root.path + "/chat/completions"))
        self._models = self._prepare("GET", root._replace(path=root.path + "/models", query=query))
        local = _is_loopback(root.hostname or "")
        self._proxies = {} if local else requests.utils.get_environ_proxies(root.geturl())
        self._verify = _certificates()
        self._adapter = _Adapter(pool_maxsize=256)

    def _prepare(self, method: str, url: SplitResult) -> requests.PreparedRequest:
        headers = {
            "Authorization": f"Bearer {self._key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # answers are small, and a packed one may be a bomb
            "User-Agent": requests.utils.default_user_agent(),
        }
        try:
            return requests.Request(method, url.geturl(), headers=headers).prepare()
        except (requests.RequestException, ValueError) as error:
            raise FatalAPIError(f"NEBIUS_BASE_URL is not a URL: {url.geturl()!r}") from error

    def post(self, body: Mapping[str, Any]) -> tuple[Any, Mapping[str, str]]:
        """The JSON that answers a chat completion, and the response's headers."""
        request = self._chat.copy()
        request.body = json.dumps(body, allow_nan=False).encode()
        request.headers["Content-Length"] = str(len(request.body))
        return self._sort(request, self._deadline)

    def get_models(self) -> tuple[Any, Mapping[str, str]]:
        return self._sort(self._models, min(CONNECT_SECONDS, self._deadline))

    def _sort(
        self, request: requests.PreparedRequest, deadline: float
    ) -> tuple[Any, Mapping[str, str]]:
        status, headers, content = self._exchange(request, deadline)
        try:
            data = json.loads(content)
        except (ValueError, RecursionError):
            data = None
        if 200 <= status < 300 and data is not None:
            if not (isinstance(data, dict) and data.get("error")):
                return data, headers
        headers = CaseInsensitiveDict({k: self._scrub(v) for k, v in headers.items()})
        raise _failure(status, headers, content, data, self._scrub(str(request.url)))

    def _exchange(
        self, request: requests.PreparedRequest, deadline: float
    ) -> tuple[int, Mapping[str, str], bytes]:
        timeout: Any = urllib3.Timeout(total=deadline, connect=min(CONNECT_SECONDS, deadline))
        began = time.monotonic()
        try:
            response = self._adapter.send(
                request, stream=True, timeout=timeout, verify=self._verify, proxies=self._proxies
            )
            content = _read_body(response)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            late = time.monotonic() - began >= deadline
            why = self._scrub(_innermost(error))
            failure = _broken(error, self._host, f"{deadline:g} s" if late else "", why)
        else:
            return response.status_code, response.headers, self._scrub(content)
        raise failure  # outside the handler: what is caught there holds the request and so the key

    def _scrub(self, text: AnyStr) -> AnyStr:
        """`text` without the key; a short one, of a server that needs none, may stay."""
        if len(self._key) < 8:
            return text
        if isinstance(text, bytes):
            return text.replace(self._key.encode(), b"[key]")
        return text.replace(self._key, "[key]")


def _certificates() -> str | bool:
    """The bundle that a variable names, else requests' own; checked in any case."""
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        path = os.environ.get(name)
        if path and not os.path.exists(path):
            raise FatalAPIError(f"{name} names a file that is not there: {path}")
        if path:
            return path
    return True


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


# --- sorting

# What an `error` object's code says where it says more than the status.
CODES = {
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "context_length_exceeded": 400,
}
UNKNOWN_MODEL = re.compile(
    r"not a valid model|unknown model|\bmodel\b.{0,200}(does not exist|not found)", re.I | re.S
)


def _innermost(error: BaseException) -> str:
    """The first cause's text; requests and urllib3 wrap it three deep."""
    while True:
        inner = getattr(error, "reason", None) or next(
            (a for a in reversed(error.args) if isinstance(a, Exception)), None
        )
        if not isinstance(inner, Exception):
            return str(error) or type(error).__name__
        error = inner


def _broken(error: Exception, host: str, late: str, why: str) -> Exception:
    """The failure for an exchange that ended without a whole response."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if isinstance(error, _TooLarge):
        return _Unusable(f"the answer is larger than {MAX_BYTES // 1_000_000} MB")
    if late:
        return _MayPass(f"no whole answer from {host} within {late}")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return _MayPass(f"no connection to {host} within {CONNECT_SECONDS:g} s", setup=True)
    if isinstance(error, (requests.exceptions.SSLError, requests.exceptions.ProxyError)) or (
        isinstance(cause, urllib3.exceptions.NewConnectionError)
    ):
        return _MayPass(f"no connection to {host}: {_one_line(why)}", setup=True)
    return _MayPass(f"the connection to {host} broke: {_one_line(why)}")


def _failure(
    status: int, headers: Mapping[str, str], content: bytes, data: Any, url: str
) -> Exception:
    """Sorts a whole response that is no answer."""
    message, code = _message(content, data)
    answered = status
    status = CODES.get(code, int(code) if re.fullmatch("[45][0-9][0-9]", code) else status)
    if status < 300:
        if data is not None:
            return _MayPass(f"the server answered {status} with an error: {message}")
        page = message.startswith("a web page")
        return _MayPass(f"the answer is not whole JSON: {message}", setup=page)
    name = http.HTTPStatus(status).phrase.lower() if status in _STATUSES else "unknown status"
    said = f"{status} {name}" + (f": {message}" if message else "")
    if status < 400:
        to = _one_line(headers.get("Location", "nowhere"))
        return FatalAPIError(f"{said}: {url} redirects to {to}: correct NEBIUS_BASE_URL")
    if status in (408, 409, 425, 429) or status >= 500:
        return _MayPass(said, status, headers)
    if status in (400, 404) and (UNKNOWN_MODEL.search(message) or code == "model_not_found"):
        return _UnknownModel(f"{said}: choose another with NEBIUS_MODEL")
    if status in (404, 405, 410) and answered == status:
        return FatalAPIError(f"{said}: {url} is not the API: correct NEBIUS_BASE_URL")
    if status in ADVICE:
        return FatalAPIError(f"{said}: {ADVICE[status]}")
    return APIError(said)


_STATUSES = {int(status) for status in http.HTTPStatus}
ADVICE = {
    401: "check NEBIUS_API_KEY",
    402: "add credit, then start the same command again: everything so far is kept",
    403: "NEBIUS_API_KEY is not allowed this: check the key and its project",
    407: "check the name and password in HTTPS_PROXY",
}


def _message(content: bytes, data: Any) -> tuple[str, str]:
    """What an error body says, on one line, and its machine-readable code or ""."""
    if not isinstance(data, dict):
        text = content[:20_000].decode("utf-8", "replace").strip()
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
        if title:
            return _one_line(f"a web page, {html.unescape(title[1]).strip()!r}"), ""
        return ("a web page" if text[:1] == "<" else _one_line(text)), ""
    error = data.get("error")
    inner = error if isinstance(error, dict) else data
    codes = [str(inner[name]) for name in ("code", "status", "type") if inner.get(name)]
    code = next((c for c in codes if c in CODES or c.isdigit()), "")
    said = error if isinstance(error, str) else inner.get("message") or inner.get("detail") or ""
    if isinstance(said, list):  # of validation errors; their `input` repeats the request: left out
        items = [item for item in said[:3] if isinstance(item, dict)]
        said = "; ".join(f"{_path(item.get('loc'))}: {item.get('msg')}" for item in items)
    return _one_line(said if isinstance(said, str) else json.dumps(said)), code


def _path(loc: Any) -> str:
    return ".".join(map(str, loc)) if isinstance(loc, list) else str(loc)


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
        prompt_tokens=_whole(usage.get("prompt_tokens")),
        completion_tokens=_whole(usage.get("completion_tokens")),
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


def _whole(value: Any) -> int | None:
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


@dataclass(frozen=True)
class _Turn:
    """A call under way: the model it asks, and how often the gate had closed when it began."""

    model: str
    wave: int


class _Pace:
    """How fast one model's server lets us go: read from its headers, or learned from refusals.

    Headers: never more calls under way than the server says are left, then a pause until the reset;
    where every call taken adds the same time to the reset (a token bucket), one call per token.
    Refusals: answers between two of them / seconds between them is the rate, of a bucket and of a
    window alike, since nothing was left at either end. It grows with the cube of the quiet time:
    a lifted limit is soon noticed, a standing one seldom hit.
    """

    DOUBLES = 90.0  # seconds after which an unrefused rate is tried twice as fast
    MEMORY = 120.0  # seconds of answers that the rate is measured over
    ENOUGH = 4  # answers for a measurement; with fewer a refused rate is only lowered

    def __init__(self, now: float) -> None:
        self.running = 0
        self.left = math.inf  # calls, as the server says; only falls until `resets`
        self.resets = 0.0
        self.more = 0.0  # when one more may begin though none is left
        self.per_call = (math.inf, 0.0)  # least and most seconds to the reset per call taken
        self.rate = math.inf  # calls a second, as learned
        self.measured = False
        self.credit = 0.0  # calls that the learned rate lets begin at once
        self.filled = self.quiet = self.since = now
        self.answers = 0.0  # since `since`

    def delay(self, now: float) -> float:
        """Seconds until a call may begin, if nothing changes before."""
        if self.left - self.running < 1 and now < self.more:
            return self.more - now
        self._fill(now)
        return 0.0 if self.credit >= 1 else (1 - self.credit) / self._rate(now)

    def begin(self, now: float) -> None:
        self.running += 1
        self._fill(now)
        self.credit -= 1
        if self.running > self.left:  # let in by the clock; its answer tells how many may follow
            self.left = self.running
            self.more = now + (self.per_call[1] if self._is_bucket() else 5.0)

    def end(self, now: float, headers: Mapping[str, str], answered: bool) -> None:
        self.running -= 1
        self.answers += answered
        limit = _number(headers.get("x-ratelimit-limit-requests"))
        left = _number(headers.get("x-ratelimit-remaining-requests"))
        reset = _seconds(headers.get("x-ratelimit-reset-requests"))
        if left is None or reset is None:
            return
        if limit and limit - left >= limit / 4:  # with fewer taken, rounding hides the difference
            each, (low, high) = reset / (limit - left), self.per_call
            self.per_call = (min(low, each), max(high, each))
        # Answers overtake each other: before the reset only the lowest number is to be trusted.
        if now >= self.resets or left <= self.left:
            self.left, self.resets = left, now + reset
            token = now + self.per_call[1]
            if not self._is_bucket():
                self.more = self.resets
            elif not now < self.more < token:
                self.more = token

    def refused(self, now: float, wait: float, told: bool) -> None:
        """Learns from the first refusal after an answer; `told`: the server named the wait."""
        if self.left < 1:
            return  # its headers say when to come back
        # A window that opens again at a named time holds all the calls of the time between.
        self.credit, self.filled, self.quiet = 0.0, now if told else now + wait, now + wait
        if self.rate == math.inf:
            if self.answers:
                self.rate = self.answers / (now + wait - self.since)
            self.since, self.answers = now, 0
        elif self.answers >= self.ENOUGH:
            self.rate, self.measured = self.answers / (now - self.since), True
            if now - self.since > self.MEMORY:
                self.since, self.answers = (self.since + now) / 2, self.answers / 2
        elif self.answers:
            self.rate *= 0.7

    def _is_bucket(self) -> bool:
        return self.per_call[1] < 2 * self.per_call[0]

    def _rate(self, now: float) -> float:
        return self.rate * (1 + (max(0.0, now - self.quiet) / self.DOUBLES) ** 3)

    def _fill(self, now: float) -> None:
        if self.rate == math.inf:
            self.credit = math.inf
        elif now > self.filled:
            rate = self._rate(now)
            self.credit = min(self.credit + (now - self.filled) * rate, 60 * rate + 1)
            self.filled = now


class _Gate:
    """Lets calls begin, for all threads together.

    A server in trouble, or a second failure in a row, closes it for all. It opens for one call;
    every answer then lets one more be under way, so that no burst follows a refusal. A lone
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

    def enter(self, model: str) -> _Turn:
        """Waits until a call may begin; raises Interrupted where it had to wait after `stop`."""
        with self._changed:
            while (left := self.delay(model)) > 0:
                self._pause(left)
            return self.begin(model)

    def delay(self, model: str) -> float:
        now = self._clock()
        if now < self._opens:
            return self._opens - now
        if self._running >= self._window:
            return math.inf
        return self._paces.setdefault(model, _Pace(now)).delay(now)

    def begin(self, model: str) -> _Turn:
        self._running += 1
        self._paces[model].begin(self._clock())
        return _Turn(model, self._wave)

    def answered(self, turn: _Turn, headers: Mapping[str, str]) -> None:
        with self._changed:
            self.succeeded, self._failing_since = True, None
            if turn.wave == self._wave:
                self._running -= 1
                self._window += 1
                self._failures, self._last_wait = 0, 0.0
            self._paces[turn.model].end(self._clock(), headers, True)
            self._changed.notify_all()

    def failed(self, turn: _Turn, failure: _MayPass) -> float:
        """Seconds that this call has to wait. Raises FatalAPIError when patience is at its end."""
        with self._changed:
            now = self._clock()
            pace = self._paces[turn.model]
            pace.end(now, failure.headers, False)
            left = self._patience_left(failure, now)
            if turn.wave != self._wave:  # was under way when the gate closed: nothing new
                return 0.0
            self._running -= 1
            self._failures += 1
            wait = self._last_wait = min(self._wait(failure), left)
            if failure.told or self._failures > 1:
                self._opens, self._running = now + wait, 0
                self._wave += 1
                self._window = 1
            if failure.status == 429:
                pace.refused(now, wait, failure.after is not None)
                if pace.measured and self._failures == 1:
                    self._window = math.inf  # the learned pace alone keeps a burst from following
            attempt = self._failures
        self.notify(f"waiting {wait:.1f} s after attempt {attempt}: {failure}")
        return wait

    def sleep(self, seconds: float) -> None:
        with self._changed:
            ends = self._clock() + seconds
            while (left := ends - self._clock()) > 0:
                self._pause(left)

    def _pause(self, seconds: float) -> None:
        if self.stopped:
            raise Interrupted
        self._changed.wait(min(seconds, POLL_SECONDS))

    def _wait(self, failure: _MayPass) -> float:
        """What the server asks; without a word from it, or when that did not help, full jitter
        that never falls below the wait before it."""
        wait = 0.0
        if failure.after is None or self._failures > 1:
            low, high = BACKOFF_SECONDS
            jitter = random.uniform(low, min(high, low * 2**self._failures))
            wait = max(jitter, min(self._last_wait, high))
        return min(max(wait, failure.after or 0.0), LONGEST_WAIT)

    def _patience_left(self, failure: _MayPass, now: float) -> float:
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
