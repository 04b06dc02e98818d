"""How prompts stand, what is tried next, what counts as a repeat.

pytest tests/test_history.py
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz
from scipy import stats

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.history import (
    CONTENDERS,
    EDITS,
    LATEST,
    NEAR,
    History,
    in_blocks,
)
from autoresearch.search.intervals import welch
from autoresearch.search.posterior import SPREAD_FLOOR
from autoresearch.text import named, normalise


def tried(
    number: int,
    prompt: str,
    *scores: float,
    kind: str = "proposal",
    strategy: str = "explore",
    inputs: Sequence[str] = ("",),
    criteria: dict[str, float] | None = None,
) -> Experiment:
    """The record of an experiment, each of its passes with one of the scores."""
    trials = tuple(
        Trial(text, "said", score, criteria or {}, "") for score in scores for text in inputs
    )
    return Experiment(number, kind, strategy, prompt=prompt, score=fmean(scores), trials=trials)


def baseline(*scores: float, prompt: str = "base") -> Experiment:
    return tried(0, prompt, *scores, kind="baseline", strategy="baseline")


NOISY = baseline(4.0, 5.0, 5.0, 6.0)  # noise of 0.82 points
UNBALANCED = [tried(1, "a", 6, 8), tried(2, "b", 5, 5, 8), tried(3, "c", 9)]


# ---- the model of the scores


def test_variance_components_and_shrinkage_as_computed_by_hand() -> None:
    # squares within: 2 + 6 = 8 on 1 + 2 degrees; between: 287 - 41^2/6 = 41/6 on 2 degrees;
    # n0 = (6 - 14/6) / 2 = 11/6, so the variance between is (41/12 - 8/3) / (11/6)
    within, between = Fraction(8, 3), Fraction(9, 22)
    weights = {n: 1 / (between + within / n) for n in (1, 2, 3)}
    mean = (weights[2] * 7 + weights[3] * 6 + weights[1] * 9) / sum(weights.values())
    history = History(UNBALANCED)
    assert history.noise == pytest.approx(float(within) ** 0.5)
    for prompt, n, own in (("a", 2, 7), ("b", 3, 6), ("c", 1, 9)):
        share = between / (between + within / n)
        standing = history.standing(prompt)
        assert (standing.samples, standing.mean) == (n, pytest.approx(own))
        assert standing.estimate == pytest.approx(float(mean + share * (own - mean)))
        assert standing.deviation == pytest.approx(float(share * within / n) ** 0.5)
    assert float(Fraction(27, 115)) == pytest.approx(float(between / (between + within / 2)))


def test_variance_components_agree_with_one_way_anova() -> None:
    draw = np.random.default_rng(7)
    groups = [draw.normal(draw.normal(6, 1.5), 1, size) for size in (4, 1, 2, 4, 7, 1, 4, 2, 1)]
    history = History(tried(i, f"p{i}", *map(float, g)) for i, g in enumerate(groups, 1))
    sizes = np.array([len(group) for group in groups])
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (sizes.sum() - len(groups))
    ratio = stats.f_oneway(*groups).statistic
    size = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(groups) - 1)
    assert history.noise == pytest.approx(within**0.5)
    single = history.standing("p2")  # its variance is between * within / (between + within)
    between = (ratio - 1) * within / size
    assert single.deviation**2 == pytest.approx(between * within / (between + within))


def test_prompts_are_never_taken_to_be_all_alike() -> None:
    history = History([tried(1, "a", 5, 6), tried(2, "b", 5, 6), tried(3, "c", 5, 6)])
    floor, within = SPREAD_FLOOR**2, 0.5
    assert history.standing("a").deviation ** 2 == pytest.approx(
        floor / (floor + within / 2) * within / 2
    )


def test_one_lucky_sample_does_not_pass_four_good_ones() -> None:
    usual = [tried(number, f"p{number}", score) for number, score in enumerate((4, 5, 6) * 4, 3)]
    history = History([*usual, NOISY, tried(1, "steady", 8, 9, 7, 8), tried(2, "lucky", 8.4)])
    assert history.leader is not None and history.leader.prompt == "steady"
    assert history.standing("lucky").estimate < 8.4


def test_before_any_prompt_has_two_passes_the_noise_is_unknown() -> None:
    history = History([tried(1, "a", 5), tried(2, "b", 7)])
    assert history.noise is None
    assert history.standing("b").estimate == 7
    assert history.tie == 0


def test_passes_pool_over_records_whatever_the_white_space() -> None:
    history = History([tried(1, "Be brief.\n\nBe kind.", 5, 6), tried(2, "Be brief. Be kind. ", 7)])
    standing = history.standing(" Be\tbrief. Be kind.")
    assert (standing.samples, standing.mean) == (3, pytest.approx(6))
    assert standing.prompt == "Be brief.\n\nBe kind."
    assert standing.iteration == 1
    assert history.top(9) == [standing]
    assert len(history.trials("Be brief. Be kind.")) == 3


def test_a_pass_is_the_mean_over_all_inputs() -> None:
    trials = [
        Trial(text, "", score, {}, "") for text, score in zip("abab", (2, 4, 6, 8), strict=True)
    ]
    history = History([Experiment(1, prompt="p", score=5.0, trials=tuple(trials))])
    assert history.standing("p").samples == 2
    assert history.noise == pytest.approx(8**0.5)  # of the passes 3 and 7


def test_passes_in_any_grouping_give_the_same_standing() -> None:
    whole = History([NOISY, tried(1, "p", 5, 7, 6, 9)])
    parts = History([NOISY, tried(1, "p", 5), tried(2, "p", 7, 6), tried(3, "p", 9)])
    assert whole.standing("p").mean == pytest.approx(parts.standing("p").mean)
    assert whole.standing("p").estimate == pytest.approx(parts.standing("p").estimate)
    assert whole.noise == pytest.approx(parts.noise)


def test_records_without_trials_count_as_one_pass() -> None:
    history = History([Experiment(None, prompt="old", response="r", score=6.5)])
    assert history.standing("old").samples == 1
    assert history.trials("old") == []
    assert history.completed == 1


def test_a_failed_experiment_is_no_score() -> None:
    history = History([NOISY])
    before = history.standing("base")
    assert not history.add(Experiment(1, prompt="p", error="API error: 503 at 10:20"))
    assert history.standing("base") == before
    assert history.completed == 0
    assert history.failures == Counter({"API error": 1})
    with pytest.raises(KeyError):
        history.standing("p")


def test_ablations_and_other_inputs_never_reach_the_search() -> None:
    history = History([NOISY, tried(1, "p", 5)])
    before = history.top(8)
    history.add(tried(1, "p", 10, kind="ablation", strategy="whole"))
    history.add(tried(1, "p", 10, 10, kind="confirmation", strategy="final", inputs=["held", "2"]))
    assert history.top(8) == before
    assert history.trials("p") == list(tried(1, "p", 5).trials)
    assert len(history.measured) == 2


# ---- leader, top, recent


def test_among_ties_the_shorter_prompt_leads() -> None:
    history = History(
        [NOISY, tried(1, "long prompt " * 9, 8, 7, 9, 8), tried(2, "short", 8, 7, 9, 8)]
    )
    assert history.leader is not None and history.leader.prompt == "short"
    nearly = History(
        [NOISY, tried(1, "long prompt " * 9, 8, 7, 9, 8.02), tried(2, "short", 8, 7, 9, 8)]
    )
    assert nearly.leader is not None and nearly.leader.prompt == "short"
    assert nearly.top(1)[0].prompt.startswith("long")


def test_a_longer_prompt_leads_where_the_difference_is_no_tie() -> None:
    history = History([NOISY, tried(1, "short", 7, 8, 7, 8), tried(2, "long" * 20, 8, 9, 8, 9)])
    assert history.leader is not None and history.leader.prompt == "long" * 20


def test_taking_the_lead_is_told_and_remembered() -> None:
    history = History()
    assert history.add(NOISY)
    assert not history.add(tried(1, "worse", 3))
    assert history.add(tried(2, "better", 9, 9, 8, 9, strategy="combine"))
    assert not history.add(tried(3, "better", 9))
    assert [place for place, _ in history.best_line] == [1, 2, 3, 4]
    assert {name: leads for name, _, _, leads in history.strategies()} == {
        "explore": 0,
        "combine": 1,
    }


def test_top_is_best_first_and_recent_is_oldest_first() -> None:
    records = [tried(i, f"p{i}", *(float(i % 7),) * (1 + i % 3)) for i in range(1, 30)]
    history = History([NOISY, *records])
    best = history.top(5)
    everything = sorted(
        (history.standing(p) for p in ["base", *(r.prompt for r in records)]),
        key=lambda s: (-s.estimate, len(s.prompt)),
    )
    assert [s.estimate for s in best] == [s.estimate for s in everything[:5]]
    assert len(history.top(100)) == 30
    assert [e.iteration for e in history.proposals[-3:]] == [27, 28, 29]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.lists(st.floats(0, 10), min_size=1, max_size=4)),
        min_size=1,
        max_size=20,
    )
)
@settings(max_examples=60, deadline=None)
def test_the_leader_is_tied_with_the_best_whatever_was_scored(
    drawn: list[tuple[str, list[float]]],
) -> None:
    history = History(tried(i, prompt, *scores) for i, (prompt, scores) in enumerate(drawn, 1))
    ranked = [history.standing(prompt) for prompt in {prompt for prompt, _ in drawn}]
    best = max(ranked, key=lambda s: s.estimate)
    assert history.leader is not None
    assert history.leader.estimate >= best.estimate - history.tie - 1e-9
    assert history.top(1)[0].estimate == pytest.approx(best.estimate)
    assert 0 <= history.leader.estimate <= 10 + 1e-9


def test_criteria_that_everything_passes_are_named() -> None:
    marks = {"words: 1-9": 1.0, "judge: good": 1.0}
    history = History([tried(1, "p", 9, criteria=marks)])
    assert history.passed_by_all() == ["words: 1-9", "judge: good"]
    history.add(tried(2, "q", 9, criteria={**marks, "judge: good": 0.9}))
    assert history.passed_by_all() == ["words: 1-9"]
    for number in range(3, 28):
        history.add(tried(number, f"p{number}", 9, criteria=marks))
    assert history.passed_by_all() == ["words: 1-9", "judge: good"]  # of the latest only


def test_numbers_go_on_where_none_is_scored_or_running() -> None:
    history = History([NOISY])
    assert history.next_number() == 1
    history.add(tried(1, "a", 5))
    history.add(tried(3, "c", 5))
    history.add(Experiment(2, prompt="b", error="time-out"))
    assert history.next_number() == 2  # failed: tried again
    assert history.next_number({2}) == 4
    assert history.next_number([2, 4, 5]) == 6
    history.add(tried(2, "b", 5))
    assert history.next_number() == 4
    history.add(tried(250, "b", 5, kind="confirmation", strategy="final"))
    assert history.next_number() == 4


# ---- repeats


BODY = (
    "You are a patient teacher. Explain one idea at a time, in short sentences, with one example "
    "from the kitchen and one from the street, and end with a question to the reader."
)


def test_a_near_repeat_is_found_and_named_as_it_was_written() -> None:
    history = History([NOISY, tried(1, f"{BODY}\n", 5)])
    for repeat in (BODY, f"  {BODY}", BODY.replace(" ", "\n"), BODY.upper(), BODY + "!", BODY[2:]):
        assert history.twin(repeat) == f"{BODY}\n"


def test_another_prompt_is_no_repeat() -> None:
    history = History([NOISY, tried(1, BODY, 5)])
    assert history.twin(BODY.replace("kitchen", "garden shed")) is None
    assert history.twin(BODY[: len(BODY) // 2]) is None
    assert History().twin(BODY) is None


def test_prompts_that_failed_or_that_lack_a_sentence_of_the_winner_can_be_proposed() -> None:
    history = History([NOISY, Experiment(1, prompt=BODY, error="time-out")])
    history.add(tried(1, BODY, 5, kind="ablation", strategy="without 1"))
    assert history.twin(BODY) is None


def test_the_empty_baseline_prompt_has_no_near_repeats() -> None:
    history = History([baseline(5, 6, prompt="")])
    assert history.twin(" \n") == ""
    assert history.twin("a") is None


@given(st.text("ab cß İ.", min_size=1, max_size=80), st.data())
@settings(max_examples=150, deadline=None)
def test_no_near_repeat_escapes_by_its_length(first: str, data: st.DataObject) -> None:
    second = data.draw(st.sampled_from([first.upper(), first.casefold(), first + "a", first * 2]))
    history = History([tried(1, first, 5)])
    ratio = fuzz.ratio(normalise(first).casefold(), normalise(second).casefold())
    assert (history.twin(second) is not None) == (ratio >= NEAR)


@given(st.integers(0, 10**6), st.integers(20, 300), st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_edited_prompts_are_repeats_just_where_the_ratio_says_so(
    seed: int, size: int, edits: int
) -> None:
    draw = random.Random(seed)
    letters = draw.choices("etaoinsr xyz", k=size)
    history = History([tried(1, "".join(letters), 5)])
    for _ in range(edits):
        at = draw.randrange(len(letters))
        letters[at : at + draw.randrange(2)] = draw.choice(["", "e", "z", "tt", "q "])
    ratio = fuzz.ratio(normalise(history.experiments[0].prompt), normalise("".join(letters)))
    assert (history.twin("".join(letters)) is not None) == (ratio >= NEAR)


@pytest.mark.parametrize("size", [1, 16, 17, 32, 33, 65, 97, 100, 131, 485, 1000, 4999])
def test_the_window_of_lengths_is_wide_enough(size: int) -> None:
    history = History([tried(1, "x" * size, 5)])
    for other in range(int(size * 0.9), int(size * 1.1) + 2):
        near = fuzz.ratio("x" * size, "x" * other) >= max(NEAR, 100 - 50 * EDITS / max(other, 1))
        assert (history.twin("x" * other) is not None) == near


LONG = "Explain the parts of the engine in the order in which a mechanic would meet them. " * 30


@pytest.mark.parametrize(
    "prompt, other",
    [
        (
            "Explain it in at most 60 words, for a child.",
            "Explain it in at most 90 words, for a child.",
        ),
        (
            LONG,
            f"{LONG}Reply with exactly one of the five labels, and add nothing before or after it.",
        ),
    ],
)
def test_another_number_or_a_further_sentence_makes_a_new_prompt(prompt: str, other: str) -> None:
    history = History([tried(1, prompt, 5)])
    assert fuzz.ratio(prompt, other) >= NEAR and history.twin(other) is None
    assert history.twin(prompt.replace("Explain", "explain")) is not None
    assert history.twin(f"{prompt}!") is not None


def test_near_repeats_are_looked_for_among_the_latest_prompts_and_the_leading_ones() -> None:
    draw = random.Random(3)
    others = ["".join(draw.choices("etaoinsr xyz", k=200)) for _ in range(LATEST)]
    led, lost = BODY, BODY.replace("kitchen", "garden shed").replace("street", "office")
    history = History([NOISY, tried(1, led, 9, 9, 9, 9), tried(2, lost, 1, 2)])
    assert history.twin(f"{lost}!") == lost
    for number, other in enumerate(others, 3):
        history.add(tried(number, other, 5 + number % 3))
    assert led in {standing.prompt for standing in history.top(CONTENDERS)}
    assert history.twin(f"{led}!") == led
    assert history.twin(f"{lost}!") is None and history.twin(lost.upper()) is None
    assert history.twin(f" {lost}\n") == lost  # exact repeats among all
    assert history.twin(f"{others[0]}!") == others[0]


@pytest.mark.parametrize("size", [90, 700, 2200])
def test_the_same_sentences_in_another_order_make_a_new_prompt(size: int) -> None:
    draw = random.Random(size)
    sentences = [f"{''.join(draw.choices('etaoin srhld', k=40))}. " for _ in range(size // 42)]
    history = History([tried(1, "".join(sentences), 5)])
    assert history.twin("".join(sentences[::-1])) is None
    assert history.twin("".join(sentences).rstrip(". ") + " x.") is not None


# ---- what is reported of strategies


def test_strategies_are_counted_with_their_means() -> None:
    records = [
        tried(1, "a", 4, strategy="explore"),
        tried(2, "b", 6, strategy="explore"),
        tried(3, "c", 9, strategy="fresh"),
        Experiment(4, strategy="fresh", error="time-out"),
    ]
    history = History([NOISY, *records])
    assert history.strategies() == [("explore", 2, 5.0, 1), ("fresh", 1, 9.0, 1)]


def test_the_gain_of_seeing_the_history_rests_on_first_passes() -> None:
    records = [
        tried(1, "a", 9, strategy="carry over"),
        tried(2, "b", 6, 9, 9, 9, strategy="refine"),
        tried(3, "c", 7, strategy="combine"),
        tried(4, "d", 4, 0, strategy="fresh"),
    ]
    history = History([NOISY, *records])
    assert history.history_gain() is None
    history.add(tried(5, "e", 5, strategy="fresh"))
    assert history.history_gain() == welch([6, 7], [4, 5])


# ---- blocks of many inputs

ROWS = [f"row {n}" for n in range(40)]
EASE = {row: 1.5 * (at - 2) for at, block in enumerate(in_blocks(ROWS)) for row in block}


def met(history: History, number: int, prompt: str, worth: float, blocks: slice) -> Experiment:
    """A record of these blocks, each input as many points over the prompt's worth as it is easy."""
    texts = [text for block in history.blocks[blocks] for text in block]
    trials = tuple(Trial(text, "said", worth + EASE[text], {}, "") for text in texts)
    return Experiment(number, prompt=prompt).scored(trials)


