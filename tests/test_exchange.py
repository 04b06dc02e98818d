"""One exchange: what is sent, how every outcome is sorted, bytes on the wire.

Run: pytest tests/test_exchange.py

`responses` stands in for HTTP; where bytes matter, a socket server on loopback does.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import responses

from autoresearch.api.answer import read_number
from autoresearch.api.exchange import BASE_URL, APIError, FatalAPIError
from client import Client
from tests.servers import (
    BASE,
    CHAT,
    FINE,
    HEAD,
    KEY,
    Serve,
    Waits,
    answer,
    leaks,
    make,
    reset,
    whole,
)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://127.0.0.1:9", CHAT),
        ("http://127.0.0.1:9/", CHAT),
        ("http://127.0.0.1:9/v1", CHAT),
        (" http://127.0.0.1:9/v1/ ", CHAT),
        (CHAT, CHAT),
        (CHAT + "/", CHAT),
        ("http://localhost:9/api/v3", "http://localhost:9/api/v3/chat/completions"),
        ("http://[::1]:9/openai/v1", "http://[::1]:9/openai/v1/chat/completions"),
        (
            "https://h.example/v1?ai_project_id=p",
            "https://h.example/v1/chat/completions?ai_project_id=p",
        ),
        (BASE_URL, "https://api.tokenfactory.nebius.com/v1/chat/completions"),
    ],
)
def test_accepts_the_base_url_in_every_form(
    http: responses.RequestsMock, base: str, url: str
) -> None:
    http.post(url, json=answer())
    make(base).generate_response("", "x")
    assert http.calls[0].request.url == url


@pytest.mark.parametrize(
    "base",
    [
        "",
        "nonsense",
        "localhost:8000",
        "ftp://h/v1",
        "http://",
        "https://h:port/v1",
        "http://[x/v1",
    ],
)
def test_a_base_that_is_no_url_is_named(base: str) -> None:
    with pytest.raises(FatalAPIError, match="NEBIUS_BASE_URL") as caught:
        make(base)
    assert base in str(caught.value)


def test_a_key_over_plain_http_needs_permission() -> None:
    with pytest.raises(FatalAPIError, match="NEBIUS_ALLOW_HTTP=1"):
        make("http://models.lan:8000/v1")
    make("http://models.lan:8000/v1", allow_http=True)
    with pytest.raises(FatalAPIError, match="user name"):
        make("https://user:password@h.example/v1")


@pytest.mark.parametrize("key", [KEY + "\nX: y", KEY + "é", KEY + "\x00", KEY + "“"])
def test_a_key_that_no_header_can_carry_is_refused_unshown(key: str) -> None:
    with pytest.raises(
        FatalAPIError, match=f"NEBIUS_API_KEY has a character at place {len(KEY) + 1} "
    ) as e:
        Client(key, BASE)
    assert KEY not in str(e.value)


def test_netrc_and_proxies_do_not_reach_loopback(
    http: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n", "utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    http.post(CHAT, json=answer())
    client = make()
    client.generate_response("", "x")
    assert http.calls[0].request.headers["Authorization"] == f"Bearer {KEY}"
    assert client._servers["task"].exchange._proxies == {}
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:1")
    assert (
        make("https://h.example")._servers["task"].exchange._proxies["https"]
        == "http://proxy.example:1"
    )


def test_a_certificate_bundle_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/not/there.pem")
    with pytest.raises(FatalAPIError, match="SSL_CERT_FILE names no file"):
        make()


MAY_PASS: dict[str, dict[str, Any]] = {
    "refused": {"body": requests.ConnectionError("refused")},
    "timeout": {"body": requests.ReadTimeout("slow")},
    "tls": {"body": requests.exceptions.SSLError("bad certificate")},
    "cut body": {"body": requests.exceptions.ChunkedEncodingError("cut")},
    "truncated json": {"body": b'{"choices": [{"mess'},
    "not json": {"body": b"upstream busy", "content_type": "text/plain"},
    "html": {"body": b"<html><title>504 Gateway</title>", "content_type": "text/html"},
    "empty body": {"body": b""},
    "not utf-8": {"body": b'{"choices": "\xff\xfe"}'},
    "error object": {"json": {"error": {"message": "overloaded"}}},
    "error object 429": {"json": {"error": {"message": "slow down", "code": 429}}},
    "error string": {"json": {"error": "overloaded", "choices": None}},
    **{str(s): {"status": s, "json": {"detail": "later"}} for s in (408, 409, 425, 429)},
    **{str(s): {"status": s, "body": b"<html>sorry"} for s in (500, 501, 502, 503, 504, 529, 599)},
}


@pytest.mark.parametrize("name", MAY_PASS)
def test_what_may_pass_is_asked_again(
    http: responses.RequestsMock, waits: Waits, name: str
) -> None:
    lines: list[str] = []
    for _ in range(2):
        http.add(responses.POST, CHAT, **MAY_PASS[name])
    http.post(CHAT, json=answer())
    client = make(lines=lines)
    assert client.generate_response("", "x").text == "fine"
    assert len(http.calls) == 3
    assert lines and all(line.startswith("waiting ") for line in lines)
    assert client.total.calls == 1


def detail(text: Any) -> dict[str, Any]:
    return {"json": {"detail": text}}


def error(message: str, code: Any = None) -> dict[str, Any]:
    return {"json": {"error": {"message": message, "code": code}}}


def moved(to: str) -> dict[str, Any]:
    return {"headers": {"Location": to}}


INVALID = [{"loc": ["body", "messages"], "msg": "Field required", "input": "ECHO"}]


# status, the rest of the reply, whether it spoils all, what the message says
REFUSED: list[tuple[int, dict[str, Any], bool, str]] = [
    (400, detail("context length is 9 tokens"), False, "400 bad request: context length"),
    (400, error("too long", "context_length_exceeded"), False, "400 bad request: too long"),
    (413, {"body": b"too big"}, False, "413 .*: too big"),
    (422, detail(INVALID), False, "422 .*: body.messages: Field required$"),
    (418, {"body": b""}, False, "418"),
    (401, detail("Couldn't authenticate"), True, "401 unauthorized: Couldn't .*NEBIUS_API_KEY"),
    (402, {"body": b"Payment Required"}, True, "402 .*add credit"),
    (429, error("no more", "insufficient_quota"), True, "402 .*no more.*add credit"),
    (403, error("no"), True, "403 forbidden: no: .*NEBIUS_API_KEY"),
    (404, detail("Not Found"), True, f"404 not found: .*{CHAT}.*NEBIUS_BASE_URL"),
    (404, {"body": b"<title>Nope</title>"}, True, "a web page, 'Nope'.*NEBIUS_BASE_URL"),
    (405, detail("Method Not Allowed"), True, "405 .*NEBIUS_BASE_URL"),
    (404, detail("The model `m` does not exist."), True, "model `m`.*NEBIUS_MODEL"),
    (404, error("model 'm' not found, try pulling it first"), True, "NEBIUS_MODEL"),
    (404, error("nothing here", "model_not_found"), True, "NEBIUS_MODEL"),
    (400, error("m is not a valid model ID"), True, "NEBIUS_MODEL"),
    (400, error("Invalid model: m", 1500), True, "NEBIUS_MODEL"),
    (400, error("Model Not Exist"), True, "NEBIUS_MODEL"),
    (400, error("The model `m` has been decommissioned."), True, "NEBIUS_MODEL"),
    (400, error("The model 'm' is not supported by any provider"), True, "NEBIUS_MODEL"),
    (404, error("No endpoints found for foo/bar.", 404), True, "foo/bar: .*NEBIUS_MODEL"),
    (404, error("m is not here"), True, "m is not here: .*NEBIUS_MODEL"),
    (404, error("No allowed providers for the selected model.", 404), True, "NEBIUS_MODEL"),
    (404, error("This API deployment does not exist."), True, "NEBIUS_MODEL"),
    (410, error("This model was retired."), True, "NEBIUS_MODEL"),
    (403, error("Input flagged by moderation"), False, "403 forbidden: Input flagged"),
    (400, error("filtered", "content_filter"), False, "400 bad request: filtered"),
    (200, error("bad key", 401), True, "401.*bad key.*NEBIUS_API_KEY"),
    (301, moved("https://else.example/"), True, "redirects to https://else.example/: "),
    (307, moved("http://[broken"), True, "redirects to http:"),
    (302, {}, True, "redirects to nowhere"),
]


@pytest.mark.parametrize(("status", "reply", "spoils_all", "says"), REFUSED)
def test_what_cannot_pass_is_not_sent_again(
    http: responses.RequestsMock,
    status: int,
    reply: dict[str, Any],
    spoils_all: bool,
    says: str,
) -> None:
    http.add(responses.POST, CHAT, status=status, **reply)
    with pytest.raises(APIError, match=says) as caught:
        make().generate_response("", "x")
    posts = [call for call in http.calls if call.request.method == "POST"]
    assert len(posts) == 1
    assert isinstance(caught.value, FatalAPIError) == spoils_all
    assert "\n" not in str(caught.value)
    assert "ECHO" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "x" * 5000}},
        {"detail": ["nothing", {"loc": 3}, {"msg": None}, 4]},
        {"error": {"message": {"deep": [1]}}},
        {"error": {"message": "line\r\nline\x1b[31m\u202ered"}},
        {"message": "plain", "object": "error"},
        ["a list"],
        7,
    ],
)
def test_any_error_body_gives_one_short_clean_line(http: responses.RequestsMock, body: Any) -> None:
    http.post(CHAT, status=400, json=body)
    with pytest.raises(APIError) as caught:
        make().generate_response("", "x")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 418, 422, 429, 500])
@pytest.mark.parametrize("shape", ["detail", "error", "text", "html", "split", "escaped"])
def test_the_key_is_never_shown(
    http: responses.RequestsMock, waits: Waits, status: int, shape: str
) -> None:
    said = {
        "detail": json.dumps({"detail": f"the model with Bearer {KEY} does not exist"}),
        "error": json.dumps({"error": {"message": KEY, "code": "c"}}),
        "text": KEY,
        "html": f"<title>{KEY}</title>",
        "split": json.dumps({"detail": "x" * 280 + KEY}),
        "escaped": json.dumps({"detail": KEY}).replace(KEY[0], f"\\u{ord(KEY[0]):04x}", 1),
    }[shape]
    http.post(CHAT, status=status, body=said, headers={"Location": f"https://h/{KEY}", "X": KEY})
    lines: list[str] = []
    with pytest.raises(APIError) as caught:
        make(lines=lines, patience=30).generate_response("", "x")
    assert KEY[:12] not in leaks(caught.value) + str(lines)


ENTITIES = "".join(f"&#{ord(c)};" for c in KEY)
CODED: dict[str, bytes] = {
    "entities": f"<title>Bearer {ENTITIES}</title>".encode(),
    "hex entities": "".join(f"&#x{ord(c):X};" for c in KEY).encode(),
    "entities twice": f"<title>{ENTITIES.replace('&', '&amp;')}</title>".encode(),
    "utf-16": json.dumps({"detail": KEY}).encode("utf-16"),
    "utf-16 without mark": json.dumps({"detail": KEY}).encode("utf-16-le"),
    "url": "".join(f"%{ord(c):02X}" for c in KEY).encode(),
    "url twice": "".join(f"%25{ord(c):02X}" for c in KEY).encode(),
    "octal": "".join(f"\\{ord(c):03o}" for c in KEY).encode(),
    "a dump": KEY.encode().hex(":").encode(),
    "dashes": KEY.encode().hex("-").encode(),
    "0x": ", ".join(f"0x{ord(c):02X}" for c in KEY).encode(),
    "quoted-printable": "".join(f"={ord(c):02X}" for c in KEY).encode(),
    "decimal": str(list(KEY.encode())).encode(),
    "base64 in lines": re.sub(b"(.{13})", rb"\1\n", base64.b64encode(KEY.encode())),
    "escapes": "".join(f"\\x{ord(c):02x}" for c in KEY).encode(),
    "spaced": " ".join(KEY).encode(),
    "in pieces": re.sub("(.{7})", r"\1\n ", KEY).encode(),
    "hexadecimal": KEY.encode().hex().encode(),
    "upper case": KEY.upper().encode(),
    **{f"base64 {n}": base64.b64encode(b"x" * n + KEY.encode() + b"y") for n in range(3)},
    "base64 for urls": base64.urlsafe_b64encode(b"Bearer " + KEY.encode()),
}


@pytest.mark.parametrize("status", [401, 503])
@pytest.mark.parametrize("name", CODED)
def test_the_key_is_not_shown_in_any_code(
    http: responses.RequestsMock, waits: Waits, name: str, status: int
) -> None:
    http.post(CHAT, status=status, body=CODED[name])
    lines: list[str] = []
    with pytest.raises(APIError) as caught:
        make(lines=lines, patience=5).generate_response("", "x")
    shown = str(caught.value) + str(lines)
    assert "[key]" in shown
    pieces = [
        CODED[name].decode("utf-16" if "utf-16" in name else "ascii")[i:][:9] for i in (12, 20)
    ]
    assert not [piece for piece in pieces if piece in shown]


@pytest.mark.parametrize("host", ["x.openai.azure.com", "y.services.ai.azure.com"])
def test_azure_takes_the_key_in_a_header_of_its_own(
    http: responses.RequestsMock, host: str
) -> None:
    base = f"https://{host}/openai/deployments/d"
    http.post(f"{base}/chat/completions?api-version=1", json=answer())
    make(f"{base}?api-version=1").generate_response("", "x")
    headers = http.calls[0].request.headers
    assert headers["api-key"] == KEY and "Authorization" not in headers


@pytest.mark.parametrize("proxy", ["socks5h://127.0.0.1:1", "socks://127.0.0.1:1", "ftp://h:1"])
def test_a_proxy_that_cannot_be_used_is_one_line(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", no_socks)
    monkeypatch.setenv("ALL_PROXY", proxy)
    says = "ALL_PROXY names a proxy that cannot be used"
    says += ": pip install PySocks" if "socks" in proxy else ""
    with pytest.raises(FatalAPIError, match=says):
        make("https://models.invalid/v1").generate_response("", "x")


def no_socks(*_: Any, **__: Any) -> None:
    """What requests has in its place where PySocks is not installed."""
    raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")


def test_a_number_too_large_for_a_float_is_no_number() -> None:
    assert read_number(10**400) is None


def test_the_key_is_cut_out_of_an_answer_too(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer(f"your key is {KEY}"))
    assert make().generate_response("", "x").text == "your key is [key]"


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": " fine\n"}, "fine", ""),
        ({"content": "<think>a</think>fi<think>b</think>ne"}, "fine", "a\nb"),
        ({"content": "fine", "reasoning_content": "hm"}, "fine", "hm"),
        ({"content": "fine", "reasoning": "hm", "reasoning_content": None}, "fine", "hm"),
    ],
)
def test_thinking_is_kept_apart(
    http: responses.RequestsMock, message: dict[str, Any], text: str, reasoning: str
) -> None:
    http.post(CHAT, json=answer(**message))
    completion = make().generate_response("", "x")
    assert (completion.text, completion.reasoning) == (text, reasoning)


BROKEN: dict[str, bytes | None] = {
    "reset": None,
    "no reply": b"",
    "not http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "half a head": HEAD,
    "body shorter than announced": HEAD + b"Content-Length: 999\r\n\r\n" + FINE[:20],
    "bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + FINE,
    "chunk cut": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + FINE[:20],
    "no length, cut": HEAD + b"\r\n" + FINE[:-9],
    "not gzip": HEAD + b"Connection: close\r\nContent-Encoding: gzip\r\n\r\nabcd",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_exchange_is_tried_again(serve: Serve, waits: Waits, name: str) -> None:
    def script(connection: socket.socket, number: int) -> None:
        if number >= 1:
            connection.sendall(whole())
        elif BROKEN[name] is None:
            reset(connection)
        else:
            connection.sendall(BROKEN[name] or b"")
            connection.shutdown(socket.SHUT_RDWR)

    lines: list[str] = []
    server = serve(script)
    assert make(server.url, lines).generate_response("", "x").text == "fine"
    assert len(server.times) == 2 and len(lines) == 1


def test_a_dribbling_server_meets_the_deadline(serve: Serve, waits: Waits) -> None:
    def script(connection: socket.socket, number: int) -> None:
        if number:
            return connection.sendall(whole())
        connection.sendall(HEAD + b"Content-Length: 99999\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.02)

    lines: list[str] = []
    began = time.monotonic()
    client = make(serve(script).url, lines, deadline=0.25)
    assert client.generate_response("", "x").text == "fine"
    assert time.monotonic() - began < 0.6
    assert "no whole answer from 127.0.0.1" in lines[0]
    assert "within 0.25 s (NEBIUS_TIMEOUT)" in lines[0]


def test_a_silent_server_meets_the_deadline(serve: Serve, waits: Waits) -> None:
    def script(connection: socket.socket, number: int) -> None:
        time.sleep(0 if number else 0.3)
        connection.sendall(whole())

    lines: list[str] = []
    make(serve(script).url, lines, deadline=0.1).generate_response("", "x")
    assert "within 0.1 s" in lines[0]


def test_a_stream_ends_with_its_last_event_though_the_connection_stays(serve: Serve) -> None:
    event = json.dumps({"choices": [{"delta": {"content": "fine"}, "finish_reason": "stop"}]})

    def script(connection: socket.socket, number: int) -> None:
        connection.sendall(HEAD + f"\r\ndata: {event}\n\ndata: [DONE]\n\n".encode())
        connection.recv(1)

    began = time.monotonic()
    assert make(serve(script).url, deadline=5).generate_response("", "x").text == "fine"
    assert time.monotonic() - began < 2


def test_an_answer_above_ten_megabytes_is_cut_off(serve: Serve) -> None:
    taken: list[int] = []

    def script(connection: socket.socket, number: int) -> None:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        block = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
        for _ in range(100):
            connection.sendall(block)
            taken.append(number)

    with pytest.raises(APIError, match="larger than 10 MB"):
        make(serve(script).url).generate_response("", "x")
    assert len(taken) < 3 * 25


def test_connections_are_kept_and_not_shared(serve: Serve) -> None:
    def script(connection: socket.socket, number: int) -> None:
        time.sleep(0.01)
        connection.sendall(whole(headers="Set-Cookie: a=b\r\n"))

    server = serve(script)
    client = make(server.url)
    for _ in range(3):  # threads come and go, the connections stay
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: client.generate_response("", "x"), range(12)))
    assert len(server.times) == 36
    assert server.connections <= 4


def test_utf8_without_a_charset_and_a_byte_order_mark(serve: Serve) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(answer("Zürich"), ensure_ascii=False).encode()
    server = serve(lambda c, n: c.sendall(whole(body=body, headers="Content-Type: text/plain\r\n")))
    assert make(server.url).generate_response("", "x").text == "Zürich"


def test_a_refusal_shows_no_control_characters_and_no_long_text(
    http: responses.RequestsMock,
) -> None:
    http.post(CHAT, status=400, json={"error": {"message": "bad\x1b[2J", "param": "\x1b]0;" * 999}})
    with pytest.raises(APIError) as caught:
        make().generate_response("s", "u")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 700
