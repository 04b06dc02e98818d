"""The client: roles and models, what is asked again, what is counted, preflight.

Run: pytest tests/test_client.py
"""

from __future__ import annotations

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import responses

from autoresearch.api import pace
from autoresearch.api.exchange import APIError, FatalAPIError
from autoresearch.api.models import ModelCheck
from client import DEFAULT_MODEL, FALLBACK_MODEL, Usage
from tests.servers import (
    BASE,
    CHAT,
    KEY,
    Serve,
    Waits,
    answer,
    make,
    reset,
    sent,
    whole,
)


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
        "stream": False,
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


@pytest.mark.parametrize("extra", [{"stream": True}, {"model": "x"}, {"n": 2}, {"temperature": 0}])
def test_extra_fields_that_cannot_work_are_refused(extra: dict[str, Any]) -> None:
    with pytest.raises(FatalAPIError, match="NEBIUS_EXTRA_BODY"):
        make(extra_body=extra)


UNUSABLE: list[tuple[Any, str]] = [
    (answer("<think>still thinking", "length"), "NEBIUS_EXTRA_BODY="),
    (answer("<think>hm</think>"), "NEBIUS_EXTRA_BODY="),
    (answer("", "length"), "raise max_tokens"),
    (answer(None, reasoning="the answer"), "m: it only thought.*enable_thinking"),
    (answer(None, refusal="I will not"), "the model refused: I will not"),
    (answer("half an ans", "content_filter"), "content filter"),
    (answer("", "SAFETY"), "content filter"),
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


NO_ANSWER: list[tuple[Any, str]] = [
    (answer(None), "no text in the answer"),
    (answer(" \n"), "no text in the answer"),
    (answer([3, {"image": 1}, {"text": None}]), "no text in the answer"),
    (answer("half an ans", "error"), "broke off"),
    ({"choices": [{"message": "text"}]}, "no text"),
    ({"choices": []}, r'200 and no answer: {"choices": \[\]}'),
    ({"choices": [None], "msg": "queue full"}, "200 and no answer: queue full"),
    ({"choices": {"0": 1}, "usage": None}, "no answer"),
    ([1], "not whole JSON|no answer"),
    ("fine", "not whole JSON|no answer"),
    ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rpm"}}, "no answer: rpm"),
    ({"object": "error", "message": "engine is dead"}, "no answer: engine is dead"),
    ({"code": 500, "success": False, "msg": "sorry"}, "500 internal server error: sorry"),
    (
        {"choices": [{"error": {"code": 429, "message": "slow"}, "finish_reason": "error"}]},
        "429 too many requests: slow",
    ),
]


@pytest.mark.parametrize(("body", "says"), NO_ANSWER)
def test_a_200_that_is_no_answer_is_an_outage(
    http: responses.RequestsMock, waits: Waits, body: Any, says: str
) -> None:
    for _ in range(9):
        http.post(CHAT, json=body)
    http.post(CHAT, json=answer())
    lines: list[str] = []
    assert make(lines=lines).generate_response("", "x").text == "fine"
    assert sum(waits) > 60 and re.search(says, lines[0])


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        ((500, {}, "oops"), "500.*oops"),
        ((403, {}, "<title>A firewall</title>"), "403.*A firewall"),
        (ConnectionResetError("reset by peer"), "broke: .*reset by peer"),
    ],
)
def test_a_request_that_alone_is_never_answered_spoils_its_experiment(
    http: responses.RequestsMock, waits: Waits, fails: Any, says: str
) -> None:
    """Another request is answered meanwhile: so it is no outage. The next time is shorter."""

    def reply(request: Any) -> Any:
        return fails if b"poison" in request.body else (200, {}, json.dumps(answer()))

    http.add_callback(responses.POST, CHAT, reply)
    client = make()
    client.generate_response("", "x")
    http.calls.reset()
    for calls in (6, 4):
        with pytest.raises(APIError, match=says) as caught:
            client.generate_response("", "poison")
        assert not isinstance(caught.value, FatalAPIError)
        assert len(http.calls) == calls
        http.calls.reset()
    assert sum(waits) < 40
    assert client.generate_response("", "x").text == "fine"


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405])
def test_what_has_worked_keeps_its_credit(
    http: responses.RequestsMock, waits: Waits, status: int
) -> None:
    http.post(CHAT, json=answer())
    for _ in range(6):  # the fifth of them meets the question whether another one is answered
        http.post(CHAT, status=status, json={"detail": "no"})
    http.post(CHAT, json=answer())
    client = make()
    assert [client.generate_response("", "x").text for _ in range(2)] == ["fine", "fine"]
    assert sum(waits) > 20


