"""What is said of a night, from its records: `pytest tests/test_findings.py`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.files.record import Experiment, Trial
from autoresearch.report import findings
from autoresearch.search.confirmation import Confirmation, next_steps
from autoresearch.search.history import History
from autoresearch.search.intervals import Interval
from autoresearch.text import HIDDEN


def experiment(number: int, scores: list[float], **changes: object) -> Experiment:
    trials = tuple(Trial("", f"reply to {number}", s, {"words: 1-9": s / 10}, "") for s in scores)
    made = Experiment(
        number,
        kind="proposal" if number else "baseline",
        strategy="refine" if number else "",
        prompt=f"prompt {number}",
        response=trials[0].response if trials else "",
        score=sum(scores) / len(scores) if scores else None,
        trials=trials,
        tokens=1200,
        cost=0.0005,
        seconds=2.0,
    )
    return replace(made, **changes)


def evening() -> History:
    """A baseline, two proposals and a failure."""
    history = History([experiment(0, [4.0, 5.0, 4.5, 4.5]), experiment(1, [5.0])])
    history.add(experiment(2, [8.0, 7.5, 8.5, 8.0]))
    history.add(experiment(3, [], error="no prompt in the reply: asked 3 times", tokens=None))
    return history


def confirm(history: History, level: dict[str, float]) -> History:
    at = history.completed
    while steps := next_steps(history, at):
        for step in steps:
            scores = [level[step.prompt] + (0.5 if i % 2 else -0.5) for i in range(step.passes)]
            history.add(
                experiment(at, scores, kind="confirmation", strategy=step.stage, prompt=step.prompt)
            )
    return history


def morning() -> History:
    """The evening, confirmed."""
    return confirm(evening(), {"prompt 0": 4.5, "prompt 1": 5.0, "prompt 2": 8.0})


def found(difference: Interval, **changes: Any) -> Confirmation:
    facts: dict[str, Any] = {
        "target": 250,
        "winner": "new",
        "baseline": "old",
        "best": "new",
        "winner_score": Interval(7.1, 6.8, 7.4),
        "baseline_score": Interval(7.0, 6.7, 7.3),
        "difference": difference,
        "chance": 0.71,
        "believed": 7.5,
        "inputs": 8,
        "passes": 2,
        "held_out": True,
        "generalises": True,
        "skipped": (),
        "shortest": None,
    }
    return Confirmation(**(facts | changes))


# --- the verdict ---

BETTER, WORSE = Interval(0.5, 0.2, 0.8), Interval(-0.5, -0.8, -0.2)
NEITHER = Interval(0.1, -0.3, 0.5)


@pytest.mark.parametrize(
    ("confirmed", "said"),
    [
        (
            found(BETTER),
            "The best prompt scores 7.10, the baseline 7.00: "
            "0.50 better (95 % interval 0.20 to 0.80).",
        ),
        (found(BETTER, held_out=False), "0.80), on the inputs that the search saw."),
        (found(BETTER, inputs=4, generalises=False), "0.80), on just 4 held-out inputs."),
        (
            found(WORSE, best="old"),
            "The baseline is the best prompt with 7.00: what the search found scores 7.10, "
            "0.50 less (95 % interval -0.80 to -0.20).",
        ),
        (
            found(NEITHER),
            "The new prompt (7.10) and the baseline (7.00) cannot be told apart (difference +0.10, "
            "95 % interval -0.30 to 0.50); the new one is truly the better with a chance of 71 %.",
        ),
        (found(NEITHER, best="old"), "; the baseline is truly the better with a chance of 71 %."),
        (
            found(NEITHER, winner="old", best="old"),
            "Nothing that was tried beats the baseline, which scores 7.00.",
        ),
    ],
)
def test_the_headline_claims_what_was_shown(confirmed: Confirmation, said: str) -> None:
    history = History([experiment(0, [5.0])])
    history.inputs = {"one", "two"}
    assert findings.headline(history, confirmed).endswith(said)


def test_without_inputs_the_headline_needs_no_word_on_them() -> None:
    said = findings.headline(evening(), found(BETTER, inputs=1, held_out=False))
    assert said.endswith("(95 % interval 0.20 to 0.80).")


def test_a_best_that_is_not_confirmed_is_shown_without_an_interval() -> None:
    history = evening()
    assert findings.headline(history, None).startswith("Best so far 7.98, +3.")
    assert "not confirmed: a best found by search" in findings.grounds(history, None, None)
    assert "±" not in findings.headline(history, None)


def test_the_grounds_say_what_the_intervals_hold_for() -> None:
    assert findings.grounds(evening(), found(BETTER, skipped=("x",)), None) == (
        "2 fresh answers of each prompt to each of 8 held-out inputs; "
        "could not be asked: “x”; the intervals hold for others of their kind; "
        "the search had believed 7.50"
    )
    alone = found(BETTER, inputs=1, held_out=False, generalises=False, passes=15)
    assert findings.grounds(evening(), alone, None) == (
        "15 fresh answers of each prompt; the search had believed 7.50"
    )


def test_a_confirmation_that_has_begun_is_shown_as_under_way() -> None:
    history = evening()
    step = next_steps(history, history.completed)[0]
    made = {"kind": "confirmation", "strategy": step.stage, "prompt": step.prompt}
    history.add(experiment(history.completed, [8.0] * step.passes, **made))
    said = findings.grounds(history, None, None)
    assert said.startswith(f"confirmation under way: {step.passes} of ")
    assert findings.headline(history, None).endswith("not confirmed yet.")


def test_the_task_is_named_by_the_first_sentence_of_its_goal() -> None:
    goal = "# Title\n\nFind what sorts our\ntickets best. The answer is a label."
    program = Program(goal, "task", (Input(""),), (), (), "", "", "tickets.md")
    said = findings.goal_line(program, evening())
    assert said == "tickets.md: Find what sorts our tickets best."
    assert "no longer asks" in findings.goal_line(None, evening())


# --- what fails ---


def reply(text: str, right: bool, **more: Any) -> Trial:
    score = 10.0 if right else 2.0  # the length is right anyway
    marks = {"equals: {expected}": float(right), "words: 1": 1.0}
    return replace(Trial(text, "bug" if right else "billing", score, marks, ""), **more)


def test_answers_stand_worst_first_with_the_baseline_beside_them() -> None:
    mine = [reply("fee", True), reply("crash", False), reply("fee", True), reply("crash", False)]
    theirs = [reply("fee", True), reply("crash", True), reply("fee", False), reply("crash", False)]
    inputs = (Input("fee", "bug"), Input("crash", "bug"))
    program = Program("g", "t", inputs, (), (), "", "", "program.md")
    rows = sorted(findings.by_input(mine, theirs, program), key=lambda row: row.mean)
    assert [(r.name, r.expected, r.answer, r.right, r.baseline) for r in rows] == [
        ("crash", "bug", "billing", "0 of 2", "1 of 2"),
        ("fee", "bug", "bug", "2 of 2", "1 of 2"),
    ]
    assert findings.fails_line(rows, []) == "1 of 2 inputs fail: “crash”"
    assert findings.fails_line(rows[1:] * 2, []) == "all 2 inputs get full marks"
    mixed = [*mine, reply("fee", False, response="sport", score=0.0)]
    (told, *_) = findings.worst_rows([*findings.by_input(mixed, theirs, program)], [])
    assert told == ("2 of 3", "fee: answered “sport”, wanted “bug”; baseline 1 of 2")


def test_inputs_that_begin_alike_are_told_apart() -> None:
    texts = [f"{'Please sort this mail into its folder: ' * 2}{word}" for word in ("fee", "crash")]
    rows = [*findings.by_input([reply(text, False) for text in texts], [], None)]
    told = [text.split(": answered")[0] for _, text in findings.worst_rows(rows, [])]
    assert all(map(str.endswith, told, ("folder: fee", "folder: crash"))), told
    assert max(map(len, told)) == 60
    assert "fee”" in (line := findings.fails_line(rows, [])) and "crash”" in line


def test_graded_answers_carry_their_mean() -> None:
    mine = [Trial("sky", "a", 6.0, {}, ""), Trial("sky", "b", 7.0, {}, ""), reply("sea", True)]
    rows = [*findings.by_input(mine, [], None)]
    assert [(r.name, r.right, r.baseline) for r in rows] == [
        ("sky", "6.50", "–"),
        ("sea", "10.00", "–"),
    ]
    assert findings.fails_line(rows, []) == "none of 2 inputs fails; the weakest: “sky”, 6.50"


def test_a_task_alone_shows_what_its_criteria_miss_by_a_sentence_of_an_answer() -> None:
    marks = {"avoids: robust, crucial": 0.5, "words: 1-9": 1.0}
    answer = "It stores vectors. That is a Robust idea! It ends."
    trial = Trial("", answer, 7.0, marks, "to avoid: robust")
    lost = [*findings.by_criterion([trial], [])]
    assert [(c.name, c.right) for c in lost] == [
        ("avoids: robust, crucial", "50 %"),
        ("words: 1-9", "100 %"),
    ]
    assert lost[0].missed == "to avoid: robust, as in “That is a Robust idea!”"
    assert findings.fails_line([], lost) == "reaches 50 % of avoids: robust, crucial"


# --- what next ---


def nights(count: int, score: float = 5.0, label: str = "words: 1-9", mark: float = 0.5) -> History:
    trial = Trial("", "r", score, {label: mark}, "")
    history = History([experiment(0, [4.0, 4.5])])
    for number in range(1, count + 1):
        history.add(experiment(number, [], score=score - 0.01 * number, trials=(trial,)))
    return history


@pytest.mark.parametrize(
    ("history", "confirmed", "said"),
    [
        (History(), None, "--check tells whether"),
        (nights(12, label="equals: {expected}", mark=0.0), None, "no answer ever met “equals"),
        (nights(12, label="judge: goal", mark=0.0), None, "no answer ever met “judge: goal”"),
        (nights(12), None, "goes on and confirms"),
        (nights(12), found(NEITHER), "8 inputs are too few to tell"),
        (nights(120), found(BETTER), "no gain in the last"),
        (nights(60), found(WORSE, best="old"), "nothing beat the baseline"),
        (nights(60), found(BETTER), "--ablate tells which sentences"),
    ],
)
def test_one_next_step_follows_from_the_facts(
    history: History, confirmed: Confirmation | None, said: str
) -> None:
    assert said in findings.next_step(history, confirmed)


def test_a_gain_that_still_grows_asks_for_more_iterations() -> None:
    history = nights(19)
    history.add(experiment(20, [9.0] * 4))
    assert "--iterations 40 goes on" in findings.next_step(history, found(BETTER))


def test_a_full_score_asks_for_harder_criteria() -> None:
    history = nights(12)
    for number in range(13, 40):
        history.add(experiment(number, [10.0] * 4))
    said = findings.next_step(history, found(BETTER, winner_score=Interval(10, 9.1, 10)))
    assert "cannot be told from 10 (everything passes words: 1-9)" in said
    said = findings.next_step(history, found(BETTER))  # the held-out inputs say otherwise
    assert "cannot be told from 10" not in said


# --- the figures for grep ---


def test_the_summary_has_the_figures_that_scripts_need() -> None:
    values = dict(findings.summary(morning(), simulated=True))
    assert list(values) == [
        *("simulated", "completed", "tokens", "cost_usd", "best_score"),
        *("confirmed", "confirmed_low", "confirmed_high"),
        *("difference", "difference_low", "difference_high", "best_prompt"),
    ]
    assert values["confirmed"] == values["best_score"] and values["simulated"] == "yes"


def test_every_summary_value_is_one_line_and_prompts_are_json() -> None:
    nasty = experiment(2, [8.0], prompt='two\nlines "quoted" \x1b[2J \x9b \u202e')
    values = dict(findings.summary(History([nasty]), simulated=False))
    assert json.loads(values["best_prompt"]) == nasty.prompt
    assert not HIDDEN.search("".join(values.values()))
    assert all("\n" not in value for value in values.values())


def test_an_unknown_price_is_not_zero() -> None:
    history = evening()
    history.add(experiment(4, [5.0], cost=None))
    values = dict(findings.summary(history, simulated=False))
    assert values["tokens"] == "4800" and "cost_usd" not in values
