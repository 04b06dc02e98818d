"""One HTTP exchange with a server, and how its outcome is sorted. Never waits, never repeats.

The key stands in the request's header and nowhere else.
"""

import base64
import html
import json
import os
import re
import time
from collections.abc import Mapping
from functools import partial
from http.client import responses as PHRASES
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from autoresearch.api.answer import MayPass, Unusable, error_in, first_choice, read_json, told

BASE_URL = "https://api.tokenfactory.nebius.com/v1"
CONNECT_SECONDS = 10.0
MAX_BYTES = 10_000_000  # of one response
AZURE = (".azure.com", ".azure.us", ".azure.cn")  # they take the key in a header of their own
LOOPBACK = re.compile(r"127(\.\d+){3}|::1|(.*\.)?localhost")

# What an `error` object's code says where it says more than the status.
CODES = {
    **{"insufficient_quota": 402, "invalid_api_key": 401, "model_not_found": 404},
    **{"rate_limit_exceeded": 429, "context_length_exceeded": 400},
}
ADVICE = {
    401: "check {0}API_KEY",
    402: "add credit, then start the same command again: everything so far is kept",
    403: "{0}API_KEY is not allowed this: check the key and its project",
    407: "check the name and password in HTTPS_PROXY",
    300: "{1} redirects to {2}: correct {0}BASE_URL",
    **dict.fromkeys((404, 405, 410), "{1} is not the API: correct {0}BASE_URL"),
}
PROXY = "HTTPS_PROXY or ALL_PROXY names a proxy"
NOT_JSON = "the answer is not whole JSON"
UNKNOWN_MODEL = re.compile(
    r"(?is)not a valid model|(unknown|invalid) model|no endpoints"
    r"|\bmodel\b.{0,200}(not exist|not found|decommissioned|not supported by any)"
)
ABOUT_CONTENT = "content|moderat|flagged|polic|safety|harm|sensitive|inappropriate|jailbreak|prompt"


class APIError(Exception):
    """Spoils this experiment: this request cannot succeed, others may."""


class FatalAPIError(APIError):
    """Spoils all: no request can succeed until a person changes something."""


class WrongSetting(FatalAPIError):
    """A setting is wrong; or, where it has worked before, a gateway is in trouble."""


class UnknownModel(WrongSetting):
    """The server does not know the model's id."""


class Interrupted(Exception):
    """`Client.stop` was called while a call waited."""