def test_billed_but_unusable_answers_are_counted(http: responses.RequestsMock) -> None:
    http.post(CHAT, json=answer(None, refusal="no"))
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
    client._servers["task"].listed["m"] = ModelCheck("m", price=(1, 1))
    completion = client.generate_response("", "x")
    assert (completion.prompt_tokens, completion.completion_tokens) == counts
    assert (client.total.cost is None) == (None in counts)


LIMIT = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
FULL = (
    "The maximum length is 4096 tokens, you want 4196 (100 in the messages, 4096 in the completion)"
)
REFUSED_PARTS: list[tuple[int, str, Any, Any]] = [
    (400, LIMIT, lambda b: "max_tokens" in b, lambda b: b["max_completion_tokens"] == 4096),
    (422, "max_tokens: extra inputs are not permitted", lambda b: any("max" in n for n in b), any),
    (400, FULL, lambda b: any("max" in n for n in b), any),
    (
        400,
        "`temperature` (=0.0) has to be strictly positive",
        lambda b: not b.get("temperature", 1),
        any,
    ),
    (
        422,
        "body.temperature: Input should be greater than 0",
        lambda b: not b.get("temperature", 1),
        any,
    ),
    (400, "Unrecognized request argument supplied: stream", lambda b: "stream" in b, any),
    (400, "'temperature' does not support 0.7: only 1", lambda b: "temperature" in b, any),
    (
        400,
        "System role not supported",
        lambda b: b["messages"][0]["role"] == "system",
        lambda b: b["messages"] == [{"role": "user", "content": "be brief\n\nhello"}],
    ),
    (
        500,
        "Conversation roles must alternate user/assistant",
        lambda b: len(b["messages"]) > 1,
        any,
    ),
    (400, "Developer instruction is not enabled", lambda b: len(b["messages"]) > 1, any),
]


@pytest.mark.parametrize(("status", "said", "refuses", "asked"), REFUSED_PARTS)
def test_a_part_that_a_server_refuses_is_left_out_for_the_rest_of_the_night(
    http: responses.RequestsMock, waits: Waits, status: int, said: str, refuses: Any, asked: Any
) -> None:
    def reply(request: Any) -> tuple[int, dict[str, str], str]:
        refused = refuses(json.loads(request.body))
        body = {"error": {"message": said}} if refused else answer()
        return status if refused else 200, {}, json.dumps(body)

    http.add_callback(responses.POST, CHAT, reply)
    lines: list[str] = []
    client = make(lines=lines)
    for role in ("task", "judge", "agent"):
        assert client.generate_response("be brief", "hello", role=role).text == "fine"
    assert asked(sent(http, -1)) and len(http.calls) <= 5
    told = [line for line in lines if "does not take" in line]
    assert 1 <= len(told) == len(set(told)) <= 2


def test_a_400_about_something_else_changes_no_request(http: responses.RequestsMock) -> None:
    http.post(CHAT, status=400, json={"error": {"message": "what is the temperature? flagged"}})
    with pytest.raises(APIError, match="flagged"):
        make().generate_response("", "x")
    assert len(http.calls) == 1


def test_each_server_gets_its_own_key(http: responses.RequestsMock) -> None:
    other = "http://127.0.0.1:10/v1"
    http.post(CHAT, json=answer("small"))
    http.post(other + "/chat/completions", json=answer("strong"))
    client = make(servers={"agent": ("the-key-of-the-agent", other)})
    assert client.generate_response("", "x", role="agent").text == "strong"
    assert client.generate_response("", "x", role="judge").text == "small"
    keys = [call.request.headers["Authorization"] for call in http.calls]
    assert keys == ["Bearer the-key-of-the-agent", f"Bearer {KEY}"]
    with pytest.raises(FatalAPIError, match="NEBIUS_AGENT_BASE_URL"):
        make(servers={"agent": (KEY, "nonsense")})


def test_the_first_input_may_be_refused_while_others_are_answered(
    http: responses.RequestsMock, waits: Waits
) -> None:
    def reply(request: Any) -> tuple[int, dict[str, str], str]:
        bad = b"poison" in request.body
        return 400 if bad else 200, {}, json.dumps({"detail": "filtered"} if bad else answer())

    http.add_callback(responses.POST, CHAT, reply)
    http.get(MODELS, status=404)
    assert "400 bad request: filtered" in make().preflight("", "poison").problems


MODELS = BASE + "/models"


