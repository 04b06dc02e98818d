"""What each sentence of a prompt is worth. Run: pytest tests/test_ablation.py"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.search.ablation import CALLS, Ablation, ablate, split_sentences
from autoresearch.search.confirmation import MARGIN, Step, fresh_trials, outcome
from autoresearch.search.history import History
from tests.test_confirmation import TARGET, confirmed, record, searched

Scores = Callable[[Step], Sequence[float]]


@pytest.mark.parametrize(
    "prompt, parts",
    [
        ("", []),
        ("One", ["One"]),
        ("One. Two! Three?", ["One.", " Two!", " Three?"]),
        ("Rules:\n- Be brief\n- Be kind.", ["Rules:", "\n- Be brief", "\n- Be kind."]),
        ("First.\n\nSecond. Third.", ["First.", "\n\nSecond.", " Third."]),
        ("First. \nSecond.", ["First.", " \nSecond."]),
        ("Use fruit, e.g. pears. Stop.", ["Use fruit, e.g. pears.", " Stop."]),
        ("Version 3.5 of it.", ["Version 3.5 of it."]),
        ("Say it... Then stop.", ["Say it...", " Then stop."]),
    ],
)
def test_prompts_are_split_into_sentences_and_items(prompt: str, parts: list[str]) -> None:
    assert split_sentences(prompt) == parts


@given(st.text("aB. !?\n\t-\u3000\r", max_size=30))
@settings(deadline=None)
def test_the_sentences_together_are_the_prompt(text: str) -> None:
    prompt = text.strip()
    assert "".join(split_sentences(prompt)) == prompt


PROMPT = "Be right. Be brief.\nBe kind. Be quick."
WORTH = {"Be right.": 3.0, "Be brief.": 0.0, "Be kind.": 1.5, "Be quick.": 0.0}


def by_sentences(step: Step) -> list[float]:
    total = 4 + sum(value for sentence, value in WORTH.items() if sentence in step.prompt)
    return [total + 0.2 * (-1) ** number for number in range(step.passes)]


def led(prompt: str = PROMPT) -> History:
    """A search without a confirmation in which this prompt is ahead."""
    history = searched(1)
    history.add(record(TARGET + 1, "proposal", "refine", prompt, [9.0]))
    return history


def ablated(history: History, scores: Scores = by_sentences) -> Ablation:
    while isinstance(steps := ablate(history), list):
        step = steps[0]
        history.add(record(step.iteration, "ablation", step.stage, step.prompt, scores(step)))
    return steps


def test_each_sentence_is_left_out_in_turn() -> None:
    steps = ablate(led())
    assert isinstance(steps, list)
    assert {step.stage: step.prompt for step in steps} == {
        "whole": PROMPT,
        "without 1": "Be brief.\nBe kind. Be quick.",
        "without 2": "Be right.\nBe kind. Be quick.",
        "without 3": "Be right. Be brief. Be quick.",
        "without 4": "Be right. Be brief.\nBe kind.",
    }
    assert {step.passes for step in steps} == {CALLS}


def test_the_final_samples_of_the_best_prompt_are_not_taken_again() -> None:
    history = led()
    confirmed(history, lambda step: [9.0, 9.4] * 30 if step.prompt == PROMPT else [4.0, 4.4] * 30)
    steps = ablate(history)
    assert isinstance(steps, list)
    assert [step.stage for step in steps] == [f"without {n}" for n in (1, 2, 3, 4)]


def test_a_held_out_input_that_is_gone_is_not_asked_again() -> None:
    history, texts = led(), [f"unseen {n}" for n in range(7)]
    confirmed(history, by_sentences, texts)
    history.held_out = texts[:6]
    found = outcome(history, history.completed)
    assert found and found.inputs == 6
    assert {trial.input for trial in fresh_trials(history, found, found.best)} == {*texts[:6]}
    steps = ablate(history)
    assert isinstance(steps, list) and {text for s in steps for text in s.inputs} == {*texts[:6]}


def test_what_each_sentence_is_worth_and_the_prompt_without_the_idle_ones() -> None:
    found = ablated(led())
    assert [(text, pytest.approx(value.mean)) for text, value, _ in found.sentences] == [
        *WORTH.items()
    ]
    assert all(value.low <= value.mean <= value.high for _, value, _ in found.sentences)
    assert "Be right." in found.shortened and "Be kind." in found.shortened
    assert "Be brief." not in found.shortened and "Be quick." not in found.shortened
    assert [verdict for _, _, verdict in found.sentences] == [
        *("matters", "cannot be told", "matters", "cannot be told")
    ]
    assert found.loss is not None and found.loss.low > -MARGIN


def test_sentences_that_matter_only_together_come_back() -> None:
    def either(step: Step) -> list[float]:
        ideas = Counter(word in step.prompt for word in ("brief", "quick"))
        return [8 - 5 * (ideas[False] == 2) + 0.2 * (-1) ** n for n in range(step.passes)]

    found = ablated(led(), either)
    assert ("brief" in found.shortened) != ("quick" in found.shortened)


def test_a_prompt_in_which_everything_matters_stays_whole() -> None:
    history = led()
    whole = ablated(history, lambda s: [9.0 if s.stage == "whole" else 2.0] * s.passes)
    assert (whole.shortened, whole.loss) == (PROMPT, None)
    assert not any(e.strategy.startswith("shortened") for e in history.measured)


def test_a_prompt_of_one_sentence_is_not_emptied() -> None:
    found = ablated(led("Be brief."), lambda step: [5.0] * step.passes)
    assert (found.shortened, found.loss) == ("Be brief.", None)
    assert [text for text, _, _ in found.sentences] == ["Be brief."]


def test_an_interrupted_ablation_goes_on() -> None:
    history = led()
    found = ablated(history)
    begun = len(led().experiments)
    for count in range(begun, len(history.experiments)):
        assert ablated(History(history.experiments[:count])) == found


def test_ablations_do_not_move_the_search() -> None:
    history = led()
    before = history.top(99)
    ablated(history)
    assert history.top(99) == before
    assert history.contenders == {}
