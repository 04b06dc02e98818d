"""One HTTP exchange with the server, and how its outcome is sorted.

An answer, which `read_answer` makes a `Completion`; `MayPass`, worth asking again; `APIError`,
which spoils one experiment; `FatalAPIError`, which spoils all. Also reads numbers as servers write
them. Never waits and never repeats. The key stands in the request's header and nowhere else.
"""

from __future__ import annotations

import email.utils
import html
import io
import ipaddress
import json
import math
import os
import re
import socket
import time
from collections.abc import Mapping
from http.client import HTTPResponse
from http.client import responses as PHRASES
from typing import Any, AnyStr
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection

from autoresearch.api.answer import as_object, told

BASE_URL = "https://api.tokenfactory.nebius.com/v1"
CONNECT_SECONDS = 10.0
MAX_BYTES = 10_000_000  # of one response
NONE: Mapping[str, str] = {}


Reply = tuple[Any, Mapping[str, str]]  # an answer's JSON and the response's headers


class APIError(Exception):
    """Spoils this experiment: this request cannot succeed, others may."""


class FatalAPIError(APIError):
    """Spoils all: no request can succeed until a person changes something."""


class Interrupted(Exception):
    """`Client.stop` was called while a call waited."""


class MayPass(Exception):
    """Worth asking again later. `after`: seconds that the server asked for; `setup`: a wrong
    setting looks like this too; `told`: the server, not only this call, is in trouble."""

    def __init__(
        self, what: str, status: int = 0, headers: Mapping[str, str] = NONE, setup: bool = False
    ) -> None:
        super().__init__(what)
        self.status, self.headers, self.setup = status, headers, setup
        self.after = _retry_after(self.headers)
        self.told = setup or self.after is not None or status in (429, 503)
        self.wait = 0.0  # seconds, as the gate decides


class Unusable(Exception):
    """The server answered and billed, but not with text that can be used."""


class Exhausted(APIError):
    """Unusable answers only, time after time."""


class UnknownModel(FatalAPIError):
    """The server does not know the model's id."""


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


def _api_root(base_url: str, allow_http: bool) -> SplitResult:
    """The URL that /chat/completions is appended to; /v1 is added only where no path stands."""
    wrong = f"NEBIUS_BASE_URL is not a URL such as {BASE_URL}: {told(base_url)!r}"
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


# Small packets at once, and signs of life every 30 s so that no NAT forgets a long answer.
SOCKET_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), 30)
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL")
        if hasattr(socket, name)
    ),
]