def test_up_to_24_inputs_are_one_block_in_the_order_of_the_program() -> None:
    assert in_blocks(ROWS[:24]) == (tuple(ROWS[:24]),)
    assert in_blocks([""]) == (("",),)


@given(st.integers(25, 400))
@settings(max_examples=40)
def test_many_inputs_are_cut_into_blocks_of_about_eight(size: int) -> None:
    rows = [f"row {n}" for n in range(size)]
    blocks = in_blocks(rows)
    assert sorted(text for block in blocks for text in block) == sorted(rows)
    assert {len(block) for block in blocks[:-1]} == {8}
    assert 4 <= len(blocks[-1]) <= 12
    assert in_blocks(rows[::-1]) == blocks


def test_rows_that_come_or_go_leave_the_others_in_their_order() -> None:
    order = [text for block in in_blocks(ROWS) for text in block]
    fewer = [text for block in in_blocks(ROWS[:-3]) for text in block]
    assert [text for text in order if text in fewer] == fewer
    assert order != ROWS


def test_prompts_that_met_different_blocks_are_compared_without_the_difficulty() -> None:
    history = History(inputs=ROWS)
    worth = {f"prompt {n}": float(4 + n % 4) for n in range(30)}
    for number, (prompt, points) in enumerate(worth.items(), 1):
        history.add(met(history, number, prompt, points, slice(0, 1 + number % 5)))
    estimates = {prompt: history.standing(prompt).estimate for prompt in worth}
    for prompt, points in worth.items():
        assert estimates[prompt] == pytest.approx(points, abs=0.5)
    assert history.leader is not None and worth[history.leader.prompt] == 7
    raw = {prompt: fmean(t.score for t in history.trials(prompt)) for prompt in worth}
    assert max(abs(raw[p] - worth[p]) for p in worth) > 1


