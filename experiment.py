"""One experiment: a prompt over the inputs, its responses scored, and the record of it.

The prompt goes out as the system message and the task as the user message: that is how people will
use the winner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TypeVar

from autoresearch.files.program import Input, Program
from autoresearch.files.results import Experiment, Trial
from autoresearch.search.history import CONTENDERS, History
from client import Client, Usage
from scorer import Score, ScoreError, judge_labels, needs_judge, score

AT_ONCE = 8  # calls side by side within one experiment

NEW_SERIES = (
    "the task, the inputs, the model or the judged criteria changed: a new series begins in the "
    "same file, with the best prompt of the series before as its first proposal"
)
RESCORED = (
    "the criteria changed: {} stored experiments were scored again at no cost; "
    "the leader now has {:.2f}: {:.120}"
)

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Response:
    given: Input
    text: str
    finish: str


def run_experiment(
    client: Client,
    program: Program,
    prompt: str,
    passes: int = 1,
    spent: Usage | None = None,
    *,
    inputs: Sequence[Input] | None = None,
    at_once: int = AT_ONCE,
) -> list[Response]:
    """`passes` responses to each input, pass after pass in the inputs' order; all, or an error."""

    def respond(given: Input) -> Response:
        reply = client.generate_response(prompt, program.question(given), role="task", spent=spent)
        return Response(given, reply.text, reply.finish_reason)

    return _side_by_side(respond, list(inputs or program.inputs) * passes, at_once)


def score_responses(
    client: Client,
    program: Program,
    responses: Sequence[Response],
    spent: Usage | None = None,
    *,
    at_once: int = AT_ONCE,
) -> list[Trial]:
    """Each response as a scored trial, in order; raises ScoreError, and what the client raises."""

    def trial(response: Response) -> Trial:
        return _trial(response, score(client, program, response.given, response.text, spent))

    return _side_by_side(trial, responses, at_once if needs_judge(program) else 1)


def _trial(response: Response, mark: Score) -> Trial:
    return Trial(
        response.given.text, response.text, mark.value, mark.criteria, mark.reason, response.finish
    )


def _side_by_side(
    function: Callable[[Item], Result], items: Sequence[Item], at_once: int
) -> list[Result]:
    if min(at_once, len(items)) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(at_once, len(items))) as pool:
        futures = [pool.submit(function, item) for item in items]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:  # after an error the rest of the panel is of no use
            future.cancel()
    return [future.result() for future in futures]


def scored(experiment: Experiment, trials: Iterable[Trial]) -> Experiment:
    """The record with these trials: their mean as its score, the response nearest to it on top."""
    trials = tuple(trials)
    mean = fmean(trial.score for trial in trials)
    typical = min(trials, key=lambda trial: abs(trial.score - mean))
    return replace(experiment, trials=trials, score=mean, response=typical.response)


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
    digest, criteria = program.digest(models["task"], temperature), program.criteria_digest()
    judge = models["judge"] if needs_judge(program) else None
    deterministic = temperature == 0 and judge is None
    history = History(deterministic=deterministic)
    before: list[Experiment] = []
    again = 0
    for experiment in experiments:
        asked = experiment.program == digest
        marked = experiment.criteria == criteria and judge in (None, experiment.models.get("judge"))
        if asked and (marked or experiment.score is None):
            history.add(experiment)
        elif asked and (same := rescore(program, experiment, models["judge"])):
            history.add(same)
            again += 1
        elif history.leader is None:
            before.append(experiment)
    history.inherited = _best_prompt(before)
    notices = []
    if history.inherited is not None and history.leader is None:
        notices.append(NEW_SERIES)
    if again and history.leader and experiments[-1].criteria != criteria:  # told once
        notices.append(
            RESCORED.format(again, history.leader.estimate, " ".join(history.leader.prompt.split()))
        )
    return history, notices


def _best_prompt(experiments: Sequence[Experiment]) -> str | None:
    """The leader of the latest series among these records; None when nothing in them is scored."""
    leader = History(latest_series(experiments)).leader
    return leader.prompt if leader else None


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
    """The experiment by the program's present criteria; None where that cannot be known."""
    inputs = {given.text: given for given in (*program.inputs, *program.held_out)}
    labels = judge_labels(program)
    if labels and experiment.models.get("judge") != judge:
        return None
    trials = []
    for trial in experiment.trials:
        given = inputs.get(trial.input)
        if given is None or not set(labels) <= set(trial.criteria):
            return None
        try:
            mark = score(None, program, given, trial.response, judged=trial.criteria)
        except ScoreError:  # a pattern that ran out of time
            return None
        trials.append(_trial(Response(given, trial.response, trial.finish), mark))
    return scored(experiment, trials) if trials else None
