"""Which records of a file belong together, and their scores by today's criteria."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from autoresearch.criteria import (
    by_rule,
    criteria_of,
    is_judge,
    judge_labels,
    weighted,
)
from autoresearch.criteria.kind import Mark, ScoreError
from autoresearch.files.inputs import Input
from autoresearch.files.program import Criterion, Program
from autoresearch.files.record import Experiment, Trial
from autoresearch.search.history import CONTENDERS, History
from autoresearch.text import short

NEW_SERIES = (
    "the task, the inputs, the model or the judged criteria changed: a new series begins in the "
    "same file, with the best prompt of the series before as its first proposal"
)
RESCORED = (
    "the criteria or the expected answers changed: {} stored experiments were scored again at no "
    "cost; the leader now has {:.2f}: {:.120}"
)


def open_history(
    experiments: Sequence[Experiment],
    program: Program,
    models: Mapping[str, str],
    temperature: float,
) -> tuple[History, list[str]]:
    """The history of this program's series in the file, and a line for whatever the person should
    know of it.

    Records scored by other criteria are scored again where rules, or marks that a judge gave
    before, suffice. Where there are none of this series, the first proposal will test the best
    prompt of the series before it.
    """
    digests, criteria = program.digests(models["task"], temperature), program.criteria_digest()
    judge = models["judge"] if judge_labels(program) else None
    deterministic = temperature == 0 and judge is None
    known = (e.program for e in reversed(experiments) if e.program in digests)
    history = History(
        inputs=[given.text for given in program.inputs],
        held_out=[given.text for given in program.held_out],
        deterministic=deterministic,
        series=next(known, digests[-1]),
    )
    before: list[Experiment] = []
    again, changed = 0, False
    for experiment in experiments:
        asked = experiment.program in digests
        marked = experiment.criteria == criteria and judge in (None, experiment.models.get("judge"))
        if asked and (marked or experiment.score is None):
            history.add(experiment)
        elif asked and (same := rescore(program, experiment, models["judge"])):
            history.add(same)
            again += 1
            changed |= same.score != experiment.score  # not by rows that were added
        elif history.leader is None:
            before.append(experiment)
    best = History(latest_series(before)).leader
    history.inherited = best.prompt if best else None
    notices = []
    if history.inherited is not None and history.leader is None:
        notices.append(NEW_SERIES)
    if changed and history.leader and experiments[-1].criteria != criteria:  # told once
        notices.append(
            RESCORED.format(again, history.leader.estimate, " ".join(history.leader.prompt.split()))
        )
    return history, notices


def latest_series(experiments: Sequence[Experiment]) -> list[Experiment]:
    """The records of the last program that has scores, by the criteria that it had last, or, where
    hardly any were scored by those, that most had: scores by different ones cannot be compared."""
    done = [e for e in experiments if e.score is not None]
    if not done:
        return []
    program, criteria = done[-1].program, done[-1].criteria
    counts = Counter(e.criteria for e in done if e.program == program)
    if counts[criteria] < CONTENDERS:
        criteria = counts.most_common(1)[0][0]
    same = (e for e in experiments if e.program == program)
    return [e for e in same if e.score is None or e.criteria == criteria]


def rescore(program: Program, experiment: Experiment, judge: str) -> Experiment | None:
    """The experiment by the program's present criteria; None where that cannot be known.

    Trials of inputs that were removed are left out.
    """
    inputs = {i.text: i for i in (*program.inputs, *program.held_out, *program.pool)}
    labels = judge_labels(program)
    if labels and experiment.models.get("judge") != judge:
        return None
    trials = []
    for trial in experiment.trials:
        given = inputs.get(trial.input)
        if given is None:
            continue
        if not set(labels) <= set(trial.criteria):
            return None
        try:
            trials.append(_marked_again(criteria_of(program), given, trial))
        except ScoreError:  # a pattern that ran out of time
            return None
    return experiment.scored(trials) if trials else None


def _marked_again(criteria: tuple[Criterion, ...], given: Input, trial: Trial) -> Trial:
    """Rules by today's arguments, a judge by the mark that it gave before."""
    marks: dict[str, Mark] = {}
    for criterion in criteria:
        label = criterion.label
        if is_judge(criterion):
            mark = trial.criteria[label]
            said = f"judge gave {mark * 10:.3g} of 10 on '{short(criterion.argument)}'"
            marks[label] = mark, said
        else:
            marks[label] = by_rule(criterion, given, trial.response)
    return Trial(trial.input, trial.response, *weighted(criteria, marks), trial.finish)
