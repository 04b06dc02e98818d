"""Which records belong together, and re-scoring. Run: pytest tests/test_series.py"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from autoresearch.criteria import by_rule, criteria_of, is_judge, weighted
from autoresearch.files.inputs import Input
from autoresearch.files.program import Criterion, Program
from autoresearch.files.record import Experiment, Trial
from autoresearch.files.results import Results, load
from autoresearch.search.confirmation import next_steps
from autoresearch.search.race import strategy
from autoresearch.search.series import NEW_SERIES, open_history, rescore
from tests.test_experiment import JUDGE, MODELS, OTHER_RULE, RULE, program

# ---- series and re-scoring


def ran(
    asked: Program,
    number: int,
    prompt: str,
    *answers: str,
    kind: str = "proposal",
    held_out: bool = False,
    models: dict[str, str] = MODELS,
    judged: float = 0.5,
) -> Experiment:
    """The record of an experiment, one pass for each answer."""
    trials = []
    for answer in answers:
        for given in asked.held_out if held_out else asked.inputs:
            marks = {
                c.label: (judged, "judged") if is_judge(c) else by_rule(c, given, answer)
                for c in criteria_of(asked)
            }
            trials.append(Trial(given.text, answer, *weighted(criteria_of(asked), marks)))
    record = Experiment(
        number,
        kind,
        prompt=prompt,
        models=models,
        program=asked.digests(models["task"], 0.7)[-1],
        criteria=asked.criteria_digest(),
    )
    return record.scored(trials)


def failed(asked: Program, number: int) -> Experiment:
    record = ran(asked, number, "p", "x")
    return record.spoilt("400 Bad Request")


def a_night(asked: Program) -> list[Experiment]:
    return [
        ran(asked, 0, "base", "nothing", "nothing", "apple", "nothing", kind="baseline"),
        ran(asked, 1, "pears", "pear", "apple pear", "pear", "pear"),
        failed(asked, 2),
        ran(asked, 2, "fruit", "apple pear", "apple pear", "apple pear", "apple"),
        ran(asked, 3, "apples", "apple", "apple", "apple", "apple"),
    ]


def test_nothing_recorded_begins_an_empty_series_without_a_word() -> None:
    history, notices = open_history([], program(), MODELS, 0.7)
    assert (history.leader, history.inherited, notices) == (None, None, [])


def test_the_same_program_goes_on() -> None:
    records = a_night(program())
    history, notices = open_history(records, program(), MODELS, 0.7)
    assert history.experiments == records
    assert history.leader is not None and history.leader.prompt == "fruit"
    assert (history.completed, history.next_number(), notices) == (3, 4, [])


def test_a_series_of_the_version_that_counted_in_the_inputs_goes_on_under_its_name() -> None:
    before = program().digests("t", 0.7)[0]
    records = [record.with_(program=before) for record in a_night(program())]
    history, notices = open_history(records, program(), MODELS, 0.7)
    assert (history.experiments, history.series, notices) == (records, before, [])


def test_rows_that_are_added_or_removed_take_no_other_row_its_score() -> None:
    rows = Input("one", "apple"), Input("two", "pear"), Input("three", "plum")
    all_three = replace(program(Criterion("equals", "{expected}")), inputs=rows)
    two = replace(all_three, inputs=rows[:2])
    record = ran(two, 1, "fruit", "apple", "pear")
    assert rescore(all_three, record, "j") == record
    history, notices = open_history([record], all_three, MODELS, 0.7)
    assert (history.inherited, notices) == (None, [])
    fewer = rescore(two, ran(all_three, 1, "fruit", "apple"), "j")
    assert fewer is not None and [(t.input, t.score) for t in fewer.trials] == [
        ("one", 10.0),
        ("two", 0.0),
    ]


@pytest.mark.parametrize(
    "temperature, criteria, deterministic",
    [(0, RULE, True), (0.7, RULE, False), (0, JUDGE, False)],
)
def test_only_rules_at_temperature_0_are_without_noise(
    temperature: float, criteria: Criterion, deterministic: bool
) -> None:
    history, _ = open_history([], program(criteria), MODELS, temperature)
    assert history.deterministic is deterministic


def test_a_reworded_goal_keeps_the_history_where_no_judge_reads_it() -> None:
    records = a_night(program())
    history, notices = open_history(records, replace(program(), goal="New."), MODELS, 0.7)
    assert (history.experiments, notices) == (records, [])


def test_changed_rules_score_the_stored_responses_again_at_no_call(tmp_path: Path) -> None:
    with Results(tmp_path / "results.json") as results:
        for record in a_night(program()):
            results.append(record)
    before = (tmp_path / "results.json").read_bytes()
    records = load(tmp_path / "results.json")
    history, notices = open_history(records, program(OTHER_RULE), MODELS, 0.7)
    assert history.leader is not None and history.leader.prompt in ("fruit", "apples")
    assert history.standing("apples").mean == history.standing("fruit").mean == 10
    assert history.standing("pears").mean == 2.5
    assert history.completed == 3
    assert [notice.partition(":")[0] for notice in notices] == [
        "the criteria or the expected answers changed"
    ]
    assert "4 stored experiments were scored again" in notices[0]
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_file_of_old_and_new_scores_is_one_history() -> None:
    later = ran(program(OTHER_RULE), 4, "more apples", "apple")
    history, notices = open_history([*a_night(program()), later], program(OTHER_RULE), MODELS, 0.7)
    assert history.completed == 4
    assert notices == []  # it was told when the criteria were new
    assert history.next_number() == 5
    assert len(history.top(9)) == 5
    assert next_steps(history, 4)


def test_the_best_prompt_before_comes_from_the_scale_that_most_were_measured_by() -> None:
    """One record under edited criteria does not hide the night before it."""
    later = ran(program(OTHER_RULE), 4, "a poor one", "stone")
    history, _ = open_history(
        [*a_night(program()), later], replace(program(), task="Another."), MODELS, 0.7
    )
    known, _ = open_history(a_night(program()), program(), MODELS, 0.7)
    assert known.leader is not None and history.inherited == known.leader.prompt


def test_held_out_finals_are_scored_again_and_stay_out_of_the_search() -> None:
    asked = program(held_out="three")
    final = ran(asked, 3, "fruit", "pear", "pear", kind="confirmation", held_out=True)
    final = final.with_(strategy="final")
    changed = replace(asked, criteria=(OTHER_RULE,))
    history, notices = open_history([*a_night(asked), final], changed, MODELS, 0.7)
    assert [e.score for e in history.measured] == [0.0]
    assert history.standing("fruit").mean == 10
    assert "5 stored" in notices[0]


def test_an_input_that_was_searched_confirms_nothing_as_a_held_out_one() -> None:
    """As when a third is set aside of a file that an older version, or fewer rows, had searched."""
    before = program()
    texts = [given.text for given in before.inputs]
    unseen = Input("unseen", "x")
    after = replace(before, inputs=before.inputs[1:], held_out=(before.inputs[0], unseen))
    history, notices = open_history(a_night(before), after, MODELS, 0.7)
    assert (history.held_out, history.inputs) == (["unseen"], set(texts[1:]))
    assert notices[0].startswith("1 of 2 held-out inputs were searched before")
    halved = ran(after, 3, "fruit", "pear", kind="confirmation").with_(strategy="round 1")
    later = replace(after, inputs=(Input("new"),), held_out=after.inputs)
    history, _ = open_history([halved], later, MODELS, 0.7)
    assert history.held_out == []  # the winner was chosen on them
    only = replace(after, held_out=after.held_out[:1])
    history, _ = open_history(a_night(before), only, MODELS, 0.7)
    steps = next_steps(history, history.completed)
    assert steps and all(history.inputs.issuperset(step.inputs or ()) for step in steps)


def test_marks_of_the_same_judge_are_used_again() -> None:
    records = [ran(program(JUDGE), 1, "p", "apple", judged=0.8)]
    history, notices = open_history(records, program(JUDGE, OTHER_RULE), MODELS, 0.7)
    assert history.standing("p").mean == pytest.approx(9.0)
    assert "1 stored" in notices[0]


@pytest.mark.parametrize(
    "criterion, judge", [(Criterion("judge", "is it short?"), "j"), (JUDGE, "new")]
)
def test_another_judge_or_question_to_it_begins_a_new_series(
    criterion: Criterion, judge: str
) -> None:
    records = [ran(program(JUDGE), 0, "p", "apple", kind="baseline")]
    models = {**MODELS, "judge": judge}
    history, notices = open_history(records, program(criterion), models, 0.7)
    assert (history.leader, history.inherited, notices) == (None, "p", [NEW_SERIES])


def test_without_a_judge_in_use_its_model_is_of_no_account() -> None:
    records = a_night(program())
    history, notices = open_history(records, program(), {**MODELS, "judge": "new"}, 0.7)
    assert (history.experiments, notices) == (records, [])


CHANGES = [
    (replace(program(), task="Say {input}."), MODELS, 0.7),
    (program(), {**MODELS, "task": "new"}, 0.7),
    (program(), MODELS, 1.0),
]


@pytest.mark.parametrize("asked, models, temperature", CHANGES)
def test_another_task_begins_a_series_that_inherits_the_best_prompt(
    asked: Program, models: dict[str, str], temperature: float
) -> None:
    history, notices = open_history(a_night(program()), asked, models, temperature)
    assert (history.experiments, history.leader, history.completed) == ([], None, 0)
    assert history.inherited == "fruit"
    assert (strategy(history, program(), 1), notices) == ("carry over", [NEW_SERIES])


def test_a_new_series_goes_on_with_what_it_inherited() -> None:
    asked = replace(program(), task="Three.")
    records = [*a_night(program()), ran(asked, 0, "base", "apple", kind="baseline")]
    for _ in range(2):
        history, notices = open_history(records, asked, MODELS, 0.7)
        assert (history.inherited, strategy(history, program(), 1), notices) == (
            "fruit",
            "carry over",
            [],
        )
        records.append(failed(asked, 1))
    records.append(ran(asked, 1, "fruit", "apple"))
    history, _ = open_history(records, asked, MODELS, 0.7)
    assert (history.next_number(), history.completed) == (2, 1)
    assert strategy(history, program(), 2) != "carry over"


def test_failures_of_the_series_before_do_not_hide_its_best_prompt() -> None:
    """A failed record belongs to any criteria: it must not end the series before it too early."""
    records = a_night(program(JUDGE))
    better = ran(program(JUDGE), 4, "the best", "apple", judged=1.0)
    changed = program(Criterion("judge", "is it short?"))
    history, _ = open_history([*records, better], changed, MODELS, 0.7)
    assert history.inherited == "the best"


def test_going_back_to_an_earlier_program_continues_its_series() -> None:
    first, second = program(), replace(program(), task="Three.")
    records = [*a_night(first), ran(second, 0, "base", "apple", kind="baseline")]
    records += [ran(second, 1, "fruit", "apple"), ran(first, 4, "more fruit", "apple pear")]
    history, notices = open_history(records, first, MODELS, 0.7)
    assert [e.iteration for e in history.proposals[-9:]] == [1, 2, 3, 4]
    assert (history.inherited, notices) == (None, [])
    history, _ = open_history(records, second, MODELS, 0.7)
    assert ([e.prompt for e in history.proposals[-9:]], history.inherited) == (["fruit"], "fruit")


def test_the_best_of_the_latest_of_several_series_is_inherited() -> None:
    records = a_night(program())
    records += [ran(replace(program(), task="Three."), 0, "latest", "nothing", kind="baseline")]
    history, _ = open_history(records, replace(program(), task="Four."), MODELS, 0.7)
    assert history.inherited == "latest"


def test_a_file_of_four_fields_from_elsewhere_lends_its_best_prompt(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    fields = {"response": "r", "timestamp": "2025-01-01T00:00:00"}
    records = [{"prompt": "good", "score": 7.5, **fields}, {"prompt": "bad", "score": 2, **fields}]
    path.write_text(json.dumps(records), encoding="utf-8")
    history, notices = open_history(load(path), program(), MODELS, 0.7)
    assert (history.experiments, history.inherited) == ([], "good")
    assert (strategy(history, program(), 1), notices) == ("carry over", [NEW_SERIES])


def test_what_only_failed_is_not_inherited() -> None:
    history, notices = open_history([failed(program(), 1)], program(inputs="x"), MODELS, 0.7)
    assert (history.inherited, notices) == (None, [])


def test_records_that_cannot_be_scored_again_are_left_out() -> None:
    record = ran(program(), 1, "p", "apple")
    assert rescore(program(inputs="three"), record, "j") is None  # an input that is gone
    assert rescore(program(JUDGE), record, "j") is None  # no mark of a judge
    assert rescore(program(), record.with_(trials=()), "j") is None
    assert rescore(program(), failed(program(), 1), "j") is None


def test_a_pattern_that_runs_out_of_time_on_a_stored_response_does_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("autoresearch.criteria.structure.MATCH_SECONDS", 0.01)
    records = [ran(program(), 1, "p", "a" * 40 + "!"), ran(program(), 2, "q", "apple")]
    hostile = program(Criterion("matches", r"/^(a|a|aa)+\d$/"))
    history, _ = open_history(records, hostile, MODELS, 0.7)
    assert [e.prompt for e in history.proposals[-9:]] == ["q"]


def test_rows_that_come_or_go_keep_the_series_and_cost_their_own_trials_alone() -> None:
    def with_rows(**rows: str) -> Program:
        inputs = tuple(Input(text, expected) for text, expected in rows.items())
        return replace(program(Criterion("equals", "{expected}")), inputs=inputs, rows=inputs)

    before = with_rows(one="apple", two="pear")
    records = [ran(before, 0, "base", "pear", kind="baseline"), ran(before, 1, "p", "apple")]
    more, _ = open_history(records, with_rows(one="apple", two="pear", three="fig"), MODELS, 0.7)
    assert (more.completed, more.inherited, more.next_number()) == (1, None, 2)
    assert more.standing("p").samples == 1
    fewer, _ = open_history(records, with_rows(two="pear"), MODELS, 0.7)
    assert (fewer.completed, fewer.inherited) == (1, None)
    assert [trial.input for trial in fewer.trials("p")] == ["two"]
    assert (fewer.standing("base").mean, fewer.standing("p").mean) == (10, 0)
    changed, _ = open_history(records, with_rows(one="apple", two="fig"), MODELS, 0.7)
    assert changed.standing("base").mean == 0 and len(changed.trials("p")) == 2
