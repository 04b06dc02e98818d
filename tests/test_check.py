"""The rehearsal before the night: tricks that must not pay, what the run will take.

pytest tests/test_check.py
"""

from __future__ import annotations

import pytest

from autoresearch.check import expected_calls, stress, warnings
from autoresearch.files.inputs import Input
from autoresearch.files.program import load_program
from tests.test_criteria import SHIPPED, program


def test_warns_of_tricks_that_pay():
    tricks = {trick.name: trick for trick in stress(program("mentions: alpha, beta | gamma"))}
    assert len(tricks) >= 8
    assert tricks["the keywords as a list"].response == "alpha, beta"
    assert "add 'words: 20+'" in tricks["the keywords as a list"].remedy
    assert tricks["a refusal"].score == 0 and not tricks["a refusal"].remedy
    assert "add 'judge: " in tricks["the keywords in lorem ipsum"].remedy
    lines = warnings(tricks.values())
    assert any("'the keywords in lorem ipsum' scores 10.0: add 'judge: " in line for line in lines)
    assert len(lines) == len({trick.remedy for trick in tricks.values()} - {""})


def test_tricks_fit_the_bands():
    names = {t.name: t.score for t in stress(program("words: 60-120", "sentences: 4-6"))}
    assert names["lorem ipsum of the right length"] == 10


def test_the_commonest_answer_scores_its_share():
    inputs = tuple(Input(f"{n}", "ham" if n else "spam") for n in range(10))
    tricks = {t.name: t for t in stress(program("equals: {expected}", inputs=inputs))}
    assert tricks["the same answer always"].score == pytest.approx(9)
    assert "add inputs of other answers" in tricks["the same answer always"].remedy


def test_a_judge_is_taken_to_see_through_tricks():
    assert stress(program()) == stress(program("judge: Good?")) == []
    assert all(trick.score <= 5 for trick in stress(program("judge: Good?", "words: 1-99")))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_no_trick_pays_in_what_ships(path):
    assert not [trick for trick in stress(load_program(path)) if trick.remedy]


def test_a_judge_and_a_panel_multiply_the_expected_calls():
    one = program("words: 1-9")
    judged = program("words: 1-9", "judge: Good?", inputs=(Input("a"), Input("b"), Input("c")))
    assert expected_calls(one, 100, confirmed=False) == 100 + 4 + 150
    assert expected_calls(judged, 100, confirmed=False) == 100 + 2 * 3 * (4 + 150)