class _Adapter(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _HTTPSConnection if pool.scheme == "https" else _HTTPConnection
        pool.conn_kw["socket_options"] = SOCKET_OPTIONS
        return pool


class Wire:
    """HTTP exchanges with one server, sorted by how they ended.

    An adapter without a Session: no cookies, no .netrc, no redirects; urllib3's pool gives each
    call under way a connection of its own, last used first.
    """

    def __init__(self, key: str, base_url: str, deadline: float, allow_http: bool) -> None:
        root = _api_root(base_url, allow_http)
        self._key, self._deadline, self._host = _checked_key(key), deadline, root.netloc
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

    def post(self, body: Mapping[str, Any]) -> Reply:
        request = self._chat.copy()
        request.body = json.dumps(body, allow_nan=False).encode()
        request.headers["Content-Length"] = str(len(request.body))
        return self._sort(request, self._deadline)

    def get_models(self) -> Reply:
        return self._sort(self._models, min(CONNECT_SECONDS, self._deadline))

    def _sort(self, request: requests.PreparedRequest, deadline: float) -> Reply:
        status, headers, content = self._exchange(request, deadline)
        try:
            data = json.loads(content)
            if b"\\" in content and self._key in (plain := json.dumps(data)):
                data = json.loads(self._scrub(plain))  # it was hidden behind escapes
        except (ValueError, RecursionError):
            data = None
        if 200 <= status < 300 and data is not None and not as_object(data).get("error"):
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
    body = bytearray()
    with response:  # closed where it could not be read whole
        for chunk in response.iter_content(65536):
            body += chunk
            if len(body) > MAX_BYTES:
                raise Unusable(f"the answer is larger than {MAX_BYTES // 1_000_000} MB")
    return bytes(body)


# --- sorting

# What an `error` object's code says where it says more than the status.
CODES = {
    "insufficient_quota": 402,
    "invalid_api_key": 401,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "context_length_exceeded": 400,
}
ADVICE = {
    401: "check NEBIUS_API_KEY",
    402: "add credit, then start the same command again: everything so far is kept",
    403: "NEBIUS_API_KEY is not allowed this: check the key and its project",
    407: "check the name and password in HTTPS_PROXY",
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
            said = re.sub(r"^\w+\(host=.*?\): |\[Errno -?\d+\] ", "", str(error))
            return (
                said.removeprefix("Failed to establish a new connection: ") or type(error).__name__
            )
        error = inner


def _broken(error: Exception, host: str, late: str, why: str) -> MayPass:
    """The failure for an exchange that ended without a whole response."""
    cause = getattr(error.args[0] if error.args else None, "reason", None)
    if late:
        return MayPass(f"no whole answer from {host} within {late}")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return MayPass(f"no connection to {host} within {CONNECT_SECONDS:g} s", setup=True)
    if "WRONG_VERSION_NUMBER" in why:
        why = "it does not seem to speak https; is NEBIUS_BASE_URL to begin with http://"
    unreached = (requests.exceptions.SSLError, requests.exceptions.ProxyError)
    if isinstance(error, unreached) or isinstance(cause, urllib3.exceptions.NewConnectionError):
        return MayPass(f"no connection to {host}: {told(why)}", setup=True)
    return MayPass(f"the connection to {host} broke: {told(why)}")


def _failure(
    status: int, headers: Mapping[str, str], content: bytes, data: Any, url: str
) -> Exception:
    """Sorts a whole response that is no answer."""
    message, code = _message(content, data)
    answered = status
    status = CODES.get(code, int(code) if re.fullmatch("[45][0-9][0-9]", code) else status)
    if status < 300:
        if data is not None:
            return MayPass(f"the server answered {status} with an error: {message}")
        if message.startswith("a web page"):
            return MayPass(f"{url} answers with {message}, not as the API", setup=True)
        return MayPass(f"the answer is not whole JSON: {message}")
    said = f"{status} {PHRASES.get(status, 'unknown status').lower()}"
    said += f": {message.rstrip('.')}" if message else ""
    if status < 400:
        to = told(headers.get("Location", "nowhere"))
        return FatalAPIError(f"{said}: {url} redirects to {to}: correct NEBIUS_BASE_URL")
    if status in (408, 409, 425, 429) or status >= 500:
        return MayPass(said, status, headers)
    if status in (400, 404) and (UNKNOWN_MODEL.search(message) or code == "model_not_found"):
        return UnknownModel(f"{said}: choose another with NEBIUS_MODEL")
    if status in (404, 405, 410) and answered == status:
        return FatalAPIError(f"{said}: {url} is not the API: correct NEBIUS_BASE_URL")
    if status in ADVICE:
        return FatalAPIError(f"{said}: {ADVICE[status]}")
    return APIError(said)


def _message(content: bytes, data: Any) -> tuple[str, str]:
    """What an error body says, on one line, and its machine-readable code or ""."""
    if not isinstance(data, dict):
        text = content[:20_000].decode("utf-8", "replace").strip()
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.S | re.I)
        if title:
            return told(f"a web page, {html.unescape(title[1]).strip()!r}"), ""
        return ("a web page" if text[:1] == "<" else told(text)), ""
    error = data.get("error")
    inner = error if isinstance(error, dict) else data
    codes = [str(inner[name]) for name in ("code", "status", "type") if inner.get(name)]
    code = next((c for c in codes if c in CODES or c.isdigit()), "")
    said = error if isinstance(error, str) else inner.get("message") or inner.get("detail") or ""
    if isinstance(said, list):  # of validation errors; their `input` repeats the request: left out
        items = [item for item in said[:3] if isinstance(item, dict)]
        paths = [
            ".".join(map(str, loc)) if isinstance(loc := i.get("loc"), list) else loc for i in items
        ]
        said = "; ".join(
            f"{path}: {item.get('msg')}" for path, item in zip(paths, items, strict=True)
        )
    return told(said if isinstance(said, str) else json.dumps(said)), code


# --- numbers as servers write them


UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def read_seconds(value: str | None) -> float | None:
    """Seconds from "2", "1.5", "1s", "250ms", "6m0s"; None from anything else."""
    value = (value or "").strip().lower()
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h)?)+", value):
        return None
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", value)
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait; None when it does not, or not in words we know."""
    milliseconds = read_seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("Retry-After", "")
    seconds = read_seconds(value)
    if seconds is None and value:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if seconds is not None and seconds >= 0 else None
