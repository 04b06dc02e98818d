"""What is measured after the search, and what is said of it.

pytest tests/test_confirmation.py
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.ablation import CALLS, Ablation, ablate, split_sentences
from autoresearch.search.confirmation import (
    FINAL,
    FINAL_MOST,
    MARGIN,
    Step,
    next_steps,
    outcome,
)
from autoresearch.search.history import History

TARGET = 10
HELD_OUT = ["unseen", "unheard"]

Scores = Callable[[Step], Sequence[float]]


def record(
    number: int,
    kind: str,
    strategy: str,
    prompt: str,
    scores: Sequence[float],
    inputs: Iterable[str] = ("",),
) -> Experiment:
    trials = tuple(Trial(text, "said", score, {}, "") for score in scores for text in inputs)
    return Experiment(number, kind, strategy, prompt=prompt, score=fmean(scores), trials=trials)


def searched(prompts: int, base: Sequence[float] = (2.0, 3.0, 3.0, 4.0)) -> History:
    """A search of TARGET proposals over so many prompts, the longer the number the better."""
    history = History([record(0, "baseline", "baseline", "base", base)])
    for number in range(1, TARGET + 1):
        rank = number % prompts
        history.add(record(number, "proposal", "refine", f"prompt {rank}", [4 + rank / 2]))
    return history


def worth(prompt: str) -> float:
    return 4 + int(prompt[-1]) / 2 if prompt[-1].isdigit() else 3.0


def alternating(step: Step) -> list[float]:
    """Scores around what the prompt is worth."""
    return [worth(step.prompt) + 0.9 * (-1) ** number for number in range(step.passes)]


def measured(history: History, step: Step, scores: Scores = alternating) -> Experiment:
    inputs = HELD_OUT if step.held_out else [""]
    return record(history.completed, "confirmation", step.stage, step.prompt, scores(step), inputs)


def confirmed(
    history: History, scores: Scores = alternating, held_out: Sequence[str] = ()
) -> list[Step]:
    """Takes the confirmation to its end, one measurement at a time; the steps taken."""
    taken = []
    while steps := next_steps(history, history.completed, held_out):
        taken.append(steps[0])
        history.add(measured(history, steps[0], scores))
    return taken


# ---- halving


def test_eight_contenders_are_halved_in_three_rounds_of_24_passes() -> None:
    history = searched(9)
    steps = confirmed(history)
    passes = [(step.stage, step.passes) for step in steps]
    assert passes == (
        [("round 1", 3)] * 8 + [("round 2", 6)] * 4 + [("round 3", 12)] * 2 + [("final", FINAL)] * 2
    )
    alive = [[s.prompt for s in steps if s.stage == f"round {n}"] for n in (1, 2, 3)]
    assert set(alive[0]) > set(alive[1]) > set(alive[2])
    assert set(alive[2]) == {"prompt 7", "prompt 8"}
    assert [step.prompt for step in steps[-2:]] == ["prompt 8", "base"]


def test_a_whole_round_may_run_side_by_side() -> None:
    history = searched(9)
    steps = next_steps(history, TARGET)
    assert len({step.prompt for step in steps}) == len(steps) == 8
    for step in reversed(steps):
        history.add(measured(history, step))
    assert [step.stage for step in next_steps(history, TARGET)] == ["round 2"] * 4


@pytest.mark.parametrize(
    "prompts, rounds",
    [(1, [12] * 2), (2, [8] * 3 + [12] * 2), (4, [4] * 5 + [8] * 3 + [12] * 2)],
)
def test_fewer_contenders_share_the_same_passes(prompts: int, rounds: list[int]) -> None:
    steps = confirmed(searched(prompts))  # and the baseline is one of them
    assert [step.passes for step in steps if step.stage != "final"] == rounds


def test_rounds_are_pooled_with_what_the_search_had_seen() -> None:
    """One round that goes the other way does not turn a lead of many passes."""
    history = History([record(0, "baseline", "baseline", "base", [3, 3, 4, 4])])
    history.add(record(1, "proposal", "refine", "solid", [8, 9] * 30))
    history.add(record(2, "proposal", "refine", "shaky", [7, 8]))
    confirmed(
        history, lambda step: [{"solid": 7.4, "shaky": 8.0}.get(step.prompt, 3)] * step.passes
    )
    found = outcome(history)
    assert found is not None and found.winner == "solid"


def test_wherever_it_is_interrupted_the_same_steps_follow() -> None:
    history = searched(9)
    steps = confirmed(history)
    begun = len(history.experiments) - len(steps)
    for count in range(len(steps) + 1):
        resumed = History(history.experiments[: begun + count])
        assert confirmed(resumed) == steps[count:]
        assert outcome(resumed) == outcome(history)


def test_a_failed_measurement_is_made_again() -> None:
    history = searched(9)
    first = next_steps(history, TARGET)
    history.add(
        Experiment(TARGET, "confirmation", "round 1", prompt=first[0].prompt, error="time-out")
    )
    assert next_steps(history, TARGET) == first


def test_more_iterations_later_confirm_anew() -> None:
    history = searched(9)
    steps = confirmed(history)
    before = outcome(history)
    history.add(record(TARGET + 1, "proposal", "refine", "prompt 9", [9.0]))
    assert next_steps(history, TARGET) == []
    again = confirmed(history)
    assert len(again) == len(steps)
    found = outcome(history)
    assert found is not None and (found.target, found.winner) == (TARGET + 1, "prompt 9")
    assert outcome(history, TARGET) == before


def test_an_unfinished_confirmation_leaves_the_one_before_as_the_latest() -> None:
    history = searched(9)
    confirmed(history)
    before = outcome(history)
    history.add(record(TARGET + 1, "proposal", "refine", "prompt 9", [9.0]))
    history.add(measured(history, next_steps(history, TARGET + 1)[0]))
    assert outcome(history) == before
    assert outcome(history, TARGET + 1) is None


def test_contenders_stand_as_they_were_before_the_confirmation() -> None:
    history = searched(9)
    confirmed(history)
    frozen = [standing.prompt for standing in history.contenders[TARGET]]
    for number in range(TARGET + 1, TARGET + 12):
        history.add(record(number, "proposal", "refine", f"later {number}", [9.5]))
    assert [standing.prompt for standing in history.contenders[TARGET]] == frozen
    assert next_steps(history, TARGET) == []


def test_without_any_confirmation_there_is_no_outcome() -> None:
    assert outcome(History()) is None
    assert outcome(searched(9)) is None
    assert outcome(searched(9), TARGET) is None


# ---- the final


def test_what_is_reported_rests_on_the_final_passes_alone() -> None:
    history = searched(9)
    draw = random.Random(3)
    noisy: dict[Step, list[float]] = {}

    def scores(step: Step) -> list[float]:
        noisy[step] = [draw.gauss(worth(step.prompt), 0.7) for _ in range(step.passes)]
        return noisy[step]

    confirmed(history, scores)
    found = outcome(history)
    assert found is not None
    finals = {step.prompt: values for step, values in noisy.items() if step.stage == "final"}
    best, plain = finals[found.winner], finals["base"]
    assert found.winner_score.mean == pytest.approx(fmean(best))
    assert found.baseline_score.mean == pytest.approx(fmean(plain))
    assert found.winner_score.samples == FINAL
    assert found.difference.mean == pytest.approx(fmean(best) - fmean(plain))
    assert found.improved
    assert not found.held_out


def test_final_passes_never_choose() -> None:
    """Whatever the final passes say, the same prompt stays the winner."""
    found = []
    for last in (0.0, 10.0):
        history = searched(9)
        confirmed(
            history,
            lambda step, last=last: [last] * FINAL if step.stage == "final" else alternating(step),
        )
        found.append(outcome(history))
    low, high = found
    assert low is not None and high is not None
    assert low.winner == high.winner == "prompt 8"
    assert (low.winner_score.mean, high.winner_score.mean) == (0, 10)


def test_the_score_that_the_search_believed_is_the_one_before_the_confirmation() -> None:
    history = searched(9)
    believed = history.standing("prompt 8").estimate
    confirmed(history, lambda s: [0.5 if s.stage == "final" else worth(s.prompt)] * s.passes)
    found = outcome(history)
    assert found is not None
    assert (found.winner, found.believed) == ("prompt 8", believed)
    assert found.winner_score.mean == pytest.approx(0.5)


def test_held_out_inputs_are_for_the_final_only_and_never_reach_the_search() -> None:
    history = searched(9)
    steps = confirmed(history, held_out=HELD_OUT)
    assert {step.stage for step in steps if step.held_out} == {"final"}
    assert all(step.held_out for step in steps if step.stage == "final")
    found = outcome(history)
    assert found is not None and found.held_out
    assert (found.inputs, found.passes) == (2, math.ceil(FINAL / 2))
    shown = {trial.input for s in history.top(99) for trial in history.trials(s.prompt)}
    assert shown == {""}
    plain = searched(9)
    confirmed(plain)
    assert history.standing("prompt 8").samples == plain.standing("prompt 8").samples - FINAL


def test_other_held_out_inputs_later_are_measured_anew() -> None:
    history = searched(9)
    confirmed(history)
    steps = next_steps(history, TARGET, HELD_OUT)
    assert [(step.stage, step.held_out) for step in steps] == [("final", True)] * 2
    confirmed(history, held_out=HELD_OUT)
    found = outcome(history)
    assert found is not None and found.held_out


def test_winner_and_baseline_are_never_compared_on_different_inputs() -> None:
    history = searched(9)
    confirmed(history)
    before = outcome(history)
    history.add(measured(history, next_steps(history, TARGET, HELD_OUT)[0]))
    assert before is not None and outcome(history) == before
    history.add(measured(history, next_steps(history, TARGET, HELD_OUT)[0]))
    found = outcome(history)
    assert found is not None and found.held_out


def test_held_out_inputs_that_came_and_went_leave_the_confirmation_whole() -> None:
    history = searched(9)
    while next_steps(history, TARGET, HELD_OUT)[0].stage != "final":
        history.add(measured(history, next_steps(history, TARGET, HELD_OUT)[0]))
    history.add(measured(history, next_steps(history, TARGET, HELD_OUT)[0]))  # one of two
    confirmed(history)
    found = outcome(history)
    assert found is not None and not found.held_out
    assert found.winner_score.samples == FINAL


def test_a_baseline_that_wins_is_no_improvement() -> None:
    history = searched(3, base=(9.0, 9.5, 9.5, 10.0))
    steps = confirmed(
        history, lambda s: [9.0, 9.5, 10.0] * 20 if s.prompt == "base" else alternating(s)
    )
    assert [step.prompt for step in steps if step.stage == "final"] == ["base"]
    found = outcome(history)
    assert found is not None
    assert (found.winner, found.best, found.shortest) == ("base", "base", None)
    assert not found.improved
    assert (found.difference.low, found.difference.mean, found.difference.high) == (0, 0, 0)


def test_a_winner_shown_to_be_worse_than_the_baseline_is_not_the_best() -> None:
    history = searched(9)
    confirmed(
        history,
        lambda s: [
            (1.0 if s.stage == "final" and s.prompt != "base" else 4.0) + i % 2
            for i in range(s.passes)
        ],
    )
    found = outcome(history)
    assert found is not None and found.difference.high < 0 and not found.improved
    assert (found.winner != "base", found.best, found.shortest) == (True, "base", None)
    assert found.chance > 0.95


MANY = [f"input {number}" for number in range(6)]


@pytest.mark.parametrize("inputs, generalises", [(MANY[:2], False), (MANY, True)])
def test_what_differs_from_input_to_input_counts_where_they_are_a_sample(
    inputs: list[str], generalises: bool
) -> None:
    """Much better on some inputs, worse on others: on another six it may be the other way."""
    history = searched(9)
    while steps := next_steps(history, TARGET, inputs):
        step = steps[0]
        if step.stage != "final":
            history.add(measured(history, step))
            continue
        gains = [3.0, -1.0] * 3 if step.prompt != "base" else [0.0] * 6
        trials = tuple(
            Trial(text, "said", 5 + gain + 0.1 * (-1) ** number, {}, "")
            for number in range(step.passes)
            for text, gain in zip(inputs, gains, strict=False)
        )
        score = fmean(trial.score for trial in trials)
        history.add(
            Experiment(
                TARGET, "confirmation", "final", prompt=step.prompt, score=score, trials=trials
            )
        )
    found = outcome(history)
    assert found is not None and (found.inputs, found.generalises) == (len(inputs), generalises)
    assert found.difference.mean == pytest.approx(1.0)
    assert found.improved is not generalises
    assert found.winner_score.samples == (len(inputs) if generalises else FINAL + 1)


def test_a_step_taken_in_parts_goes_on_where_it_stopped() -> None:
    whole, history = searched(9), searched(9)
    confirmed(whole)
    while steps := next_steps(history, TARGET):
        step = steps[-1]
        history.add(measured(history, replace(step, passes=min(step.passes, 2))))
    assert max(len(e.passes()) for e in history.measured) == 2
    found, known = outcome(history), outcome(whole)
    assert found is not None and known is not None
    assert (found.winner, found.winner_score.samples) == (known.winner, FINAL)


def test_a_difference_within_the_noise_is_no_improvement() -> None:
    history = searched(9)
    confirmed(history, lambda step: [4.0, 6.0] * 30)
    found = outcome(history)
    assert found is not None and not found.improved
    assert found.difference.low < 0 < found.difference.high
    assert found.best == "prompt 8"  # of equals the one that the search had ahead


def test_a_changed_baseline_is_measured_before_anything_is_said_of_it() -> None:
    history = searched(9)
    confirmed(history)
    history.add(record(0, "baseline", "baseline", "another base", [3, 4, 3, 4]))
    assert outcome(history) is None
    assert [s.prompt for s in next_steps(history, TARGET)] == ["another base"]


def test_large_noise_takes_more_final_passes_up_to_a_limit() -> None:
    for spread, passes in ((0.1, FINAL), (1.25, 25), (5.0, FINAL_MOST)):
        base = [5 - spread, 5 + spread] * 50
        history = History([record(0, "baseline", "baseline", "base", base)])
        assert [step.passes for step in next_steps(history, 0)] == [pytest.approx(passes, abs=1)]


def test_without_noise_nothing_is_halved() -> None:
    history = searched(9, base=(3.0,) * 10)
    steps = confirmed(history, lambda step: [worth(step.prompt)] * step.passes)
    assert [(step.stage, step.prompt) for step in steps] == [
        ("final", "prompt 8"),
        ("final", "base"),
    ]
    found = outcome(history)
    assert found is not None and found.improved and found.passes == 2
    assert 7.5 < found.winner_score.low < 8.0 < found.winner_score.high < 8.5


def test_with_the_same_scores_the_same_is_reported() -> None:
    one, two = searched(9), searched(9)
    assert confirmed(one) == confirmed(two)
    assert outcome(one) == outcome(two)


# ---- ablation


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


def ablated(history: History, scores: Scores = by_sentences, prompt: str = PROMPT) -> Ablation:
    while isinstance(steps := ablate(history, prompt, TARGET), list):
        step = steps[0]
        history.add(record(TARGET, "ablation", step.stage, step.prompt, scores(step)))
    return steps


def test_each_sentence_is_left_out_in_turn() -> None:
    steps = ablate(searched(1), PROMPT, TARGET)
    assert isinstance(steps, list)
    assert {step.stage: step.prompt for step in steps} == {
        "whole": PROMPT,
        "without 1": "Be brief.\nBe kind. Be quick.",
        "without 2": "Be right.\nBe kind. Be quick.",
        "without 3": "Be right. Be brief. Be quick.",
        "without 4": "Be right. Be brief.\nBe kind.",
    }
    assert {step.passes for step in steps} == {CALLS}


def test_what_each_sentence_is_worth_and_the_prompt_without_the_idle_ones() -> None:
    found = ablated(searched(1))
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

    found = ablated(searched(1), either)
    assert ("brief" in found.shortened) != ("quick" in found.shortened)


def test_a_prompt_in_which_everything_matters_stays_whole() -> None:
    history = searched(1)
    whole = ablated(history, lambda s: [9.0 if s.stage == "whole" else 2.0] * s.passes)
    assert (whole.shortened, whole.loss) == (PROMPT, None)
    assert not any(e.strategy.startswith("shortened") for e in history.measured)


def test_a_prompt_of_one_sentence_is_not_emptied() -> None:
    found = ablated(searched(1), lambda step: [5.0] * step.passes, "Be brief.")
    assert (found.shortened, found.loss) == ("Be brief.", None)
    assert [text for text, _, _ in found.sentences] == ["Be brief."]


def test_an_interrupted_ablation_goes_on() -> None:
    history = searched(1)
    found = ablated(history)
    begun = TARGET + 1
    for count in range(begun, len(history.experiments)):
        assert ablated(History(history.experiments[:count])) == found


def test_ablations_do_not_move_the_search() -> None:
    history = searched(9)
    before = history.top(99)
    ablated(history)
    assert history.top(99) == before
    assert history.contenders == {}