def test_the_noise_between_blocks_holds_no_difficulty() -> None:
    history = History(inputs=ROWS)
    for number in range(1, 40):
        history.add(met(history, number, f"prompt {number}", 4 + number % 4, slice(0, 5)))
    assert history.noise is not None and history.noise < 0.2


def test_a_block_more_counts_as_a_sample_more() -> None:
    history = History(inputs=ROWS)
    history.add(met(history, 1, "p", 5, slice(0, 3)))
    history.add(met(history, 2, "p", 5, slice(3, 4)))
    assert history.standing("p").samples == 4
    assert history.met("p") == Counter(history.blocks[:4])


def test_rows_added_go_on_and_trials_of_rows_removed_are_left_out() -> None:
    history = History(inputs=ROWS)
    records = [met(history, n, f"p{n}", n, slice(0, n)) for n in range(1, 6)]
    more = History(records, inputs=[*ROWS, "another row", "and another"])
    assert more.completed == 5
    assert [s.prompt for s in more.top(2)] == ["p5", "p4"]
    gone = history.blocks[0][0]
    fewer = History(records, inputs=[row for row in ROWS if row != gone])
    assert len(fewer.trials("p1")) == 7 and gone not in {t.input for t in fewer.trials("p2")}
    assert fewer.met("p5") == Counter(fewer.blocks)
    alone = History([met(history, 1, "p", 5, slice(0, 1))], inputs=list(history.blocks[1]))
    assert (alone.leader, alone.completed, alone.next_number()) == (None, 1, 2)


