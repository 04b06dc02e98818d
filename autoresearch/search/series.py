"""Which records of a file belong together, and their scores by today's criteria."""

from collections import Counter
from collections.abc import Mapping, Sequence

from autoresearch.criteria import by_rule, criteria_of, is_judge, judge_labels, weighted
from autoresearch.criteria.kind import ScoreError
from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.files.record import Experiment, Trial
from autoresearch.search.history import CONTENDERS, History, searched
from autoresearch.text import normalise, short

NEW_SERIES = (
    "the task, the inputs, the model or the judged criteria changed: a new series begins in the "
    "same file, with the best prompt of the series before as its first proposal"
)
RESCORED = (
    "the criteria or the expected answers changed: {} stored experiments were scored again at no "
    "cost; the leader now has {:.2f}: {:.120}"
)
SEEN = "{} of {} held-out inputs were searched before, so that they can confirm nothing: left out"


def open_history(
    records: Sequence[Experiment], program: Program, models: Mapping[str, str], temperature: float
) -> tuple[History, list[str]]:
    """The history of this program's series in the file, and what the person should know of it.
    Records by other criteria are scored again; a new series inherits the best prompt before it."""
    digests, criteria = program.digests(models["task"], temperature), program.criteria_digest()
    judge = models["judge"] if judge_labels(program) else None
    series = next((e.program for e in reversed(records) if e.program in digests), digests[-1])
    seen = set(searched(e for e in records if e.kind != "baseline"))  # also what is inherited
    held_out = [given.text for given in program.held_out if given.text not in seen]
    history = History(
        inputs=[given.text for given in program.inputs],
        held_out=held_out,
        deterministic=temperature == 0 and judge is None,
        series=series,
        criteria=criteria,
    )
    before, again, changed = list[Experiment](), 0, False
    for experiment in records:
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
    best, leader = History(latest_series(before)).leader, history.leader
    history.inherited = best.prompt if best else None
    lost = len(program.held_out) - len(held_out)
    notices = [SEEN.format(lost, len(program.held_out))] * bool(lost)
    if leader is None:
        notices += [NEW_SERIES] * bool(best)
    elif changed and records[-1].criteria != criteria:
        notices.append(RESCORED.format(again, leader.estimate, normalise(leader.prompt)))
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
    """The experiment by the program's present criteria, without trials of inputs that are gone;
    None where that cannot be known."""
    inputs = {i.text: i for i in (*program.inputs, *program.held_out, *program.pool)}
    kept = [trial for trial in experiment.trials if trial.input in inputs]
    if not kept or (judge_labels(program) and experiment.models.get("judge") != judge):
        return None
    try:
        return experiment.scored(_marked_again(program, inputs[t.input], t) for t in kept)
    except (ScoreError, KeyError):  # a pattern that ran out of time, a mark that no judge gave
        return None


def _marked_again(program: Program, given: Input, trial: Trial) -> Trial:
    """Rules by today's arguments, a judge by the mark that it gave before."""
    criteria = criteria_of(program)
    marks = {c.label: by_rule(c, given, trial.response) for c in criteria if not is_judge(c)}
    for c in filter(is_judge, criteria):
        mark = trial.criteria[c.label]
        marks[c.label] = mark, f"judge gave {mark * 10:.3g} of 10 on '{short(c.argument)}'"
    return Trial(trial.input, trial.response, *weighted(criteria, marks), trial.finish)
