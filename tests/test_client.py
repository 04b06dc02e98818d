"""The client: how every outcome is sorted, how it waits, what it counts.

Run: pytest tests/test_client.py

`responses` stands in for HTTP; where bytes on the wire matter, a socket server on loopback does.
"""

from __future__ import annotations

import heapq
import itertools
import json
import math
import random
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any

import pytest
import requests
import responses

import client as module
from client import APIError, Client, FatalAPIError, Interrupted, Usage

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


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Waiting takes no time; what was waited is recorded."""
    waits = Waits()

    def pause(gate: module._Gate, seconds: float) -> None:
        if gate.stopped:
            raise Interrupted
        waits.append(seconds)
        waits.now += seconds

    def slow_init(gate: module._Gate, patience: float, notify: Any) -> None:
        original(gate, patience, notify, lambda: waits.now)

    original = module._Gate.__init__
    monkeypatch.setattr(module._Gate, "__init__", slow_init)
    monkeypatch.setattr(module._Gate, "_pause", pause)
    return waits


@pytest.fixture
def http() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


def make(url: str = BASE, lines: list[str] | None = None, **kwargs: Any) -> Client:
    notify: Callable[[str], None] = (lambda line: None) if lines is None else lines.append
    kwargs.setdefault("models", {"agent": "m", "task": "m", "judge": "m"})
    return Client(KEY, url, notify=notify, **kwargs)


def sent(http: responses.RequestsMock, number: int = 0) -> dict[str, Any]:
    body = http.calls[number].request.body
    assert isinstance(body, bytes)
    return dict(json.loads(body))


# --- the request


def test_sends_what_the_api_expects(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer())
    extra = {"reasoning_effort": "none"}
    completion = make(extra_body=extra).generate_response("be brief", "hello", role="agent")
    request = http.calls[0].request
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.headers["Content-Type"] == "application/json"
    assert sent(http) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hello"},
        ],
        "temperature": 1.0,
        "max_tokens": 4096,
        "reasoning_effort": "none",
    }
    assert (completion.text, completion.finish_reason) == ("fine", "stop")
    assert (completion.prompt_tokens, completion.completion_tokens) == (7, 5)


def test_an_empty_system_prompt_sends_no_system_message(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer())
    make().generate_response("", "hello")
    assert sent(http)["messages"] == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(("role", "temperature"), [("agent", 1.0), ("task", 0.4), ("judge", 0.0)])
def test_each_role_has_its_model_and_temperature(
    http: responses.RequestsMock, role: str, temperature: float
) -> None:
    http.post(CHAT, json=answer())
    models = {"agent": "a", "task": "t", "judge": "j"}
    make(models=models, temperature=0.4).generate_response("", "x", role=role)
    assert (sent(http)["model"], sent(http)["temperature"]) == (role[0], temperature)


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
        (module.BASE_URL, "https://api.tokenfactory.nebius.com/v1/chat/completions"),
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
    with pytest.raises(FatalAPIError, match="empty"):
        Client(" \n", BASE)


@pytest.mark.parametrize(
    "extra", [{"stream": True}, {"model": "x"}, {"top_p": math.nan}, {"a": {1}}]
)
def test_extra_fields_that_cannot_work_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(FatalAPIError, match="NEBIUS_EXTRA_BODY"):
        make(extra_body=extra)


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
    assert client._wire._proxies == {}
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:1")
    assert make("https://h.example")._wire._proxies["https"] == "http://proxy.example:1"


def test_a_certificate_bundle_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", "/not/there.pem")
    with pytest.raises(FatalAPIError, match="SSL_CERT_FILE names a file that is not there"):
        make()


# --- sorting: what may pass

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
    assert len(lines) == 2 and all(line.startswith("waiting ") for line in lines)
    assert client.total.calls == 1


# --- sorting: what spoils this experiment, or all


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


def leaks(error: BaseException | None) -> str:
    """All that an exception and its chain could ever show."""
    shown = ""
    while error is not None:
        shown += "".join(traceback.format_exception(error)) + repr(error.args) + repr(vars(error))
        request = getattr(error, "request", None)
        shown += repr(getattr(request, "headers", ""))
        error = error.__cause__ or error.__context__
    return shown


@pytest.mark.parametrize("status", [200, 302, 400, 401, 402, 403, 404, 418, 422, 429, 500])
@pytest.mark.parametrize("shape", ["detail", "error", "text", "html", "split"])
def test_the_key_is_never_shown(
    http: responses.RequestsMock, waits: Waits, status: int, shape: str
) -> None:
    said = {
        "detail": json.dumps({"detail": f"the model with Bearer {KEY} does not exist"}),
        "error": json.dumps({"error": {"message": KEY, "code": "c"}}),
        "text": KEY,
        "html": f"<title>{KEY}</title>",
        "split": json.dumps({"detail": "x" * 280 + KEY}),
    }[shape]
    http.post(CHAT, status=status, body=said, headers={"Location": f"https://h/{KEY}", "X": KEY})
    lines: list[str] = []
    with pytest.raises(APIError) as caught:
        make(lines=lines, patience=30).generate_response("", "x")
    assert KEY[:12] not in leaks(caught.value) + str(lines)


def test_the_key_is_cut_out_of_an_answer_too(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer(f"your key is {KEY}"))
    assert make().generate_response("", "x").text == "your key is [key]"


# --- answers


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": " fine\n"}, "fine", ""),
        ({"content": [{"type": "text", "text": "fi"}, {"type": "text", "text": "ne"}]}, "fine", ""),
        ({"content": "<think>hm</think>fine"}, "fine", "hm"),
        ({"content": "<think>a</think>fi<think>b</think>ne"}, "fine", "a\nb"),
        ({"content": "hm, well</think>\nfine"}, "fine", "hm, well"),
        ({"content": "fine", "reasoning_content": "hm"}, "fine", "hm"),
        ({"content": "fine", "reasoning": "hm", "reasoning_content": None}, "fine", "hm"),
        ({"content": "Zürich \ud83d"}, "Zürich \ud83d", ""),
    ],
)
def test_thinking_is_kept_apart(
    http: responses.RequestsMock, message: dict[str, Any], text: str, reasoning: str
) -> None:
    http.post(CHAT, json=answer(**message))
    completion = make().generate_response("", "x")
    assert (completion.text, completion.reasoning) == (text, reasoning)


UNUSABLE: list[tuple[Any, str]] = [
    (answer(None), "no text in the answer"),
    (answer(""), "no text in the answer"),
    (answer(" \n"), "no text in the answer"),
    (answer(["?", 3, {"image": 1}, {"text": None}][1:]), "no text in the answer"),
    (answer("<think>still thinking", "length"), "NEBIUS_EXTRA_BODY="),
    (answer("<think>hm</think>"), "NEBIUS_EXTRA_BODY="),
    (answer(None, reasoning="the answer"), "m: it only thought.*enable_thinking"),
    (answer(None, refusal="I will not"), "the model refused: I will not"),
    (answer("half an ans", "content_filter"), "content filter"),
    ({"choices": []}, "no choices"),
    ({"choices": None, "usage": None}, "no choices"),
    ({"choices": {"0": 1}}, "no choices"),
    ({"choices": [None]}, "no choices"),
    ({"choices": [{"message": None}]}, "no text"),
    ({"choices": [{"message": "text"}]}, "no text"),
    ([1], "no choices"),
    ("fine", "no choices"),
]


@pytest.mark.parametrize(("body", "says"), UNUSABLE)
def test_an_unusable_answer_is_asked_for_three_times(
    http: responses.RequestsMock, waits: Waits, body: Any, says: str
) -> None:
    http.post(CHAT, json=body)
    client = make()
    spent = Usage()
    with pytest.raises(APIError, match=says) as caught:
        client.generate_response("", "x", spent=spent)
    assert not isinstance(caught.value, FatalAPIError)
    assert len(http.calls) == client.total.calls == spent.calls == 3
    assert not waits


def test_billed_but_unusable_answers_are_counted(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer(None))
    http.post(CHAT, json=answer())
    client, spent = make(), Usage()
    assert client.generate_response("", "x", spent=spent).text == "fine"
    assert (spent.calls, spent.prompt_tokens, spent.completion_tokens) == (2, 14, 10)
    assert client.total.tokens == 24


def test_a_cut_answer_is_kept_for_the_task_and_refused_for_the_others(
    http: responses.RequestsMock,
) -> None:
    http.post(CHAT, json=answer("half a sent", "length"))
    completion = make().generate_response("", "x")
    assert (completion.text, completion.finish_reason) == ("half a sent", "length")
    for role in ("agent", "judge"):
        with pytest.raises(APIError, match="cut off at max_tokens"):
            make().generate_response("", "x", role=role)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        (None, (None, None)),
        ({"prompt_tokens": "3", "completion_tokens": 2.0}, (3, 2)),
        ({"prompt_tokens": -1, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": [], "completion_tokens": 2}, (None, 2)),
    ],
)
def test_a_missing_count_is_unknown_and_not_zero(
    http: responses.RequestsMock, usage: Any, counts: tuple[int | None, int | None]
) -> None:
    http.post(CHAT, json={**answer(), "usage": usage})
    client = make()
    client._catalogue = {"m": {"pricing": {"prompt": 1, "completion": 1}}}
    completion = client.generate_response("", "x")
    assert (completion.prompt_tokens, completion.completion_tokens) == counts
    assert (client.total.cost is None) == (None in counts)


# --- models, prices, preflight

MODELS = BASE + "/models"


def test_the_retired_default_is_replaced_once_for_all_roles(http: responses.RequestsMock) -> None:
    gone = f"The model `{module.DEFAULT_MODEL}` does not exist."
    match = responses.matchers.json_params_matcher
    by_model = {"model": module.DEFAULT_MODEL}
    http.post(CHAT, status=404, json={"detail": gone}, match=[match(by_model, strict_match=False)])
    http.post(CHAT, json=answer())
    lines: list[str] = []
    client = make(models={"judge": "own"}, lines=lines)
    for role in ("task", "agent", "judge"):
        assert client.generate_response("", "x", role=role).text == "fine"
    fallback = module.FALLBACK_MODEL
    assert client.models == {"agent": fallback, "task": fallback, "judge": "own"}
    assert len(lines) == 1 and fallback in lines[0]


@pytest.mark.parametrize("chosen", [module.DEFAULT_MODEL, "meta-llama/Lama-3.3"])
def test_a_chosen_model_is_never_replaced(http: responses.RequestsMock, chosen: str) -> None:
    served = ["z/other", "meta-llama/Llama-3.3", "meta-llama/Llama-3.1", "a", "b", "c", "d"]
    http.get(MODELS, json={"data": [{"id": name} for name in served]})
    http.post(CHAT, status=404, json={"detail": f"The model `{chosen}` does not exist."})
    with pytest.raises(FatalAPIError, match="nearest served: meta-llama/Llama-3.[13], ") as caught:
        make(models={"agent": chosen, "task": chosen, "judge": chosen}).preflight()
    assert str(caught.value).count(",") == 4


def test_preflight_asks_each_model_once_and_reads_the_list(http: responses.RequestsMock) -> None:
    entry = {
        "id": "t",
        "pricing": {"prompt": "0.0000002", "completion": 6e-7},
        "context_length": 131072,
        "per_request_limits": {"requests_per_minute": 1200},
    }
    http.get(MODELS, json={"data": [entry, {"id": "j", "pricing": {"prompt": "-1"}}, {"id": 3}, 4]})
    http.post(CHAT, json=answer())
    client = make(models={"agent": "t", "task": "t", "judge": "j"})
    result = client.preflight()
    first, second = result.models
    assert (first.id, first.roles, first.price) == ("t", ("agent", "task"), (2e-7, 6e-7))
    assert (first.context_length, first.requests_per_minute) == (131072, 1200)
    assert (first.prompt_tokens, first.completion_tokens) == (7, 5)
    assert (second.id, second.price, second.context_length) == ("j", None, None)
    assert result.problems == ["the server names no price for j"]
    assert client.price("agent") == (2e-7, 6e-7) and client.price("judge") is None
    assert client.total.cost is None
    assert http.calls[0].request.url == MODELS + "?verbose=true"
    spent = Usage()
    client.generate_response("", "x", spent=spent)
    assert spent.cost == pytest.approx(7 * 2e-7 + 5 * 6e-7)


@pytest.mark.parametrize(
    "reply",
    [{"status": 404}, {"status": 401}, {"json": {"data": None}}, {"body": b"<html>"}, {"json": 3}],
)
def test_a_server_without_a_list_of_models_is_no_obstacle(
    http: responses.RequestsMock, waits: Waits, reply: dict[str, Any]
) -> None:
    http.add(responses.GET, MODELS, **reply)
    http.post(CHAT, json=answer())
    client = make()
    problems = client.preflight().problems
    assert len(problems) == 1 and problems[0].startswith("no prices and limits: ")
    assert client.price("task") is None and client.total.cost is None


def test_preflight_reports_a_model_that_only_thinks_and_goes_on(
    http: responses.RequestsMock, waits: Waits
) -> None:
    http.get(MODELS, status=404)
    http.post(CHAT, json=answer(None, reasoning="hm"))
    assert "NEBIUS_EXTRA_BODY" in make().preflight().problems[-1]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 422])
def test_what_preflight_cannot_pass_is_fatal(http: responses.RequestsMock, status: int) -> None:
    http.get(MODELS, status=404)
    http.post(CHAT, status=status, json={"detail": "no"})
    with pytest.raises(FatalAPIError, match=str(status)):
        make().preflight()


# --- waiting


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "2s"}, 2),
        ({"Retry-After": "1m30s"}, 90),
        ({"Retry-After": "250ms"}, 0.25),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"Retry-After": "999999"}, 120),
        ({"Retry-After": "0"}, 0),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 500])
def test_waits_as_long_as_the_server_asks(
    http: responses.RequestsMock, waits: Waits, headers: dict[str, str], seconds: float, status: int
) -> None:
    http.post(CHAT, status=status, headers=headers)
    http.post(CHAT, json=answer())
    make().generate_response("", "x")
    assert sum(waits) == pytest.approx(seconds)


def test_a_date_to_retry_after_is_waited_for(http: responses.RequestsMock, waits: Waits) -> None:
    http.post(CHAT, status=503, headers={"Retry-After": formatdate(time.time() + 20, usegmt=True)})
    http.post(CHAT, json=answer())
    make().generate_response("", "x")
    assert 18 < sum(waits) <= 20


@pytest.mark.parametrize(
    "value", ["soon", "-1", "1e9", "nan", "", "Mon, 99 Foo", "Tue, 01 Jan 2019 00:00:00 GMT"]
)
def test_a_retry_after_that_says_nothing_is_ignored(
    http: responses.RequestsMock, waits: Waits, value: str
) -> None:
    http.post(CHAT, status=503, headers={"Retry-After": value})
    http.post(CHAT, json=answer())
    make().generate_response("", "x")
    assert 1 <= sum(waits) <= 2


def test_waits_grow_up_to_a_minute(http: responses.RequestsMock, waits: Waits) -> None:
    http.post(CHAT, status=503)
    lines: list[str] = []
    with pytest.raises(FatalAPIError, match="start the same command again"):
        make(lines=lines).generate_response("", "x")
    shown = [float(line.split()[1]) for line in lines]
    assert shown[:-1] == sorted(shown[:-1]) and 1 <= shown[0] <= 2  # the last: patience's rest
    assert 50 < max(shown) <= 60
    assert sum(waits) == pytest.approx(1800, rel=1e-6)
    assert "attempt 3: 503 service unavailable" in lines[2]


def test_progress_resets_the_clock_of_patience(http: responses.RequestsMock, waits: Waits) -> None:
    client = make(patience=100)
    for _ in range(6):
        http.post(CHAT, status=503, headers={"Retry-After": "60"})
        http.post(CHAT, json=answer())
        client.generate_response("", "x")
        waits.now += 1000  # idle: nothing was asked for, so nothing failed
    assert sum(waits) == 360


def test_a_call_that_alone_fails_spoils_only_its_experiment(
    http: responses.RequestsMock, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(patience=100)
    http.post(CHAT, status=500)
    failed = client._gate.failed

    def others_succeed(turn: Any, failure: Any) -> float:
        client._gate._failing_since = None
        return failed(turn, failure)

    monkeypatch.setattr(client._gate, "failed", others_succeed)
    monkeypatch.setattr(time, "monotonic", lambda: waits.now)
    with pytest.raises(APIError, match="no success after") as caught:
        client.generate_response("", "x")
    assert not isinstance(caught.value, FatalAPIError)


def test_a_server_that_was_never_reached_is_given_up_soon(waits: Waits) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(FatalAPIError, match="refused: check NEBIUS_BASE_URL") as caught:
        make(url).generate_response("", "x")
    assert sum(waits) == pytest.approx(10)
    assert KEY not in leaks(caught.value)
    waits.clear()
    client = make(url, patience=1800)
    client._gate.succeeded = True
    with pytest.raises(FatalAPIError, match="no success for 30 minutes"):
        client.generate_response("", "x")


def test_stop_ends_a_wait_at_once(http: responses.RequestsMock) -> None:
    http.post(CHAT, status=503, headers={"Retry-After": "60"})
    client = make()
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(client.generate_response, "", "x") for _ in range(3)]
        time.sleep(0.1)
        began = time.monotonic()
        client.stop()
        for call in calls:
            with pytest.raises(Interrupted):
                call.result()
    assert time.monotonic() - began < 0.5


def test_after_stop_a_call_that_need_not_wait_goes_on(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer())
    client = make()
    client.stop()
    assert client.generate_response("", "x").text == "fine"


# --- bytes on the wire


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


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket, int], None]], Server]]:
    servers: list[Server] = []

    def start(script: Callable[[socket.socket, int], None]) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


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
BROKEN: dict[str, bytes | None] = {
    "reset": None,
    "no reply": b"",
    "not http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "half a head": HEAD,
    "body shorter than announced": HEAD + b"Content-Length: 999\r\n\r\n" + FINE[:20],
    "bad chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + FINE,
    "chunk cut": HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + FINE[:20],
    "no length, cut": HEAD + b"\r\n" + FINE[:-9],
    "not gzip": HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
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


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_dribbling_server_meets_the_deadline(serve: Serve, waits: Waits, part: str) -> None:
    def script(connection: socket.socket, number: int) -> None:
        if number:
            return connection.sendall(whole())
        connection.sendall(HEAD if part == "head" else HEAD + b"Content-Length: 99999\r\n\r\n")
        for _ in range(100):
            connection.sendall(b"x")
            time.sleep(0.02)

    lines: list[str] = []
    began = time.monotonic()
    client = make(serve(script).url, lines, deadline=0.25)
    assert client.generate_response("", "x").text == "fine"
    assert time.monotonic() - began < 0.6
    assert "no whole answer from 127.0.0.1" in lines[0] and "within 0.25 s" in lines[0]


def test_a_silent_server_meets_the_deadline(serve: Serve, waits: Waits) -> None:
    def script(connection: socket.socket, number: int) -> None:
        time.sleep(0 if number else 0.3)
        connection.sendall(whole())

    lines: list[str] = []
    make(serve(script).url, lines, deadline=0.1).generate_response("", "x")
    assert "within 0.1 s" in lines[0]


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


def test_an_outside_judge_sees_right_conduct(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.1, 1.0))
    steps = [
        whole("429 Too Many Requests", b"{}", "Retry-After: 0.1\r\n"),
        whole("503 Service Unavailable", b"busy"),
        whole(),
        whole("400 Bad Request", b"{}"),
    ]

    def script(connection: socket.socket, number: int) -> None:
        time.sleep(0.1 if number == 2 else 0)
        connection.sendall(steps[number])

    server = serve(script)
    client = make(server.url)
    assert client.generate_response("", "x").text == "fine"
    with pytest.raises(APIError):
        client.generate_response("", "x")
    assert len(server.times) == 4
    first, second = server.times[1] - server.times[0], server.times[2] - server.times[1]
    assert 0.1 <= first <= second + 0.02 <= 0.6


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_all_wait_together_and_no_burst_follows(serve: Serve, status: str) -> None:
    lock = threading.Lock()
    refused: list[float] = []
    under_way = [0]
    crowd: list[int] = []

    def script(connection: socket.socket, number: int) -> None:
        with lock:
            under_way[0] += 1
            if refused:
                crowd.append(under_way[0])
        time.sleep(0.03)
        if number < 8:
            refused.append(time.monotonic())
            reply = whole(status, b"{}", "Retry-After: 0.2\r\n")
        else:
            reply = whole()
        with lock:
            under_way[0] -= 1
        connection.sendall(reply)

    lines: list[str] = []
    server = serve(script)
    client = make(server.url, lines)
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: client.generate_response("", "x"), range(24)))) == 24
    after = [moment for moment in server.times if moment > refused[0] + 0.02]
    assert after[0] - refused[0] >= 0.19, "all wait, those too that were not refused"
    assert len(lines) == 1, "one line per wait, not one per worker"
    assert crowd[0] == 1 and after[1] - after[0] >= 0.03, "one call tries, the others follow"


def test_a_lone_failure_does_not_stop_the_others(serve: Serve) -> None:
    def script(connection: socket.socket, number: int) -> None:
        connection.sendall(whole("500 Internal Server Error", b"") if number == 3 else whole())

    client = make(serve(script).url)
    client._gate.sleep = lambda seconds: None  # type: ignore[method-assign]
    for _ in range(8):
        client.generate_response("", "x")
    assert client._gate._wave == 0


def test_many_threads_lose_no_count(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_SECONDS", (0.001, 0.002))
    faults = {3: whole("500 Oops", b""), 5: whole("200 OK", b"{"), 7: whole("429 Slow", b"{}")}

    def script(connection: socket.socket, number: int) -> None:
        if number % 20 == 9:
            reset(connection)
        else:
            connection.sendall(faults.get(number % 20, whole()))

    client, spent = make(serve(script).url), Usage()
    client._gate._patience = 60.0
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(client.generate_response, "", "x", spent=spent) for _ in range(200)]
        assert {call.result().text for call in calls} == {"fine"}
    assert client.total.calls == spent.calls == 200
    assert client._gate._paces["m"].running == 0


# --- pace, on a clock of its own


class Bucket:
    """A token bucket of 60 a minute; resets: when it is full again."""

    def __init__(self, size: float) -> None:
        self.limit = self.level = size
        self.at = 0.0

    def take(self, now: float) -> bool:
        self.level = min(self.limit, self.level + now - self.at)
        self.at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True

    def state(self, now: float) -> tuple[float, float, float]:
        """Calls left, seconds until the reset, seconds until one more call."""
        return int(self.level), self.limit - self.level, max(0.0, 1 - self.level)


class Window:
    """60 in each minute, or (sliding) in the last minute before any moment."""

    limit = 60.0

    def __init__(self, sliding: bool) -> None:
        self.sliding = sliding
        self.taken: list[float] = []

    def take(self, now: float) -> bool:
        begin = now - 60 if self.sliding else now // 60 * 60
        self.taken = [moment for moment in self.taken if moment >= begin]
        if len(self.taken) >= self.limit:
            return False
        self.taken.append(now)
        return True

    def state(self, now: float) -> tuple[float, float, float]:
        reset = (self.taken[0] if self.sliding else now // 60 * 60) + 60 - now
        return self.limit - len(self.taken), reset, reset


def ideal(server: Bucket | Window, calls: int) -> float:
    """Seconds that the limit itself needs for so many calls."""
    now = 0.0
    while calls:
        if server.take(now):
            calls -= 1
        else:
            now += 0.05
    return now


def simulate(
    server: Bucket | Window, calls: int, latency: float, headers: bool, lifted: float = math.inf
) -> tuple[float, int]:
    """Seconds and refusals of 16 workers that make so many calls, the first one alone."""
    rng = random.Random(7)
    now = 0.0
    gate = module._Gate(math.inf, lambda line: None, lambda: now)
    ready = [0.0] * 16  # when each idle worker wants to begin
    events: list[Any] = []
    order = itertools.count()
    begun = done = refused = 0
    owed = 0  # refused calls that their workers have to repeat
    while done < calls:
        wake = math.inf
        for when in sorted(ready):
            if not owed and (begun == calls or (begun == 1 and not done)):
                break
            start = max(when, now + gate.delay("m"))
            if start > now:
                wake = min(wake, start)
                break
            ready.remove(when)
            owed, begun = (owed - 1, begun) if owed else (0, begun + 1)
            arrives = now + latency * rng.uniform(0.2, 0.8)
            heapq.heappush(events, (arrives, next(order), gate.begin("m"), None))
        if wake < (events[0][0] if events else math.inf):
            now = wake + 1e-9
            continue
        now, _, turn, reply = heapq.heappop(events)
        if reply is None:
            ok = now > lifted or server.take(now)
            left, resets, after = server.state(now)
            told = {
                "x-ratelimit-limit-requests": f"{server.limit:.0f}",
                "x-ratelimit-remaining-requests": f"{left:.0f}",
                "x-ratelimit-reset-requests": f"{resets:.2f}s",
            }
            told = told if headers and now < lifted else {}
            if not ok:
                told["Retry-After"] = str(math.ceil(after))
            heapq.heappush(events, (now + latency / 2, next(order), turn, (ok, told)))
        elif reply[0]:
            gate.answered(turn, reply[1])
            done += 1
            ready.append(now)
        else:
            refused += 1
            owed += 1
            ready.append(now + gate.failed(turn, module._MayPass("slow", 429, reply[1])))
    return now, refused


SERVERS: dict[str, Callable[[], Bucket | Window]] = {
    "bucket of 60": lambda: Bucket(60),
    "bucket of 10": lambda: Bucket(10),
    "fixed window": lambda: Window(False),
    "sliding window": lambda: Window(True),
}


@pytest.mark.parametrize("latency", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", SERVERS)
def test_keeps_just_below_the_limit_that_headers_tell(name: str, latency: float) -> None:
    seconds, refused = simulate(SERVERS[name](), 250, latency, headers=True)
    assert seconds <= 1.15 * ideal(SERVERS[name](), 250)
    assert refused <= 0.05 * 250


@pytest.mark.parametrize("latency", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("name", SERVERS)
def test_learns_the_pace_from_refusals_alone(name: str, latency: float) -> None:
    seconds, refused = simulate(SERVERS[name](), 600, latency, headers=False)
    assert seconds <= 1.2 * 600  # one a second
    # 16 were under way when the first refusal came: they are lost once.
    assert refused - 16 <= 0.05 * 600


def test_full_speed_returns_when_the_limit_is_lifted() -> None:
    seconds, _ = simulate(Bucket(10), 4000, 0.1, headers=False, lifted=120)
    assert seconds < 120 + 400
    seconds, _ = simulate(Bucket(10), 4000, 0.1, headers=True, lifted=120)
    assert seconds < 120 + 60


def test_without_a_limit_the_pace_costs_nothing() -> None:
    gate = module._Gate(1800, lambda line: None)
    turns = [gate.enter("m") for _ in range(1000)]
    for turn in turns:
        gate.answered(turn, {})
    assert gate.delay("m") == 0


def test_notices_go_where_notify_points_at_that_moment(
    http: responses.RequestsMock, waits: Waits
) -> None:
    http.post(CHAT, status=503)
    http.post(CHAT, json=answer())
    before: list[str] = []
    after: list[str] = []
    client = make(lines=before)
    client.notify = after.append
    client.generate_response("", "x")
    assert not before and len(after) == 1
