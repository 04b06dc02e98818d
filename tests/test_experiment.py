"""Panels, records, re-scoring and series. Run: pytest tests/test_experiment.py"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from autoresearch.api.answer import Completion
from autoresearch.api.exchange import APIError, FatalAPIError
from autoresearch.criteria.kind import ScoreError
from autoresearch.files.inputs import Input
from autoresearch.files.program import Criterion, Program
from autoresearch.files.record import Experiment, Response, Trial
from autoresearch.night import side_by_side
from client import Usage
from experiment import run_experiment
from scorer import score

MODELS = {"agent": "a", "task": "t", "judge": "j"}
RULE = Criterion("mentions", "apple, pear")
OTHER_RULE = Criterion("mentions", "apple")
JUDGE = Criterion("judge", "is it good?")


def score_responses(
    client: Any, asked: Program, responses: Sequence[Response], at_once: int = 1
) -> list[Trial]:
    return side_by_side(lambda response: score(client, asked, response), responses, at_once)


def program(*criteria: Criterion, inputs: str = "one two", held_out: str = "") -> Program:
    return Program(
        goal="Be good.",
        task="Answer {input}.",
        inputs=tuple(Input(text) for text in inputs.split()),
        held_out=tuple(Input(text) for text in held_out.split()),
        criteria=criteria or (RULE,),
        baseline="",
        text="",
        name="program.md",
    )


Answer = Callable[[str, str], str]  # system and user message -> the answer


class Model:
    """A client that answers by a function, and keeps what it was asked."""

    def __init__(self, answer: Answer = lambda system, user: user, finish: str = "stop") -> None:
        self.answer, self.finish = answer, finish
        self.asked: list[tuple[str, str, str]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()

    def generate_response(
        self, system: str, user: str, *, role: str = "task", spent: Usage | None = None
    ) -> Completion:
        with self.lock:
            self.asked.append((system, user, role))
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            text = self.answer(system, user)
        finally:
            with self.lock:
                self.running -= 1
        if spent is not None:
            spent.add(1, 1, 0.0)
        return Completion(text, self.finish, 1, 1, "model")


# ---- a panel


def test_the_prompt_is_the_system_message_and_the_task_the_users() -> None:
    model = Model()
    run_experiment(model, program(inputs="one"), "Be brief.")
    assert model.asked == [("Be brief.", "Answer one.", "task")]


def test_a_panel_comes_pass_after_pass_in_the_order_of_the_inputs() -> None:
    def slower_first(system: str, user: str) -> str:
        time.sleep(0.02 if "one" in user else 0)
        return user

    spent = Usage()
    responses = run_experiment(Model(slower_first), program(), "p", program().inputs * 3, spent)
    assert [response.given.text for response in responses] == ["one", "two"] * 3
    assert [response.text for response in responses] == ["Answer one.", "Answer two."] * 3
    assert spent.calls == 6


def test_other_inputs_stand_in_where_they_are_given() -> None:
    wanted = program(held_out="three four")
    responses = run_experiment(Model(), wanted, "p", wanted.held_out * 2)
    assert [response.given.text for response in responses] == ["three", "four"] * 2


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_calls_run_side_by_side_and_no_more_than_allowed(at_once: int) -> None:
    together = threading.Barrier(at_once)

    def meet(system: str, user: str) -> str:
        together.wait(timeout=5)  # breaks unless so many calls are under way at once
        return user

    model = Model(meet)
    assert len(run_experiment(model, program(), "p", program().inputs * 4, at_once=at_once)) == 8
    assert model.most == at_once


def test_one_failed_call_fails_the_panel_and_spares_the_rest() -> None:
    def refuse(system: str, user: str) -> str:
        time.sleep(0.03)  # a call takes a while: who waits hears of the first failure
        raise APIError("400 Bad Request")

    model = Model(refuse)
    with pytest.raises(APIError, match="400"):
        run_experiment(model, program(), "p", program().inputs * 50, at_once=2)
    assert len(model.asked) < 10


def test_after_a_failure_no_call_begins_while_an_earlier_one_still_waits() -> None:
    def answer(system: str, user: str) -> str:
        number = len(model.asked)
        time.sleep(0.2 if number == 1 else 0.01)  # a wait for a retry can take half an hour
        if number == 2:
            raise APIError("400 Bad Request")
        return user

    model = Model(answer)
    with pytest.raises(APIError, match="400"):
        run_experiment(model, program(), "p", program().inputs * 20, at_once=2)
    assert len(model.asked) <= 5


def test_an_error_names_its_input_and_says_when_it_is_held_out() -> None:
    def refuse(system: str, user: str) -> str:
        if "bad" in user or "three" in user:
            raise APIError("400 Bad Request: content_filter")
        return user

    asked = program(inputs="one bad", held_out="three")
    with pytest.raises(APIError, match=r'^400 Bad Request: content_filter \(input "bad"\)$'):
        run_experiment(Model(refuse), asked, "p")
    with pytest.raises(APIError, match=r'\(held-out input "three"\)$'):
        run_experiment(Model(refuse), asked, "p", asked.held_out)
    without = replace(asked, task="bad", inputs=(Input(""),))
    with pytest.raises(APIError, match="content_filter$"):
        run_experiment(Model(refuse), without, "p")


def test_what_spoils_all_is_raised_as_it_is() -> None:
    def refuse(system: str, user: str) -> str:
        raise FatalAPIError("401 Unauthorized")

    with pytest.raises(FatalAPIError, match="^401 Unauthorized$"):
        run_experiment(Model(refuse), program(), "p")


# ---- scores


def test_each_response_is_scored_against_its_own_input() -> None:
    wanted = replace(
        program(Criterion("equals", "{expected}")),
        inputs=(Input("one", "Answer one."), Input("two", "another answer")),
    )
    trials = score_responses(Model(), wanted, run_experiment(Model(), wanted, "p"))
    assert [(trial.input, trial.response, trial.score) for trial in trials] == [
        ("one", "Answer one.", 10.0),
        ("two", "Answer two.", 0.0),
    ]
    assert "another answer" in trials[1].reason


def test_rules_are_scored_without_a_call() -> None:
    model = Model()
    responses = run_experiment(Model(lambda system, user: "an apple"), program(), "p")
    assert [trial.score for trial in score_responses(model, program(), responses)] == [5.0, 5.0]
    assert model.asked == []


def test_judges_are_asked_side_by_side() -> None:
    together = threading.Barrier(2)

    def verdict(system: str, user: str) -> str:
        together.wait(timeout=5)
        return '{"reason": "fine", "score": 7}'

    judge = Model(verdict)
    responses = run_experiment(Model(), program(), "p", program().inputs * 2)
    trials = score_responses(judge, program(JUDGE), responses, at_once=2)
    assert [trial.score for trial in trials] == [7.0] * 4
    assert {role for _, _, role in judge.asked} == {"judge"}


def test_an_unusable_verdict_spoils_the_whole_panel() -> None:
    responses = run_experiment(Model(), program(), "p")
    with pytest.raises(ScoreError):
        score_responses(Model(lambda system, user: "no idea"), program(JUDGE), responses)


def test_a_response_cut_at_max_tokens_is_marked_so() -> None:
    responses = run_experiment(Model(finish="length"), program(), "p")
    trials = score_responses(Model(), program(), responses)
    assert [trial.finish for trial in trials] == ["length", "length"]


def test_a_record_shows_its_mean_and_the_response_nearest_to_it() -> None:
    trials = [Trial("", f"response {score}", score, {}, "") for score in (1.0, 6.0, 8.0)]
    record = Experiment(1, thought="t", prompt="p").scored(iter(trials))
    assert (record.score, record.response) == (5.0, "response 6.0")
    assert record.trials == tuple(trials)
    assert (record.iteration, record.thought, record.prompt) == (1, "t", "p")
