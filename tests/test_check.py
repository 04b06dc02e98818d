"""The rehearsal before the night: what it asks, what it shows, tricks that must not pay.

pytest tests/test_check.py
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from autoresearch.api.exchange import APIError, FatalAPIError
from autoresearch.api.models import ModelCheck, Preflight
from autoresearch.check import expected_calls, rehearse, shows, stress, tricks
from autoresearch.criteria.kind import ScoreError
from autoresearch.files.inputs import Input
from autoresearch.files.program import load_program
from autoresearch.files.record import Response
from autoresearch.search import race
from autoresearch.search.history import History
from autoresearch.search.proposal import Proposal, ProposalError
from tests.test_criteria import SHIPPED, program

OPTIONS = SimpleNamespace(iterations=100, no_confirm=False, workers=8)
REVIEW = Input("It broke.", "negative")


class Usage:
    def __init__(self):
        self.calls = self.prompt_tokens = self.completion_tokens = 0

    def take(self, calls, prompt_tokens, completion_tokens):
        self.calls += calls
        self.prompt_tokens += calls * prompt_tokens
        self.completion_tokens += calls * completion_tokens


def asked(whole, answer="negative", mark=lambda text: (1.0, "fine"), proposal="Be brief.", **model):
    """What `rehearse` takes of main, and the questions that the judge got."""
    seen = []
    check = ModelCheck("m", ("task", "judge", "agent"), (1e-6, 2e-6), 8192, None, 2.0, 90, 5)

    def preflight(system, user):
        return Preflight([replace(check, **model)])

    def respond(client, program, prompt, inputs, *, spent):
        spent.take(1, 100, 10)
        return [Response(given, raised(answer)) for given in inputs]

    def judge(client, program, criterion, response, *, spent):
        spent.take(1, 200, 20)
        seen.append(response.text)
        return raised(mark(response.text))

    def propose(client, program, history, number, *, spent):
        assert race.strategy(history, program, number) not in ("format", "examples", "carry over")
        assert history.leader is None or history.leader.prompt == program.baseline
        seen.append(len(history.experiments))
        spent.take(3, 300, 30)  # replies, of which only the third could be used
        return Proposal("fresh", "", raised(proposal))

    client = SimpleNamespace(preflight=preflight, total=Usage())
    return (whole, OPTIONS, client, respond, judge, propose), seen


def raised(value):
    if isinstance(value, Exception):
        raise value
    return value


def test_shows_one_worked_example_and_what_every_criterion_gave(capsys):
    whole = program("equals: {expected}", "words: 2", "judge: Good?", inputs=(REVIEW,))
    given, seen = asked(whole, "Positive.", lambda text: (len(text) / 100, "so so"))
    assert rehearse(*given) == 0
    out = capsys.readouterr().out
    for line in ("input     It broke.", "answer    Positive.", "expected  negative"):
        assert f"  {line}\n" in out
    assert "   0.00     equals: {expected}: wanted 'negative', got 'Positive.'\n" in out
    assert "   0.00     words: 2: 1 words, wanted 2\n" in out
    assert "   0.90     judge: Good?: so so\n   0.30     in all\n" in out
    assert "a first proposal: Be brief.\n" in out
    assert seen[:2] == ["Positive.", "negative"] and "ipsum" in seen[2]
    assert seen[3:] == [1]  # the agent saw where the baseline loses points


def test_the_agent_is_asked_also_where_the_first_proposal_needs_none():
    labelled = tuple(Input(f"{n}", "ham" if n % 2 else "spam") for n in range(8))
    whole = program("equals: {expected}", inputs=labelled)
    assert race.strategy(History(), whole, 1) == "format"
    given, seen = asked(whole)
    rehearse(*given)
    assert seen == [1]


def test_it_prints_as_it_goes(capsys):
    given, _ = asked(program("words: 1", inputs=(REVIEW,)), FatalAPIError("no such model"))
    with pytest.raises(FatalAPIError):
        rehearse(*given)
    assert "m (task, judge, agent)" in capsys.readouterr().out


def test_the_forecast_counts_neither_waits_nor_retries(capsys):
    whole = program("judge: Good?", inputs=(REVIEW,))
    rehearse(*asked(whole)[0])
    out = capsys.readouterr().out
    answers = expected_calls(whole, 100, confirmed=True)
    assert f"calls     {2 * answers + 100:,}\n" in out
    tokens = answers * (110 + 220) + 100 * (330 + 4000)
    assert f"tokens    {tokens:,}\n" in out
    cost = (answers * 300 + 100 * 4300) / 1e6 + 2 * (answers * 30 + 100 * 30) / 1e6
    assert f"cost      ${cost:.2f}\n" in out
    minutes = (2 * answers + 100) * 2.0 / 8 / 60
    assert f"duration  {minutes:.0f} min\n" in out


def test_without_prices_the_cost_is_unknown(capsys):
    rehearse(*asked(program("words: 1"), price=None)[0])
    assert "cost      unknown\n" in capsys.readouterr().out


def test_an_expected_answer_that_is_not_full_marks_names_the_criterion(capsys):
    inputs = (Input("a", "yes"), Input("b", "no way"), Input("c", "not at all"))
    rehearse(*asked(program("equals: {expected}", "words: 1", inputs=inputs))[0])
    out = capsys.readouterr().out
    assert "warning: 'words: 1' gives the expected answer less than 10 on 2 of 3 inputs: " in out
    assert "2 words, wanted 1 (for 'b')" in out and "'equals" not in out.partition("warning")[2]


@pytest.mark.parametrize(("cheap", "warned"), [(1.0, True), (0.9, True), (0.2, False)])
def test_a_judge_that_cannot_tell_a_good_answer_from_a_cheap_one_is_told(capsys, cheap, warned):
    whole = program("judge: Good?", inputs=(REVIEW,))
    rehearse(*asked(whole, mark=lambda text: (cheap if "ipsum" in text else 0.9, ""))[0])
    assert ("this judge cannot tell them apart" in capsys.readouterr().out) == warned


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ({"mark": lambda text: ScoreError("no verdict on 'Good?'")}, "no verdict on 'Good?'"),
        ({"proposal": ProposalError("the agent gave no usable prompt")}, "no usable prompt"),
        ({"answer": APIError("3 unusable answers")}, "3 unusable answers"),
    ],
)
def test_what_a_role_cannot_do_is_a_warning(capsys, what, problem):
    assert rehearse(*asked(program("judge: Good?", inputs=(REVIEW,)), **what)[0]) == 0
    out = capsys.readouterr().out
    assert f"warning: {problem}" in out or f"warning: the agent gave {problem}" in out
    assert "to look at, then python main.py" in out


def test_so_many_inputs_show_so_large_a_gain():
    held_out = tuple(Input(f"{n}") for n in range(200))
    whole = program("words: 1", inputs=(Input("q"),))
    figures = [shows(replace(whole, held_out=held_out[:n])) for n in (8, 30, 200)]
    assert "8 inputs held out can show a true gain of 7.4 points in 4 of 5 nights" in figures[0]
    assert "true gain of 3.4 points" in figures[1] and "true gain of 1.3 points" in figures[2]
    assert "3 inputs held out can show hardly any gain" in shows(
        replace(whole, held_out=held_out[:3])
    )
    assert "that the search sees too" in shows(program("words: 1", inputs=held_out[:9]))
    assert "1 input that the search sees too can show hardly any gain" in shows(whole)


def test_a_task_without_inputs_is_said_to_be_asked_alone(capsys):
    rehearse(*asked(program("words: 1"))[0])
    out = capsys.readouterr().out
    assert "program.md: the task is asked alone, without inputs; 1 criterion\n" in out
    assert "a gain holds for this task; inputs" in out and "1 input" not in out


def test_warns_of_tricks_that_pay(capsys):
    whole = program("mentions: alpha, beta | gamma")
    found = {name: (points, remedy) for points, name, remedy in stress(whole)}
    assert len(found) == 5 and found["a refusal"][0] == found["the task repeated"][0] == 0
    assert found["the keywords as a list"] == (10, "add 'words: 20+'")
    responses = {name: response for name, response, _ in tricks(whole, Input(""))}
    assert responses["the keywords as a list"] == "alpha, beta"
    rehearse(*asked(whole)[0])
    out = capsys.readouterr().out
    assert "'the keywords in lorem ipsum' scores 10.0" in out and ": add 'judge: " in out
    assert out.count("add 'words: 20+'") == 1


def test_tricks_fit_the_bands():
    names = {name: points for points, name, _ in stress(program("words: 60-120", "sentences: 4-6"))}
    assert names["lorem ipsum of the right length"] == 10


def test_the_commonest_answer_scores_its_share():
    inputs = tuple(Input(f"{n}", "ham" if n else "spam") for n in range(10))
    found = stress(program("equals: {expected}", inputs=inputs))
    points, remedy = next((p, remedy) for p, name, remedy in found if "same answer" in name)
    assert points == pytest.approx(9) and remedy == "add inputs of other answers"


def test_a_judge_is_taken_to_see_through_tricks():
    assert stress(program()) == stress(program("judge: Good?")) == []
    assert all(points <= 5 for points, _, _ in stress(program("judge: Good?", "words: 1-99")))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_no_trick_pays_in_what_ships(path):
    assert [name for points, name, _ in stress(load_program(path)) if points >= 7] == []


def test_many_inputs_are_forecast_in_blocks():
    few, many = (
        program("words: 1", inputs=tuple(Input(str(i)) for i in range(n))) for n in (3, 300)
    )
    assert expected_calls(few, 100, confirmed=False) == 3 * 4 + 100 * 4.5
    assert expected_calls(many, 1000, confirmed=False) == 64 + 1000 * 17.6
    assert 100 < expected_calls(few, 0, confirmed=True) - 12 < 1000