def test_passes_over_fewer_inputs_count_beside_those_over_all() -> None:
    few = [tried(n, f"p{n}", 5, inputs=ROWS[:3]) for n in range(1, 9)]
    all_of_them = [tried(n, f"p{n}", 5, inputs=ROWS[:4]) for n in range(9, 12)]
    history = History(
        [*few, *all_of_them, tried(12, "better", 8, 8, inputs=ROWS[:3])], inputs=ROWS[:4]
    )
    assert history.leader is not None and history.leader.prompt == "better"
    assert history.standing("p1").samples == 1


@pytest.mark.parametrize(
    "words", [("", ""), ("From the shop: " * 20, ""), ("", " Kind regards" * 20)]
)
def test_an_input_that_spoilt_two_experiments_and_never_answered_is_left_out(
    words: tuple[str, str],
) -> None:
    """And no other, though all begin or end with the same words."""
    rows = [row.join(words) for row in ROWS[:3]]
    history = History(inputs=rows)
    for number, text in enumerate((rows[1], rows[2], rows[1]), 1):
        history.add(Experiment(number, error=f'400 Bad Request (input "{named(text)}")'))
    assert history.blocks == ((rows[0], rows[2]),)
    assert history.left_out == [rows[1]]
    answered = History([tried(1, "p", 5, inputs=ROWS[:3])], inputs=ROWS[:3])
    for number in range(2, 9):
        answered.add(Experiment(number, error=f'400 Bad Request (input "{ROWS[1]}")'))
    assert answered.blocks == (tuple(ROWS[:3]),)


def test_the_input_that_all_of_the_latest_failures_name_is_told() -> None:
    history = History([NOISY])
    assert not history.spoilers
    for number, (text, told) in enumerate((("a", {"a"}), ("a", {"a"}), ("b", set()), ("b", set()))):
        history.add(Experiment(number, error=f'400 Bad Request (input "{text}")'))
        assert history.spoilers == told
    history.add(tried(5, "p", 5))
    assert not history.spoilers
    history.add(Experiment(6, error='no answer (input "long (so to speak)")'))
    assert history.spoilers == {"long (so to speak)"}
    history.add(Experiment(7, error="time-out"))
    assert not history.spoilers


def test_the_line_of_the_leaders_estimate_falls_when_later_samples_take_it_down() -> None:
    history = History([NOISY, tried(1, "lucky", 9), Experiment(2, error="time-out")])
    history.add(tried(3, "lucky", 4, 4, 4))
    ends = [ended for ended, _ in history.best_line]
    estimates = [estimate for _, estimate in history.best_line]
    assert ends == [1, 2, 4]
    assert estimates[2] < estimates[1]
    assert history.leader is not None and estimates[2] == history.leader.estimate
