"""The simulator: what its world says, and how its server behaves on the wire."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest
import requests

from autoresearch.simulator import MODEL
from autoresearch.simulator import server as simulator
from autoresearch.simulator.server import LANDSCAPES, LEVERS, Simulator, World, read_history

QUESTION = "Explain tidal power. Respond in under 120 words."
AGENT = "Reply in this form:\n\nTHOUGHT: why\nPROMPT: the prompt"
CRITERIA = """# Criteria
- words: 60-120 (weight 1)
- mentions: moon | lunar, turbine, barrage | dam (weight 2)
- matches: /\\b(for example|such as)\\b/i
- avoids: certainly, game-changer
"""


def shown(*attempts: tuple[float, str]) -> str:
    return "".join(f"Prompt: score {s:.2f} (2 samples)\n```\n{p}\n```\n" for s, p in attempts)


def proposed(reply: str) -> str:
    return reply.partition("PROMPT:")[2].strip("*` \n")


# --- determinism ---


def test_the_same_seed_says_the_same() -> None:
    def told() -> list[str]:
        world = World(seed=3)
        return [world.complete("Be brief.", QUESTION) for _ in range(5)]

    assert told() == told()
    assert told() != [World(seed=4).complete("Be brief.", QUESTION) for _ in range(5)]
    assert len(set(told())) > 1


def test_another_process_says_the_same() -> None:
    message = CRITERIA + shown((8.0, "Mention moon. Be brief. Stay factual. Cover: dam; turbine."))
    asked = [AGENT, f"{message}\n# Now\nSimplify the leader."]
    script = (
        "import sys; from autoresearch.simulator.server import World; world = World()\n"
        "print([world.complete(*sys.argv[1:]) for _ in range(30)])"
    )

    def told(hash_seed: str) -> str:
        command = [sys.executable, "-c", script, *asked]
        folder = Path(__file__).parents[1]
        variables = {**os.environ, "PYTHONHASHSEED": hash_seed}
        return subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, check=True
        ).stdout

    assert told("1") == told("2") != ""


def test_the_order_of_other_requests_does_not_matter() -> None:
    busy, calm = World(), World()
    for _ in range(3):
        busy.complete("", "Explain snow.")
    assert busy.complete("", QUESTION) == calm.complete("", QUESTION)


def test_temperature_zero_repeats_itself() -> None:
    world = World()
    assert len({world.complete("", QUESTION, temperature=0) for _ in range(5)}) == 1


# --- landscapes ---


@pytest.mark.parametrize("name", LANDSCAPES)
def test_the_true_score_is_the_mean_of_what_replies_score(name: str) -> None:
    landscape, rng = LANDSCAPES[name], Random(1)
    prompt = " ".join(rng.sample(LEVERS, 8))
    # The criterion of the landscape's program: `words: 200-400`.
    points = [10 * (2 * len(landscape.reply(prompt, rng).split()) / 200 - 1) for _ in range(6000)]
    assert fmean(points) == pytest.approx(landscape.true_score(prompt), abs=0.08)
    assert min(points) >= 0 and max(points) <= 10


def test_clipping_counts_in_the_true_score() -> None:
    landscape = simulator.Landscape(lambda pulled: 10.0, lambda pulled: 1.0)
    assert landscape.true_score("") == pytest.approx(10 - 0.39894, abs=1e-4)  # half a normal's mean


def test_levers_count_once_in_any_order_and_spacing() -> None:
    landscape = LANDSCAPES["pairs"]
    one = f"{LEVERS[3]} {LEVERS[5]}"
    assert landscape.true_score(one) == landscape.true_score(f"{LEVERS[5]}\n\n  {one}")


@pytest.mark.parametrize("name", LANDSCAPES)
def test_every_landscape_leaves_room_above_blind_proposals(name: str) -> None:
    landscape, rng = LANDSCAPES[name], Random(2)
    blind = [landscape.true_score(" ".join(rng.sample(LEVERS, 4))) for _ in range(300)]
    assert fmean(blind) < 5.5
    best = max(climbed(landscape, rng) for _ in range(5))
    assert best > fmean(blind) + 1.5


def climbed(landscape: simulator.Landscape, rng: Random) -> float:
    """Where changing one lever at a time, without noise, ends."""
    pulled, score = set(rng.sample(LEVERS, 4)), 0.0
    while True:
        nearby = [pulled ^ {lever} for lever in LEVERS]
        best = max(nearby, key=lambda levers: landscape.true_score(" ".join(levers)))
        if landscape.true_score(" ".join(best)) <= score:
            return score
        pulled, score = best, landscape.true_score(" ".join(best))


# --- the model under test ---


def share(system: str, user: str, holds: Callable[[str], object], count: int = 60) -> float:
    world = World()
    return fmean(bool(holds(world.complete(system, user))) for _ in range(count))


@pytest.mark.parametrize(
    ("system", "holds"),
    [
        ("Mention lunar gravity.", lambda said: "lunar gravity" in said),
        ("Cover: turbines; barrages.", lambda said: "turbines" in said and "barrages" in said),
        ("Write 60 to 100 words.", lambda said: 55 <= len(said.split()) <= 100),
        ("Write at most 6 sentences.", lambda said: len(re.findall(r"[.!?](?:\s|$)", said)) <= 6),
        ("Give one concrete example.", lambda said: "example" in said or "analogy" in said.lower()),
        ('Use the phrase "such as".', lambda said: "such as" in said.lower()),
        ("Use bullet points.", lambda said: said.startswith("- ")),
        (
            "No filler.",
            lambda said: not re.search("Certainly|today's|dive in|happy to|important to", said),
        ),
    ],
)
def test_instructions_are_followed_most_of_the_time(
    system: str, holds: Callable[[str], object]
) -> None:
    assert share(system, QUESTION, holds) > 0.7
    assert share("", QUESTION, holds) < 0.5


def test_many_instructions_dilute_each_other() -> None:
    def lunar(said: str) -> bool:
        return "lunar" in said

    crowd = " ".join(f"Keep rule {i} in mind." for i in range(25))
    assert share(f"{crowd} Mention lunar.", QUESTION, lunar, 200) < (
        share("Mention lunar.", QUESTION, lunar, 200) - 0.2
    )


def test_a_short_form_stays_short_when_told() -> None:
    haiku = "Write a haiku about the sea."
    assert share("Use at most 18 words.", haiku, lambda said: len(said.split()) <= 18) > 0.8
    assert share("", haiku, lambda said: "sea" in said.lower()) > 0.8


def test_labels_are_chosen_by_what_is_known_of_them() -> None:
    task = "Classify this message as billing, bug or other: My card was charged twice"
    assert share("Reply with only the label.", task, lambda said: said == "billing") > 0.6
    assert share("", task, lambda said: said == "billing") < 0.5


def test_json_comes_bare_when_asked_for_alone() -> None:
    task = "Extract name and total from: Anna Schmidt paid 12.50 on 2024-02-02"

    def exact(said: str) -> bool:
        return said.startswith("{") and json.loads(said) == {
            "name": "Anna Schmidt",
            "total": "12.50",
        }

    assert (
        share("Reply with JSON with the keys name, total. No prose, only JSON.", task, exact) > 0.6
    )
    assert share("Reply with JSON.", task, exact) < 0.4


# --- the agent ---


def test_a_proposal_has_a_thought_and_a_prompt() -> None:
    reply = World().complete(AGENT, CRITERIA)
    assert re.search(r"THOUGHT:\W* \w.+\n\W*PROMPT:\W* \w", reply)


def test_the_history_is_read_in_several_forms() -> None:
    fenced = shown((7.5, "Mention cats."), (6.25, "Be brief.\nBe kind."))
    assert read_history(fenced) == [(6.25, "Be brief.\nBe kind."), (7.5, "Mention cats.")]
    assert read_history("Attempt 1\n~~~text\nBe brief.\n~~~\nScore: 4/10") == [(4.0, "Be brief.")]
    assert read_history("Prompt: Be brief.\nResponse: Cats.\nScore: 4.5") == [(4.5, "Be brief.")]


def test_the_leader_stands_last_and_responses_are_no_prompts() -> None:
    message = shown((9.0, "Be lucky.")) + (
        "Prompt #1, the leader: score 8.00 (4 samples)\n```\nBe brief.\n```\n"
        "Its worst response, score 7.0:\n```\nCats are cats.\n```\n"
    )
    assert read_history(message) == [(9.0, "Be lucky."), (8.0, "Be brief.")]


def test_simplify_makes_the_leader_shorter() -> None:
    message = CRITERIA + shown((8.0, "Mention moon. Be brief. Stay factual."))
    for _ in range(20):
        prompt = proposed(World().complete(AGENT, message + "# Now\nSimplify the leader."))
        assert len(simulator.sentences(prompt)) < 3


def test_what_was_missed_is_proposed_more_often() -> None:
    def turbines(reason: str) -> float:
        message = f"{CRITERIA}{shown((5.0, 'Be brief.'))}{reason}\n# Now\nRefine the leader."
        return share(AGENT, message, lambda reply: "Mention turbine." in reply, 200)

    assert turbines("missed: missing: turbine") > turbines("missed: nothing") + 0.15


def test_a_search_that_shows_its_history_beats_blind_proposals() -> None:
    landscape = LANDSCAPES["quiet"]

    def best_of(count: int, remembers: bool) -> float:
        world, seen = World("quiet"), [(3.0, "(no system prompt)")]
        for i in range(count):
            history = shown(*sorted(seen)[-8:]) if remembers else f"Attempt {i}."
            prompt = proposed(world.complete(AGENT, history))
            points = len(world.complete(prompt, "Answer.").split()) / 10 - 10
            seen.append((points, prompt))
        return landscape.true_score(max(seen)[1])

    assert best_of(150, remembers=True) > best_of(150, remembers=False) + 1


# --- the judge ---


def test_the_judge_prefers_an_answer_to_the_question() -> None:
    def mark(response: str) -> float:
        message = f"<task-1>\n{QUESTION}\n</task-1>\n<response-1>\n{response}\n</response-1>"
        asked = 'Judge it as JSON: {"reason": "why", "score": 0 to 10}'
        verdict = json.loads(World().complete(asked, message, 0).strip("`\n"))
        assert verdict["reason"]
        return float(verdict["score"])

    good = "Tidal power takes energy from the tides; for example, a barrage drives turbines at ebb."
    assert 0 <= mark("Certainly! Great question.") < mark(good) <= 10


# --- the server ---


@pytest.fixture
def server() -> Iterator[Simulator]:
    with Simulator(seed=1) as running:
        yield running


def post(server: Simulator, key: str | None = "key", **fields: Any) -> requests.Response:
    body = {"model": "any/model", "messages": [{"role": "user", "content": QUESTION}], **fields}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.post(f"{server.url}/chat/completions", json=body, headers=headers, timeout=5)


def test_a_chat_request_gets_text_and_usage(server: Simulator) -> None:
    answer = post(server).json()
    [choice] = answer["choices"]
    assert choice["message"]["content"] == World(seed=1).complete("", QUESTION)
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 100
    assert "simulated" in answer["id"] and answer["model"] == "any/model"


def test_system_messages_and_parts_are_understood(server: Simulator) -> None:
    parts = [{"type": "text", "text": "Explain "}, {"type": "text", "text": "snow."}]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}]
    said = post(server, messages=messages).json()["choices"][0]["message"]["content"]
    assert said == World(seed=1).complete("Be brief.", "Explain snow.")


def test_a_reply_longer_than_max_tokens_is_cut(server: Simulator) -> None:
    answer = post(server, max_tokens=5).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


def test_models_are_listed_with_prices_on_demand(server: Simulator) -> None:
    def listed(query: str) -> dict[str, Any]:
        headers = {"Authorization": "Bearer key"}
        reply = requests.get(f"{server.url}/models{query}", headers=headers, timeout=5).json()
        [model] = reply["data"]
        return dict(model)

    assert listed("")["id"] == MODEL and "pricing" not in listed("")
    verbose = listed("?verbose=true")
    assert float(verbose["pricing"]["prompt"]) < 0.001 and isinstance(
        verbose["context_length"], int
    )
    assert verbose["per_request_limits"]["requests_per_minute"] > 0


def test_errors_have_the_shape_of_the_real_ones(server: Simulator) -> None:
    assert post(server, key=None).status_code == 401
    assert post(server, key=None).json()["detail"].endswith("token is not present")
    assert requests.get(f"{server.url}/chat/completions", timeout=5).status_code == 405
    lost = requests.post(f"{server.url}/v1/chat/completions", timeout=5)
    assert (lost.status_code, lost.json()) == (404, {"detail": "Not Found"})
    invalid = post(server, messages="hello", temperature=9)
    assert invalid.status_code == 422
    assert [tuple(fault["loc"]) for fault in invalid.json()["detail"]] == [
        ("body", "temperature"),
        ("body", "messages"),
    ]


def test_only_the_named_models_are_served() -> None:
    with Simulator(models=["a/b"]) as server:
        assert post(server, model="a/b").status_code == 200
        refused = post(server, model="a/c")
    assert refused.status_code == 404
    assert refused.json() == {"detail": "The model `a/c` does not exist."}


def test_a_rate_limit_refuses_and_says_how_long() -> None:
    with Simulator(rate_limit=60) as server:
        replies = [post(server) for _ in range(12)]
        assert server.counts["429"] == sum(reply.status_code == 429 for reply in replies) == 2
    assert replies[0].headers["x-ratelimit-limit-requests"] == "60"
    assert replies[0].headers["x-ratelimit-remaining-requests"] == "9"
    assert replies[-1].headers["Retry-After"] == "1"


@pytest.mark.parametrize("content", ["empty", "null"])
def test_an_answer_without_content_is_billed(content: str) -> None:
    with Simulator(faults={content: 1.0}) as server:
        answer = post(server).json()
    assert not answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0


def test_a_fault_can_be_any_status() -> None:
    with Simulator(faults={"429": 1.0}, retry_after=0.25) as server:
        refused = post(server)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "0.25")
    with Simulator(faults={"500": 1.0}) as server:
        assert post(server).status_code == 500


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("reset", requests.exceptions.ConnectionError),
        ("truncated", requests.exceptions.ChunkedEncodingError),
    ],
)
def test_a_connection_can_break(fault: str, error: type[Exception]) -> None:
    with Simulator(faults={fault: 1.0}) as server, pytest.raises(error):
        post(server)


def test_faults_come_as_often_as_told_and_alike_for_a_seed() -> None:
    def statuses() -> list[int]:
        with Simulator(seed=5, faults={"500": 0.2, "503": 0.2}) as server:
            return [post(server).status_code for _ in range(60)]

    drawn = statuses()
    assert drawn == statuses()
    assert 15 <= len(drawn) - drawn.count(200) <= 35


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        Simulator(faults={"500": 0.6, "empty": 0.6})


def test_many_connections_are_served_at_once() -> None:
    with Simulator(latency=0.1) as server, ThreadPoolExecutor(16) as pool:
        begun = time.monotonic()
        replies = list(pool.map(lambda i: post(server), range(32)))
        assert time.monotonic() - begun < 1.6  # one after another: 3.2
    assert [reply.status_code for reply in replies] == [200] * 32


def test_a_stopped_server_hangs_up_and_frees_its_port() -> None:
    with Simulator() as server, requests.Session() as session:
        headers = {"Authorization": "Bearer key"}
        assert session.get(f"{server.url}/models", headers=headers, timeout=5).ok
        port = int(server.url.split(":")[2].split("/")[0])
        server.__exit__()
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(f"{server.url}/models", headers=headers, timeout=5)
        with Simulator(port=port) as again:
            assert session.get(f"{again.url}/models", headers=headers, timeout=5).ok


# --- the command ---


def test_the_command_says_that_it_is_simulated_and_where() -> None:
    command = [sys.executable, "-m", simulator.__name__, "--fault", "503=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "simulated" in line
        headers = {"Authorization": "Bearer key"}
        url = line.split()[-1]
        assert requests.get(f"{url}/models", headers=headers, timeout=5).ok
        process.terminate()


@pytest.mark.parametrize("fault", ["429", "42=0.5", "reset=2", "sulk=0.1"])
def test_a_fault_that_makes_no_sense_is_refused(
    fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        simulator.parse_arguments(["--fault", fault])
    assert fault in capsys.readouterr().err
