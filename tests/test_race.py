"""What is run next: baseline, passes, strategies, the steps of the night.

pytest tests/test_race.py
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.files.inputs import Input
from autoresearch.files.record import Experiment, Trial
from autoresearch.files.results import Results, load
from autoresearch.search.confirmation import next_steps
from autoresearch.search.history import History
from autoresearch.search.race import (
    BLOCKS,
    CYCLE,
    PASSES,
    PLATEAU,
    PLATEAU_CYCLE,
    earned,
    next_baseline,
    saturated,
    strategy,
)
from tests.test_experiment import program
from tests.test_history import NOISY, baseline, tried

ASKED = program()

# ---- racing


def due(history: History, prompt: str, scores: Sequence[float]) -> int:
    """How many passes come next after these, each over one input."""
    record = tried(9, prompt, *scores) if scores else Experiment(9, prompt=prompt)
    return len(earned(history, record))


def raced(history: History, prompt: str, scores: Sequence[float]) -> list[int]:
    """The passes that a prompt is given, step by step, when its scores come out as given."""
    steps, taken = [], 0
    while passes := due(history, prompt, scores[:taken]):
        steps.append(passes)
        taken += passes
    return steps


def test_a_contender_is_run_once_once_more_and_then_twice() -> None:
    assert raced(History([NOISY]), "new", [9] * 9) == [1, 1, 2]


@pytest.mark.parametrize("scores, steps", [([2] * 9, [1]), ([9, 1, 1, 1], [1, 1])])
def test_a_prompt_that_is_weak_or_falls_behind_earns_no_more(
    scores: list[float], steps: list[int]
) -> None:
    history = History([NOISY, tried(1, "good", 8, 8, 9, 8)])
    assert raced(history, "weak", scores) == steps


def test_a_deterministic_prompt_is_run_once() -> None:
    history = History([baseline(5)], deterministic=True)
    assert raced(history, "new", [10] * 9) == [1]
    history.add(tried(1, "new", 10))
    assert raced(history, "new", [10] * 9) == [1]


def test_a_repeat_earns_what_is_left_of_four_passes_and_at_least_one() -> None:
    history = History([NOISY, tried(1, "p", 9)])
    assert raced(history, "p", [9] * 9) == [1, 2]
    history.add(tried(2, " p ", 9, 9))
    assert raced(history, "p", [9] * 9) == [1]
    history.add(tried(3, "p", 9))
    assert raced(history, "p", [9] * 9) == [1]


@given(st.lists(st.floats(0, 10), min_size=8, max_size=8), st.lists(st.floats(0, 10), max_size=3))
@settings(max_examples=50, deadline=None)
def test_racing_never_exceeds_four_passes(scores: list[float], earlier: list[float]) -> None:
    history = History([NOISY, *([tried(1, "p", *earlier)] if earlier else [])])
    steps = raced(history, "p", scores)
    assert sum(steps) + len(earlier) <= PASSES
    assert steps[0] == 1


# ---- what is tried next


def turns(history: History, cycle: Sequence[str]) -> tuple[str, ...]:
    return tuple(strategy(history, ASKED, number) for number in range(1, len(cycle) + 1))


def test_strategies_follow_the_cycle() -> None:
    history = History([NOISY])
    assert turns(history, CYCLE) == CYCLE
    assert strategy(history, ASKED, len(CYCLE) + 1) == CYCLE[0]
    assert set(CYCLE) == {"refine", "wander", "combine", "simplify", "explore", "fresh"}


def test_on_a_plateau_explore_and_fresh_take_more_turns() -> None:
    history = History([NOISY])
    for number in range(1, PLATEAU + 1):
        assert turns(history, CYCLE) == CYCLE
        history.add(tried(number, f"poor {number}", 1))
    assert turns(history, PLATEAU_CYCLE) == PLATEAU_CYCLE
    for name in ("explore", "fresh"):
        share = PLATEAU_CYCLE.count(name) / len(PLATEAU_CYCLE)
        assert share > CYCLE.count(name) / len(CYCLE)
    history.add(tried(PLATEAU + 1, "at last", 9, 9, 9, 9))
    assert turns(history, CYCLE) == CYCLE


def test_the_best_prompt_of_an_earlier_series_is_carried_over_first() -> None:
    history = History([NOISY], inherited="")
    assert strategy(history, ASKED, 1) == "carry over"
    assert strategy(history, ASKED, 2) == CYCLE[1]


def test_a_leader_at_the_top_of_the_scale_turns_the_search_to_simplify() -> None:
    history = History([NOISY, tried(1, "p", 10, 10, 10)])
    assert not saturated(history)  # three passes may be luck
    history.add(tried(2, "p", 10))
    assert saturated(history)
    assert {strategy(history, ASKED, number) for number in range(1, 9)} == {"simplify"}


def test_a_leader_beyond_the_noise_from_full_marks_is_not_saturated() -> None:
    assert not saturated(History([NOISY, tried(1, "p", 8, 9, 8, 9)]))


@given(st.floats(0, 10))
def test_a_deterministic_full_score_is_saturated_after_one_pass(score: float) -> None:
    history = History([baseline(score)], deterministic=True)
    history.add(tried(1, "p", 10.0))
    assert saturated(history)


# ---- a pure function of the history


def night(seed: int, iterations: int) -> list[Experiment]:
    """A search with its confirmation, as main runs it, over prompts of random worth."""
    draw = random.Random(seed)
    history = History([baseline(*(draw.gauss(4, 1) for _ in range(PASSES)))])
    while (number := history.next_number()) <= iterations:
        if draw.random() < 0.1:
            history.add(
                Experiment(number, strategy=strategy(history, ASKED, number), error="time-out")
            )
            continue
        worth = draw.randrange(40)
        prompt = f"prompt {worth} {'and more' * (worth % 5)}"
        scores: list[float] = []
        while passes := due(history, prompt, scores):
            scores += [min(10, max(0, draw.gauss(worth / 4, 1))) for _ in range(passes)]
        history.add(tried(number, prompt, *scores, strategy=strategy(history, ASKED, number)))
    while steps := next_steps(history, iterations):
        scores = [draw.gauss(5, 1) for _ in range(steps[0].passes)]
        stage = steps[0].stage
        history.add(
            tried(iterations, steps[0].prompt, *scores, kind="confirmation", strategy=stage)
        )
    return history.experiments


def choices(history: History) -> object:
    """All that decides what is done next."""
    number = history.next_number()
    return (
        history.leader,
        history.top(8),
        [strategy(history, ASKED, number + ahead) for ahead in range(8)],
        number,
        [due(history, "new", [score]) for score in range(11)],
        [due(history, s.prompt, [5.0]) for s in history.top(8)],
        next_steps(history, history.completed) if history.leader else None,
        saturated(history),
    )


@pytest.mark.parametrize("seed", range(3))
def test_after_any_record_a_resumed_run_chooses_what_an_unbroken_one_did(
    seed: int, tmp_path: Path
) -> None:
    with Results(tmp_path / "results.json") as results:
        for experiment in night(seed, 40):
            results.append(experiment)
    stored = load(tmp_path / "results.json")
    unbroken = History()
    for count, experiment in enumerate(stored, 1):
        unbroken.add(experiment)
        assert choices(unbroken) == choices(History(stored[:count]))
    assert unbroken.completed == 40
    assert next_steps(unbroken, 40) == []


# ---- blocks of many inputs

ROWS = [f"row {n}" for n in range(300)]


def answered(experiment: Experiment, texts: Sequence[str], score: float) -> Experiment:
    trials = (Trial(text, "said", score, {}, "") for text in texts)
    return experiment.scored([*experiment.trials, *trials])


def searched(*scores: float, rows: Sequence[str] = ROWS, deterministic: bool = False) -> History:
    """A baseline over eight blocks, with these scores by turns, and a leader."""
    history = History(inputs=rows, deterministic=deterministic)
    for number, prompt in enumerate(("base", "leader")):
        record = Experiment(number, "proposal" if number else "baseline", prompt=prompt)
        for at, block in enumerate(history.blocks[:BLOCKS]):
            record = answered(record, block, scores[at % len(scores)] + number)
        history.add(record)
    return history


def blocks_met(history: History, prompt: str, score: float) -> list[int]:
    """How many blocks a prompt is asked at each step, when every answer scores the same."""
    steps, record = [], Experiment(9, prompt=prompt)
    while due_now := earned(history, record):
        steps.append(sum(block[0] in due_now for block in history.blocks))
        record = answered(record, due_now, score)
    history.add(record)
    return steps


def test_every_prompt_gets_the_first_block_and_a_weak_one_no_more() -> None:
    history = searched(4, 5, 6)
    assert earned(history, Experiment(9, prompt="new")) == [*history.blocks[0]]
    assert blocks_met(history, "weak", 1) == [1]


def test_a_contender_earns_block_after_block_up_to_eight() -> None:
    history = searched(4, 5, 6)
    assert blocks_met(history, "as good as any", 9) == [1] * 8


def test_a_contender_that_has_met_all_inputs_goes_on_with_the_first_again() -> None:
    history = searched(4, 5, 6, rows=ROWS[:40])
    assert blocks_met(history, "as good as any", 9) == [1] * 5 * PASSES
    assert history.met("as good as any") == Counter([*history.blocks] * PASSES)


def test_over_blocks_a_leader_that_errs_here_and_there_leaves_headroom() -> None:
    history = History(inputs=ROWS)
    for prompt, scores in (("base", [2, 7] * 4), ("leader", [10, 10, 7.8, 10, 10, 7.8, 10, 10])):
        record = Experiment(1, prompt=prompt)
        for block, score in zip(history.blocks, scores, strict=False):
            record = answered(record, block, score)
        history.add(record)
    assert history.leader is not None and history.noise is not None
    assert history.leader.estimate > 10 - history.noise / 2
    assert not saturated(history)


def test_without_noise_a_contender_meets_each_block_once() -> None:
    history = searched(4, 5, 6, rows=ROWS[:40], deterministic=True)
    assert blocks_met(history, "good", 9) == [1] * 5


def test_a_repeat_meets_the_next_block_not_the_first_again() -> None:
    history = searched(4, 5, 6)
    assert blocks_met(history, "weak", 1) == [1]
    assert earned(history, Experiment(10, prompt="weak")) == [*history.blocks[1]]


def test_the_baseline_is_measured_on_all_blocks_that_a_prompt_can_earn() -> None:
    history, asked = History(inputs=ROWS), replace(program(), inputs=tuple(map(Input, ROWS)))
    step = next_baseline(history, asked, ())
    assert step is not None and step.passes == 1
    assert step.inputs == tuple(text for block in history.blocks[:8] for text in block)
