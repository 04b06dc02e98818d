"""What is measured after the search, and what is said of it.

pytest tests/test_confirmation.py
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

import pytest

from autoresearch.files.record import Experiment, Trial
from autoresearch.report.findings import grounds
from autoresearch.search.confirmation import (
    FINAL,
    FINAL_MOST,
    MARGIN,
    Confirmation,
    Step,
    answers_repeat,
    cost_ahead,
    next_steps,
    outcome,
    sample,
    underway,
)
from autoresearch.search.history import History
from tests.benchmarks.intervals import Cell, nights

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
    number, inputs = history.completed, step.inputs
    return record(number, "confirmation", step.stage, step.prompt, scores(step), inputs)


def asked(history: History, held_out: Sequence[str] = ()) -> list[Step]:
    """What is measured next where the program has these held-out inputs; the history itself knows
    of no program."""
    history.held_out = tuple(held_out)
    steps = next_steps(history, history.completed)
    history.held_out = None
    return steps


def confirmed(
    history: History, scores: Scores = alternating, held_out: Sequence[str] = ()
) -> list[Step]:
    """Takes the confirmation to its end, one measurement at a time; the steps taken."""
    taken = []
    while steps := asked(history, held_out):
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


def test_scores_without_trials_as_of_a_file_from_elsewhere_confirm_nothing() -> None:
    records = [Experiment(n, prompt=f"prompt {n}", score=5.0 + n) for n in range(3)]
    for history in (History(records[:1]), History(records), History(records, held_out=HELD_OUT)):
        assert (outcome(history), next_steps(history, 3), cost_ahead(history, 3)) == (None, [], 0)


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
    assert (found.inputs, found.passes) == (1, FINAL)
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
    assert all(set(s.inputs) == set(HELD_OUT) for s in steps if s.stage == "final")
    assert all(s.inputs == ("",) for s in steps if s.stage != "final")
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
    steps = asked(history, HELD_OUT)
    assert [(s.stage, set(s.inputs)) for s in steps] == [("final", set(HELD_OUT))] * 2
    confirmed(history, held_out=HELD_OUT)
    found = outcome(history)
    assert found is not None and found.held_out


def test_winner_and_baseline_are_never_compared_on_different_inputs() -> None:
    history = searched(9)
    confirmed(history)
    before = outcome(history)
    history.add(measured(history, asked(history, HELD_OUT)[0]))
    assert before is not None and outcome(history) == before
    history.add(measured(history, asked(history, HELD_OUT)[0]))
    found = outcome(history)
    assert found is not None and found.held_out


def test_held_out_inputs_that_came_and_went_leave_the_confirmation_whole() -> None:
    history = searched(9)
    while asked(history, HELD_OUT)[0].stage != "final":
        history.add(measured(history, asked(history, HELD_OUT)[0]))
    history.add(measured(history, asked(history, HELD_OUT)[0]))  # one of two
    confirmed(history)
    found = outcome(history)
    assert found is not None and not found.held_out
    assert found.passes == FINAL


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
    while steps := asked(history, inputs):
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
    assert found.passes * found.inputs >= FINAL


def test_a_step_taken_in_parts_goes_on_where_it_stopped() -> None:
    whole, history = searched(9), searched(9)
    confirmed(whole)
    while steps := next_steps(history, TARGET):
        step = steps[-1]
        history.add(measured(history, replace(step, passes=min(step.passes, 2))))
    assert max(len(e.passes()) for e in history.measured) == 2
    found, known = outcome(history), outcome(whole)
    assert found is not None and known is not None
    assert (found.winner, found.passes) == (known.winner, FINAL)


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


# ---- what tells something


def row(
    kind: str,
    number: int,
    stage: str,
    prompt: str,
    inputs: Iterable[str],
    passes: int,
    score: Callable[[str, int], float],
    answer: Callable[[str, int], str] = lambda text, at: f"{text} {at}",
) -> Experiment:
    """A record whose scores and answers depend on the input and the pass."""
    trials = tuple(
        Trial(text, answer(text, at), score(text, at), {}, "")
        for at in range(passes)
        for text in inputs
    )
    value = fmean(trial.score for trial in trials)
    return Experiment(number, kind, stage, prompt=prompt, score=value, trials=trials)


def labelled(
    rows: Sequence[str], held_out: Sequence[str] = (), *, repeats: bool, passes: int = 4
) -> History:
    """A search over labelled inputs in which "long ..." was right more often than the baseline."""
    history = History(inputs=rows)
    history.held_out = tuple(held_out)
    again = (lambda text, at: "yes") if repeats else (lambda text, at: f"{text} {at}")
    flips = 0 if repeats else 1
    history.add(
        row(
            "baseline", 0, "baseline", "base", rows, passes,
            lambda text, at: 10.0 * ((text[-1] != "0") + flips * at % 2 == 1), again,
        )
    )  # fmt: skip
    history.add(row("proposal", 1, "refine", "long winner", rows, 1, lambda text, at: 10.0, again))
    return history


def finished(
    history: History, target: int, right: Callable[[str, str, int], float], failing: str = ""
) -> list[Step]:
    """Takes every step, an input in `failing` being refused; the steps taken."""
    taken: list[Step] = []
    while steps := next_steps(history, target):
        assert len(taken) < 500
        step = steps[0]
        taken.append(step)
        if failing in (step.inputs):
            error = f'400 content filter (held-out input "{failing}")'
            history.add(Experiment(target, step.kind, step.stage, prompt=step.prompt, error=error))
            continue
        history.add(
            row(
                step.kind, target, step.stage, step.prompt, step.inputs, step.passes,
                partial(right, step.prompt),
            )
        )  # fmt: skip
    return taken


FEW, EIGHT, MANY_MORE = (
    [f"{kind} {number}" for number in range(count)]
    for kind, count in (("row", 3), ("unseen", 8), ("kept", 450))
)


def winner_right(prompt: str, text: str, at: int) -> float:
    return 10.0 * (prompt != "base" or text.endswith(("1", "3", "5")))


@pytest.mark.parametrize("repeats, calls", [(True, 2 * 2 * 8), (False, 2 * 4 * 8)])
def test_passes_go_where_they_tell_something(repeats: bool, calls: int) -> None:
    """Today 240 calls for 8 held-out inputs, of which 224 repeat what is known."""
    history = labelled(FEW, EIGHT, repeats=repeats)
    assert answers_repeat(history) is repeats
    taken = finished(history, 1, winner_right)
    final = [step for step in taken if step.stage == "final"]
    assert sum(step.passes * len(step.inputs) for step in final) == calls
    assert [step.stage for step in taken if step.stage != "final"] == [] if repeats else True


def test_whether_answers_repeat_is_measured_and_not_read_off_the_temperature() -> None:
    rows = labelled(FEW, repeats=False).experiments
    assert not answers_repeat(History(rows, deterministic=True))
    assert answers_repeat(History(labelled(FEW, repeats=True).experiments))
    one = labelled(FEW[:1], repeats=True)
    assert not answers_repeat(one)  # four times yes may be chance
    essay = row("baseline", 0, "baseline", "base", [""], 2, lambda *_: 7.3, lambda *_: "word " * 9)
    assert answers_repeat(History([essay]))


def test_eight_of_eight_is_no_certainty_and_says_which_inputs_it_speaks_of() -> None:
    history = labelled(FEW, EIGHT, repeats=True)
    finished(history, 1, winner_right)
    found = outcome(history)
    assert found is not None and found.held_out and found.generalises
    assert (found.winner_score.mean, found.winner_score.high) == (10, 10)
    assert found.winner_score.low < 6.5
    assert (found.inputs, found.passes) == (8, 2)


def test_labels_with_part_marks_are_labels() -> None:
    """equals (weight 3) and words: 1 give 10 or 2.5: eight times 10 is no more certain there."""
    history = labelled(FEW, EIGHT, repeats=True)
    finished(history, 1, lambda p, text, at: 2.5 + 0.75 * winner_right(p, text, at))
    found = outcome(history)
    assert found is not None and found.winner_score.low < 7.5


def test_without_held_out_inputs_nothing_is_said_of_others() -> None:
    history = labelled(MANY, repeats=True)
    finished(history, 1, winner_right)
    found = outcome(history)
    assert found is not None and (found.held_out, found.generalises) == (False, False)
    assert found.inputs == 6


def test_of_very_many_held_out_inputs_the_same_sample_is_asked_in_parts() -> None:
    history = labelled(FEW, MANY_MORE, repeats=True)
    taken = finished(history, 1, winner_right)
    asked = {text for step in taken for text in step.inputs}
    assert len(asked) == 200 and asked == set(sample(reversed(MANY_MORE)))
    assert max(len(step.inputs) for step in taken) == 32
    part = history.experiments.pop()
    history.measured.remove(part)
    assert outcome(history) is None  # the last part of the last prompt is missing
    history.add(part)
    found = outcome(history)
    assert found is not None and "sample of the 450 there are" in grounds(history, found, None)


def test_a_held_out_input_that_cannot_be_asked_is_left_out_and_named() -> None:
    history = labelled(FEW, EIGHT, repeats=True)
    taken = finished(history, 1, winner_right, failing=EIGHT[3])
    found = outcome(history)
    assert found is not None and found.skipped == (EIGHT[3],) and found.inputs == 7
    assert sum(EIGHT[3] in (step.inputs) for step in taken) == 2


def test_where_no_held_out_input_can_be_asked_the_final_takes_those_of_the_search() -> None:
    history = labelled(FEW, EIGHT[:1], repeats=True)
    finished(history, 1, winner_right, failing=EIGHT[0])
    found = outcome(history)
    assert found is not None and found.skipped == (EIGHT[0],) and found.inputs == len(FEW)
    assert not found.held_out and "just these inputs" in grounds(history, found, None)


def test_what_is_still_to_be_asked_is_known_beforehand() -> None:
    history = labelled(FEW, EIGHT, repeats=False)
    expected = cost_ahead(history, 1)
    taken = finished(history, 1, winner_right)
    calls = sum(step.passes * len(step.inputs) for step in taken)
    assert calls <= expected <= 1.5 * calls
    assert cost_ahead(history, 1) == 0


def test_a_confirmation_under_way_says_how_far_it_is() -> None:
    history = labelled(FEW, EIGHT, repeats=True)
    assert underway(history, 1) == ""
    step = next_steps(history, 1)[0]
    history.add(row("confirmation", 1, step.stage, step.prompt, step.inputs, 2, lambda *_: 10.0))
    assert underway(history, 1) == "confirmation under way: 16 of 32 calls"
    finished(history, 1, winner_right)
    assert underway(history, 1) == ""


def test_where_there_are_many_inputs_the_rounds_take_blocks_that_were_not_met() -> None:
    rows = [f"row {number}" for number in range(300)]
    history = History(inputs=rows)
    met = [text for block in history.blocks[:8] for text in block]
    for number, prompt in enumerate(("base", *"abcdefg")):
        kind = "proposal" if number else "baseline"
        history.add(row(kind, number, "refine", prompt, met, 1, lambda *_, n=number: 5 + n / 10))
    taken = finished(history, 7, lambda prompt, text, at: 3.0 + (prompt == "c") - at % 2)
    rounds = [step for step in taken if step.stage != "final"]
    assert {step.passes for step in rounds} == {1}
    assert not {text for step in rounds for text in step.inputs} & set(met)
    first = {step.inputs for step in rounds if step.stage == "round 1"}
    assert sum(map(len, first)) == 16  # the same two blocks for all
    found = outcome(history)
    assert found is not None and found.winner == "c"  # harder inputs, but harder for all


# ---- who is best, and which shorter one is as good


def test_a_prompt_that_lost_on_the_fresh_samples_is_never_the_best() -> None:
    history = labelled(FEW, EIGHT, repeats=True)
    finished(history, 1, lambda prompt, text, at: 10.0 - winner_right(prompt, text, at))
    found = outcome(history)
    assert found is not None and found.difference.mean < 0
    assert (found.winner, found.best) == ("long winner", "base")
    assert found.chance < 1 and not found.improved


def graded(held_out: Sequence[str], losses: dict[str, float]) -> Confirmation:
    """A night of graded scores in which each prompt loses so much against the winner."""
    history = History(inputs=FEW)
    history.held_out = tuple(held_out)
    for number, (prompt, loss) in enumerate(losses.items()):
        kind = "proposal" if number else "baseline"
        history.add(
            row(
                kind, number, "refine", prompt, FEW, 4 if kind == "baseline" else 1,
                lambda text, at, loss=loss: 8 - loss + at % 3 / 9 + int(text[-1]) / 20,
            )
        )  # fmt: skip
    finished(
        history, len(losses) - 1, lambda p, text, at: 8 - losses[p] + len(text) % 3 / 5 + at % 2 / 9
    )
    found = outcome(history)
    assert found is not None
    return found


WINNER = "the winner, at some length, with much that need not be said"


@pytest.mark.parametrize(
    "shorter, loss, offered",
    [
        ("a short one", 0.05, True),
        ("a short one", 0.28, False),  # not shown to lose less than 0.3
        (WINNER[:-5], 0.0, False),  # saves less than 15 %
    ],
)
def test_a_shorter_prompt_is_offered_when_it_is_shown_to_lose_little(
    shorter: str, loss: float, offered: bool
) -> None:
    found = graded(EIGHT, {"base": 2.0, WINNER: 0.0, shorter: loss})
    assert found.winner in (WINNER, shorter)
    if not offered:
        assert found.shortest is None
        return
    assert found.shortest is not None and found.shortest.prompt == shorter
    assert found.shortest.loss.low > -MARGIN
    assert found.shortest.score.mean == pytest.approx(found.winner_score.mean - loss)


@pytest.mark.parametrize(
    "cell",
    [
        Cell("labels", 5, True, 9.5, 7),
        Cell("labels", 8, False, 9, 9),
        Cell("long tail", 12, True, 7, 7),
        Cell("labels", 1, False, 9.7, 9, held_out=False),
    ],
)
def test_nine_of_ten_intervals_hold_in_a_few_nights(cell: Cell) -> None:
    """The whole table: python -m tests.benchmarks.intervals"""
    seen = nights(cell, 50)
    assert min(seen.holds) >= 0.9 and max(seen.width) <= 1.25
    assert cell.winner != cell.baseline or seen.improved <= 0.06


def test_nothing_is_shorter_than_an_empty_prompt() -> None:
    found = graded(EIGHT, {"": 0.0, WINNER: 2.0})
    assert (found.best, found.shortest) == ("", None)