def _api_root(base_url: str, allow_http: bool, name: str) -> SplitResult:
    """The URL that /chat/completions is appended to; /v1 is added only where no path stands."""
    try:
        parts = urlsplit(str(requests.Request("POST", base_url.strip()).prepare().url))
        if parts.scheme not in ("http", "https"):
            raise ValueError
    except ValueError as error:
        what = f"{name} is not a URL such as {BASE_URL}: {told(base_url)!r}"
        raise FatalAPIError(what) from error
    if "@" in parts.netloc:
        raise FatalAPIError(f"{name} must not hold a user name or password")
    if parts.scheme == "http" and not (allow_http or LOOPBACK.fullmatch(str(parts.hostname))):
        raise FatalAPIError(
            f"the key would travel unencrypted to {parts.hostname}: use https in {name}, "
            "or allow it with NEBIUS_ALLOW_HTTP=1"
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions").rstrip("/")
    return parts._replace(path=path or "/v1", fragment="")


def _written(key: str) -> re.Pattern[str]:
    """The key as a server may write it: plain, in pieces, in UTF-16 read as bytes, a character as
    an entity or an escape, in hexadecimal, in base64 whatever stands before it."""
    codes = [(re.escape(c), f"{ord(c):02x}", ord(c)) for c in key]
    one = r"(?:{0}|[%=](?:25)*{1}|\\(?:u00|x){1}|\\\\?{2:03o}|&#x0*{1};?|&#0*{2};?)[\0\s\u200b]?"
    spelt = (one, ""), ("{1}", "(?:, ?|[ :-])?(?:0x)?"), ("{2}", ", ?")
    forms = [gap.join(form.format(*code) for code in codes) for form, gap in spelt]
    for before in range(3):  # the characters that hold bits of what stands around it are left
        coded = base64.b64encode(b"\0" * before + key.encode()).decode()
        core = coded[-(-before * 8 // 6) : (before + len(key)) * 8 // 6]
        forms.append(r"\s?".join({"+": "[+-]", "/": "[/_]"}.get(c, re.escape(c)) for c in core))
    return re.compile("|".join(forms), re.IGNORECASE)


class Exchange:
    """`prefix`: of the variables that set it. An adapter without a Session: no cookies, no .netrc,
    no redirects; each call under way has a connection of its own."""

    def __init__(
        self, key: str, base_url: str, deadline: float, allow_http: bool, prefix: str = "NEBIUS_"
    ) -> None:
        root, key = _api_root(base_url, allow_http, f"{prefix}BASE_URL"), key.strip()
        if bad := re.search("[^!-~]", key):
            raise FatalAPIError(
                f"{prefix}API_KEY has a character at place {bad.start() + 1} that no key has "
                f"(U+{ord(bad[0]):04X}): copy the key again"
            )
        # a short key, of a server that needs none, may stand in any text
        secret = _written(key) if len(key) >= 8 else re.compile(r"(?!)")
        self._scrub = partial(secret.sub, "[key]")
        self._deadline, self._host, self._prefix = deadline, root.netloc, prefix
        azure = str(root.hostname).endswith(AZURE)
        headers = {
            **({"api-key": key} if azure else {"Authorization": f"Bearer {key}"}),
            "Accept-Encoding": "identity",  # answers are small, and a packed one may be a bomb
            "User-Agent": requests.utils.default_user_agent(),
        }
        chat = root._replace(path=f"{root.path}/chat/completions").geturl()
        models = root._replace(path=f"{root.path}/models").geturl()
        self._chat = requests.Request("POST", chat, headers).prepare()
        self._models = requests.Request("GET", models, headers, params="verbose=true").prepare()
        local = LOOPBACK.fullmatch(str(root.hostname))
        self._proxies = {} if local else requests.utils.get_environ_proxies(chat)
        self.setting = "HTTPS_PROXY, ALL_PROXY" if self._proxies else f"{prefix}BASE_URL"
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        if bundle and not os.path.exists(bundle):
            raise FatalAPIError(f"REQUESTS_CA_BUNDLE or SSL_CERT_FILE names no file: {bundle}")
        self._verify = bundle or True
        self._adapter = HTTPAdapter(pool_maxsize=256)

    def ask(self, body: Any = None) -> tuple[Any, Mapping[str, str]]:
        """The JSON that answers a chat request or, without one, lists the server's models."""
        request, connect = self._models, min(CONNECT_SECONDS, self._deadline)
        deadline = connect
        if body:
            request, deadline = self._chat.copy(), self._deadline
            request.prepare_body(None, None, body)
        ends, failure = time.monotonic() + deadline, None
        settings = (connect, deadline), self._verify, None, self._proxies
        try:
            with self._adapter.send(request, True, *settings) as response:
                content = _read_body(response, ends)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as e:
            late = isinstance(e, (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError))
            failure = self._broken(e, deadline if late or time.monotonic() >= ends else 0.0)
        if failure:  # outside the handler: what is caught there holds the request and so the key
            raise failure
        text = self._scrub(content.decode(json.detect_encoding(content), "replace"))
        data = read_json(text)
        answers = first_choice(data) if body else data is not None
        if 200 <= response.status_code < 300 and answers and not error_in(data):
            return data, response.headers
        raise self._failure(response, text, data, body["model"] if body else "")

    def _failure(self, response: requests.Response, text: str, data: Any, model: str) -> Exception:
        """Sorts a whole response that is no answer."""
        message, code = map(self._scrub, _message(text, data))
        headers = CaseInsensitiveDict({k: self._scrub(v) for k, v in response.headers.items()})
        url, whole, status = self._scrub(str(response.url)), data is not None, response.status_code
        status = CODES.get(code, int(code) if re.fullmatch("[45][0-9][0-9]", code) else status)
        if status < 300 and message.startswith("a web page"):
            return MayPass(f"{url} answers with {message}, not as the API", setup=True)
        if status < 300:
            no_answer = f"the server answered {status} and no answer" if whole else NOT_JSON
            return MayPass(f"{no_answer}: {message}", status, headers, setup=not whole, alone=True)
        said = f"{status} {PHRASES.get(status, 'unknown status').lower()}: {message}".rstrip(".: ")
        if status in (408, 409, 425, 429) or status >= 500:
            return MayPass(said, status, headers, alone=status >= 500)
        names = rf"\bmodels?\b|deployment|\b{re.escape(model)}\b"
        named = whole and model and re.search(names, message, re.I)
        unknown = code == "model_not_found" or UNKNOWN_MODEL.search(message)
        if (status in (404, 410) and named) or (status in (400, 404) and unknown):
            return UnknownModel(f"{said}: choose another model")
        advice = ADVICE.get(300 if status < 400 else status)
        if advice is None or (status == 403 and whole and re.search(ABOUT_CONTENT, message, re.I)):
            return APIError(said)
        advice = advice.format(self._prefix, url, told(headers.get("Location", "nowhere")))
        return (FatalAPIError if status == 402 else WrongSetting)(f"{said}: {advice}")

    def _broken(self, error: Exception, late: float) -> Exception:
        """Sorts an exchange that ended without a whole response."""
        host, inner = self._host, _innermost(error)
        noise = r"^\w+\(host=.*?\): |\[Errno -?\d+\] |Failed to .* connection: "
        why = told(self._scrub(re.sub(noise, "", str(inner)) or type(inner).__name__))
        if isinstance(error, ValueError):
            names = PROXY if self._proxies else f"{self._prefix}BASE_URL is one"
            instead = "pip install PySocks" if "SOCKS support" in why else why
            return FatalAPIError(f"{names} that cannot be used: {instead}")
        if isinstance(error, requests.exceptions.ConnectTimeout):
            return MayPass(f"no connection to {host} within {CONNECT_SECONDS:g} s", setup=True)
        if late:
            named = " (NEBIUS_TIMEOUT)" * (late != CONNECT_SECONDS)
            return MayPass(f"no whole answer from {host} within {late:g} s{named}", late=True)
        if "WRONG_VERSION_NUMBER" in why:
            why = f"it does not seem to speak https: begin {self._prefix}BASE_URL with http://"
        unreached = (requests.exceptions.SSLError, requests.exceptions.ProxyError)
        if isinstance(error, unreached) or isinstance(inner, urllib3.exceptions.NewConnectionError):
            return MayPass(f"no connection to {host}: {why}", setup=True)
        return MayPass(f"the connection to {host} broke: {why}", alone=True)


def _read_body(response: requests.Response, ends: float) -> bytes:
    body = bytearray()
    sock = getattr(getattr(response.raw, "connection", None), "sock", None)
    while (left := ends - time.monotonic()) > 0:
        if sock is not None:
            sock.settimeout(left)
        chunk = response.raw.read1(65536, decode_content=True)
        body += chunk
        if not chunk or body[-99:].rstrip().endswith(b"\ndata: [DONE]"):  # the rest may never come
            return bytes(body)
        if len(body) > MAX_BYTES:
            raise Unusable(f"the answer is larger than {MAX_BYTES // 1_000_000} MB")
    raise TimeoutError("the answer's time is over")


def _innermost(error: BaseException) -> BaseException:
    """The first cause; requests and urllib3 wrap it three deep."""
    for cause in (getattr(error, "reason", None), *reversed(error.args)):
        if isinstance(cause, Exception):
            return _innermost(cause)
    return error


def _message(text: str, data: Any) -> tuple[str, str]:
    """What a body that is no answer says, on one line, and its machine-readable code or ""."""
    if not isinstance(data, dict):
        title = re.search(r"(?is)<title[^>]*>(.*?)</title>", text[:8000])
        page = f"a web page, {told(html.unescape(title[1]))!r}" if title else "a web page"
        return (page if text.lstrip()[:1] == "<" else told(text.strip())), ""
    error = error_in(data)
    inner = error if isinstance(error, dict) else data
    codes = [str(inner[name]) for name in ("code", "status", "type") if inner.get(name)]
    code = next((c for c in codes if c in CODES or c.isdigit()), "")
    names = ("message", "msg", "status_msg", "detail", "error_msg")
    said = error if isinstance(error, str) else next(filter(None, map(inner.get, names)), "")
    if isinstance(said, list):  # of validation errors; their `input` repeats the request: left out
        items = [i for i in said[:3] if isinstance(i, dict)]
        places = [".".join(re.findall(r"\w+", str(item.get("loc")))) for item in items]
        said = "; ".join(f"{at}: {i.get('msg')}" for at, i in zip(places, items, strict=True))
    said = told(said if isinstance(said, str) else json.dumps(said)) or told(text)
    param = told(param) if isinstance(param := inner.get("param"), str) else ""
    return (f"{said} ({param})" if param not in said else said), code