def test_the_retired_default_is_replaced_once_for_all_roles(http: responses.RequestsMock) -> None:
    gone = f"The model `{DEFAULT_MODEL}` does not exist."
    match = responses.matchers.json_params_matcher
    by_model = {"model": DEFAULT_MODEL}
    http.post(CHAT, status=404, json={"detail": gone}, match=[match(by_model, strict_match=False)])
    http.post(CHAT, json=answer())
    lines: list[str] = []
    client = make(models={"judge": "own"}, lines=lines)
    for role in ("task", "agent", "judge"):
        assert client.generate_response("", "x", role=role).text == "fine"
    fallback = FALLBACK_MODEL
    assert client.models == {"agent": fallback, "task": fallback, "judge": "own"}
    assert len(lines) == 1 and fallback in lines[0]


@pytest.mark.parametrize("removed_at", ["night", "another server"])
def test_the_default_is_not_replaced_where_that_would_not_do(
    http: responses.RequestsMock, waits: Waits, removed_at: str
) -> None:
    http.get(MODELS, json={"data": [{"id": "a/b"}]} if removed_at != "night" else {})
    client = make(models={})
    if removed_at == "night":
        http.post(CHAT, json=answer())
        client.preflight()
    http.remove(responses.POST, CHAT)
    http.post(CHAT, status=404, json={"detail": f"The model `{DEFAULT_MODEL}` does not exist."})
    with pytest.raises(FatalAPIError, match="choose another model"):
        client.generate_response("", "x") if removed_at == "night" else client.preflight()
    assert set(client.models.values()) == {DEFAULT_MODEL}


def test_an_answer_of_unknown_price_is_charged_as_the_dearest() -> None:
    usage = Usage()
    for cost in (0.1, 0.3, None, 0.2):
        usage.add(1, 1, cost)
    assert usage.cost is None and usage.charged == pytest.approx(0.9)


@pytest.mark.parametrize("chosen", [DEFAULT_MODEL, "meta-llama/Lama-3.3"])
def test_a_chosen_model_is_never_replaced(http: responses.RequestsMock, chosen: str) -> None:
    served = ["z/other", "meta-llama/Llama-3.3", "meta-llama/Llama-3.1", "a", "b", "c", "d"]
    http.get(MODELS, json={"data": [{"id": name} for name in served]})
    http.post(CHAT, status=404, json={"detail": f"The model `{chosen}` does not exist."})
    says = "with NEBIUS_MODEL; nearest served: meta-llama/Llama-3.[13], "
    with pytest.raises(FatalAPIError, match=says) as caught:
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
    found = client.preflight()
    assert len(found.problems) == 1 and found.problems[0].startswith("no prices and limits: ")
    assert found.models[0].price is None and client.total.cost is None


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


def test_a_call_that_alone_fails_spoils_only_its_experiment(
    http: responses.RequestsMock, waits: Waits, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(patience=100)
    http.post(CHAT, status=500)
    failed = client._servers["task"].gate.failed

    def others_succeed(*args: Any) -> float:
        client._servers["task"].gate._row.clear()
        return failed(*args)

    monkeypatch.setattr(client._servers["task"].gate, "failed", others_succeed)
    monkeypatch.setattr(time, "monotonic", lambda: waits.now)
    with pytest.raises(APIError, match="no success after") as caught:
        client.generate_response("", "x")
    assert not isinstance(caught.value, FatalAPIError)


def test_many_threads_lose_no_count(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LONGEST_BACKOFF", 0.002)
    monkeypatch.setattr(pace, "AFTER_REFUSAL", 0.002)
    monkeypatch.setattr("client.LONE_TRIES", 99)  # one in seven fails, so some fail five times
    answered: list[int] = []
    faults = {3: whole("500 Oops", b""), 5: whole("200 OK", b"{"), 7: whole("429 Slow", b"{}")}

    def script(connection: socket.socket, number: int) -> None:
        if number % 20 == 9:
            reset(connection)
        else:
            answered.extend([number] if number % 20 not in faults else [])
            connection.sendall(faults.get(number % 20, whole()))

    client, spent = make(serve(script).url), Usage()
    client._servers["task"].gate.patience = 60.0
    with ThreadPoolExecutor(32) as pool:
        calls = [pool.submit(client.generate_response, "", "x", spent=spent) for _ in range(200)]
        assert {call.result().text for call in calls} == {"fine"}
    assert client.total.calls == spent.calls == len(answered)
    assert client._servers["task"].gate.paces["m"].running == 0


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


def test_a_proxy_that_is_not_there_is_named_as_what_to_check(monkeypatch, waits):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(FatalAPIError, match="check HTTPS_PROXY, ALL_PROXY and the network"):
        make("https://example.invalid/v1").generate_response("", "x")
