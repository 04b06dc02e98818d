"""The simulator: what its world says, how its server behaves, and what the landscapes are worth."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

import pytest
import requests

from agent import compose
from autoresearch.files.program import load_program
from autoresearch.search.history import History
from autoresearch.simulator import MODEL
from autoresearch.simulator import server as product
from autoresearch.simulator.agent import Agent, sentences
from autoresearch.simulator.model import World
from scorer import read_verdict
from tests.benchmarks.landscapes import LANDSCAPES, LEVERS, Landscape, LandscapeWorld
from tests.servers import Simulator

ROOT = Path(__file__).parents[1]
QUESTION = "Explain tidal power. Respond in under 120 words."
AGENT = "Reply in this form:\n\nTHOUGHT: why\nPROMPT: the prompt"
CRITERIA = """# How an answer is scored
- words: 60-120 (weight 1)
- mentions: moon | lunar, turbine, barrage | dam (weight 2)
- matches: /\\b(for example|such as)\\b/i (weight 1)
- avoids: certainly, game-changer (weight 1)
"""


def shown(*attempts: tuple[float, str]) -> str:
    return "".join(f"Prompt: score {s:.2f} (2 samples)\n```\n{p}\n```\n" for s, p in attempts)


def proposed(reply: str) -> str:
    return reply.partition("PROMPT:")[2].strip()


# --- the same again ---


def test_the_same_seed_says_the_same_in_another_process_too() -> None:
    asked = [AGENT, f"{CRITERIA}{shown((8.0, 'Mention moon. Be brief.'))}\n# Now\nRefine it."]
    script = (
        "import sys; from autoresearch.simulator.model import World; world = World(3)\n"
        "print([world.complete(*sys.argv[1:]) for _ in range(30)])"
    )
    told = set()
    for hash_seed in "12":
        command = [sys.executable, "-c", script, *asked]
        variables = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told.add(subprocess.check_output(command, cwd=ROOT, env=variables, text=True).strip())
    world = World(3)
    assert told == {str([world.complete(*asked) for _ in range(30)])}
    assert World(4).complete(*asked) not in told.pop()


def test_only_the_same_request_moves_the_answer_and_not_at_temperature_zero() -> None:
    busy, calm = World(), World()
    assert len({busy.complete("", "Explain snow.") for _ in range(5)}) > 1
    assert len({busy.complete("", "", temperature=0) for _ in range(5)}) == 1
    assert busy.complete("", QUESTION) == calm.complete("", QUESTION)


# --- the model under test ---


def share(system: str, user: str, holds: Callable[[str], object], count: int = 60) -> float:
    world = World()
    return fmean(bool(holds(world.complete(system, user))) for _ in range(count))


@pytest.mark.parametrize(
    ("system", "holds"),
    [
        ("Mention lunar gravity.", lambda said: "lunar gravity" in said.lower()),
        ("Write 60-80 words.", lambda said: 60 <= len(said.split()) <= 80),
        ("Write 3-5 sentences.", lambda said: len(sentences(said)) == 5),
        ("Give one concrete example.", lambda said: "example" in said.lower()),
        ("No filler.", lambda said: not re.search("Certainly|crucial|powerful", said)),
        ("Avoid certainly. Avoid crucial. Avoid powerful.", lambda said: "today" not in said),
    ],
)
def test_instructions_are_followed_most_of_the_time(
    system: str, holds: Callable[[str], object]
) -> None:
    assert share(system, QUESTION, holds) > 0.7
    assert share("", QUESTION, holds) < 0.5


def test_many_instructions_dilute_each_other() -> None:
    def lunar(said: str) -> bool:
        return "lunar" in said.lower()

    crowd = " ".join(f"Keep rule {i} in mind." for i in range(30))
    assert share(f"{crowd} Mention lunar.", QUESTION, lunar, 200) < (
        share("Mention lunar.", QUESTION, lunar, 200) - 0.2
    )


def test_labels_and_json_come_bare_and_right_when_the_prompt_says_how() -> None:
    ticket = "Classify this message as billing, bug or other: My card was charged twice"
    told = "Reply with only the label. Think step by step."
    assert share(told, ticket, lambda said: said == "billing") > 0.7
    assert share("", ticket, lambda said: said == "billing") < 0.4
    bill = "Extract name and total from this as JSON:\n\nAnna Schmidt paid 12.50 on 2024-02-02"

    def exact(said: str) -> bool:
        return said.startswith("{") and json.loads(said) == {"name": "Anna Schmidt", "total": 12.5}

    told = "Reply with only JSON. Its keys are name and total."
    assert share(told, bill, exact) > 0.7
    assert share("", bill, exact) < 0.2


# --- the agent and the judge ---


def test_the_leader_stands_last_and_responses_are_no_prompts() -> None:
    message = shown((9.0, "Be lucky."), (6.25, "Be brief.\nBe kind.")) + (
        "Prompt #1, the leader: score 8.00 (4 samples)\n```\nBe brief.\n```\n"
        "Its worst response, score 7.0:\n```\nCats are cats.\n```\n"
    )
    assert Agent(message, [], Random()).shown == [
        (6.25, "Be brief.\nBe kind."),
        (9.0, "Be lucky."),
        (8.0, "Be brief."),
    ]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("program.md", {"Write 80-119 words.", "Mention stay with.", "Avoid robust."}),
        ("examples/extract-invoice.md", {"Mention vendor.", "Mention total."}),
        ("examples/explain-like-im-five.md", {"Write 40-90 words.", "Avoid electron."}),
    ],
)
def test_the_criteria_suggest_instructions(name: str, suggested: set[str]) -> None:
    program = load_program(ROOT / name)
    message = compose(program, History(), "fresh", 1)
    found = {x for seed in range(30) for x in World().vocabulary(message, Random(seed))}
    assert suggested <= found
    assert not [x for x in found if re.search(r"[^\w' .-]", x)]


def test_a_proposal_has_a_thought_and_does_what_the_strategy_says() -> None:
    assert re.search(r"THOUGHT: \w.+\nPROMPT: \w", World().complete(AGENT, CRITERIA))
    message = CRITERIA + shown((8.0, "Mention moon. Be brief. Stay factual."))
    for _ in range(20):
        prompt = proposed(World().complete(AGENT, message + "# Now\nSimplify the leader."))
        assert len(sentences(prompt)) < 3


def test_what_was_missed_is_proposed_more_often() -> None:
    def turbines(reason: str) -> float:
        message = f"{CRITERIA}{shown((5.0, 'Be brief.'))}{reason}\n# Now\nRefine the leader."
        return share(AGENT, message, lambda reply: "Mention turbine." in reply, 200)

    assert turbines("missed: missing: turbine") > turbines("missed: nothing") + 0.15


def test_the_judge_prefers_a_good_answer_in_a_form_that_the_scorer_reads() -> None:
    def mark(response: str) -> float:
        asked = 'Judge it as JSON: {"reason": "why", "score": 0 to 10}'
        message = f"Task:\n```\n{QUESTION}\n```\n\nResponse to judge:\n```\n{response}\n```"
        value, reason = read_verdict(World().complete(asked, message, 0))
        assert reason
        return value

    assert 0 <= mark("It plays.") < mark("For example, a barrage drives turbines.") <= 10


# --- the server ---


def post(server: product.Simulator, **fields: Any) -> requests.Response:
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], **fields}
    return requests.post(f"{server.url}/chat/completions", json=body, timeout=5)


def test_an_answer_says_that_it_is_simulated_and_what_it_used() -> None:
    messages = [{"role": "system", "content": "Hi."}, {"role": "user", "content": QUESTION}]
    with product.Simulator(seed=1) as server:
        reply = post(server, messages=messages, temperature=0)
        listed = requests.get(f"{server.url}/models?verbose=true", timeout=5)
    answer, (model,) = reply.json(), listed.json()["data"]
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == World(1).complete("Hi.", QUESTION, 0)
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 100
    for said in (answer["id"], answer["model"], model["id"], model["name"], model["owned_by"]):
        assert "simulated" in said
    assert {reply.headers["Server"].strip(), listed.headers["Server"].strip()} == {"simulated"}
    assert float(model["pricing"]["prompt"]) < 0.001


def test_only_the_simulated_model_is_served_and_only_chat() -> None:
    with product.Simulator() as server:
        refused = post(server, model="a/c")
        assert refused.json() == {"detail": "The model `a/c` does not exist."}
        assert refused.status_code == requests.post(f"{server.url}/embeddings").status_code == 404
        assert post(server, messages="hello").status_code == 422


def test_a_stopped_server_hangs_up_and_frees_its_port() -> None:
    with product.Simulator() as server, requests.Session() as session:
        assert session.get(f"{server.url}/models", timeout=5).ok
        server.__exit__()
        with pytest.raises(requests.exceptions.ConnectionError):
            session.get(f"{server.url}/models", timeout=5)
        with product.Simulator(port=server.server_address[1]) as again:
            assert session.get(f"{again.url}/models", timeout=5).ok


def test_the_command_says_that_it_is_simulated_and_where() -> None:
    command = [sys.executable, "-m", "autoresearch.simulator"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "simulated" in line and f"NEBIUS_MODEL={MODEL}" in line
        url = line.split("NEBIUS_BASE_URL=")[1].strip()
        assert requests.get(f"{url}/models", timeout=5).ok
        taken = [*command, "--port", url.split(":")[2].split("/")[0]]
        error = subprocess.run(taken, cwd=ROOT, capture_output=True, text=True)
        assert error.returncode == 2 and "error: cannot listen on port " in error.stderr
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


# --- trouble on demand, for the tests of the command ---


def test_a_rate_limit_refuses_and_says_how_long() -> None:
    with Simulator(rate_limit=60) as server:
        replies = [post(server) for _ in range(12)]
        assert server.counts["429"] == sum(reply.status_code == 429 for reply in replies) == 2
    assert replies[0].headers["x-ratelimit-remaining-requests"] == "9"
    assert replies[-1].headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("reset", requests.exceptions.ConnectionError),
        ("truncated", requests.exceptions.ChunkedEncodingError),
        ("429", (429, "0.25")),
        ("500", (500, None)),
    ],
)
def test_a_fault_is_a_status_or_a_broken_connection(fault: str, seen: Any) -> None:
    with Simulator(faults={fault: 1.0}, retry_after=0.25) as server:
        try:
            reply = post(server)
            assert (reply.status_code, reply.headers.get("Retry-After")) == seen
        except requests.exceptions.RequestException as error:
            assert type(error) is seen


@pytest.mark.parametrize("content", ["empty", "null"])
def test_an_answer_without_content_is_billed(content: str) -> None:
    with Simulator(faults={content: 1.0}) as server:
        answer = post(server).json()
    assert not answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] > 0


def test_many_connections_are_served_at_once() -> None:
    with Simulator(latency=0.1) as server, ThreadPoolExecutor(16) as pool:
        begun = time.monotonic()
        replies = list(pool.map(lambda i: post(server), range(32)))
        assert time.monotonic() - begun < 1.6  # one after another: 3.2
    assert [reply.status_code for reply in replies] == [200] * 32


# --- the landscapes of the benchmarks ---


@pytest.mark.parametrize("name", LANDSCAPES)
def test_the_true_score_is_the_mean_of_what_replies_score(name: str) -> None:
    landscape, rng = LANDSCAPES[name], Random(1)
    prompt = " ".join(rng.sample(LEVERS, 8))
    # The criterion of the landscape's program: `words: 200-400`.
    points = [10 * (2 * len(landscape.reply(prompt, rng).split()) / 200 - 1) for _ in range(6000)]
    assert fmean(points) == pytest.approx(landscape.true_score(prompt), abs=0.08)
    assert min(points) >= 0 and max(points) <= 10


def test_clipping_counts_in_the_true_score() -> None:
    landscape = Landscape(lambda pulled: 10.0, lambda pulled: 1.0)
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
    assert max(climbed(landscape, rng) for _ in range(5)) > fmean(blind) + 1.5


def climbed(landscape: Landscape, rng: Random) -> float:
    """Where changing one lever at a time, without noise, ends."""
    pulled, score = set(rng.sample(LEVERS, 4)), 0.0
    while True:
        nearby = [pulled ^ {lever} for lever in LEVERS]
        best = max(nearby, key=lambda levers: landscape.true_score(" ".join(levers)))
        if landscape.true_score(" ".join(best)) <= score:
            return score
        pulled, score = best, landscape.true_score(" ".join(best))


def test_a_search_that_shows_its_history_beats_blind_proposals() -> None:
    landscape = LANDSCAPES["quiet"]

    def best_of(count: int, remembers: bool) -> float:
        world, seen = LandscapeWorld(landscape), [(3.0, "(no system prompt)")]
        for i in range(count):
            history = shown(*sorted(seen)[-8:]) if remembers else f"Attempt {i}."
            prompt = proposed(world.complete(AGENT, history))
            points = len(world.complete(prompt, "Answer.").split()) / 10 - 10
            seen.append((points, prompt))
        return landscape.true_score(max(seen)[1])

    assert best_of(150, remembers=True) > best_of(150, remembers=False) + 1
