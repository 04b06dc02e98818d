"""The kinds of criteria, a line each; what cannot be marked is a ScoreError, never a number."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import regex

from autoresearch.criteria import answers, lengths, own, phrases, structure
from autoresearch.criteria.kind import Kind, Mark, ScoreError
from autoresearch.files.inputs import PLACEHOLDER, Input, ProgramError, fill
from autoresearch.files.program import Criterion, Program
from autoresearch.files.record import Experiment
from autoresearch.text import one_line, short, unknown

KINDS: dict[str, Kind] = {
    "words": Kind(lengths.read_band, lengths.words),
    "sentences": Kind(lengths.read_band, lengths.sentences),
    "mentions": Kind(phrases.read_groups, phrases.mentions, phrases.one_phrase),
    "avoids": Kind(phrases.read_groups, phrases.avoids, phrases.one_phrase),
    "matches": Kind(structure.read_pattern, structure.matches, regex.escape),
    "equals": Kind(str.strip, answers.equals),
    "json": Kind(structure.read_keys, structure.json_keys),
    "similar": Kind(str.strip, answers.similar),
    "python": Kind(lru_cache(maxsize=64)(own.Function), own.Function.mark, whole=True),
    "judge": Kind(str.strip, None),
}
AGAINST_GOAL = Criterion("judge", "goal")


def criteria_of(program: Program) -> tuple[Criterion, ...]:
    return program.criteria or (AGAINST_GOAL,)


def is_judge(criterion: Criterion) -> bool:
    return criterion.kind in KINDS and KINDS[criterion.kind].mark is None


def judge_labels(program: Program) -> list[str]:
    return [c.label for c in criteria_of(program) if is_judge(c)]


def doubts(program: Program, baseline: Experiment) -> list[str]:
    """A line for each judge that gave the answers of the baseline 0, or four and more the same."""
    marks = [t.criteria for t in baseline.trials if baseline.kind == "baseline"]
    given = {label: {mark[label] for mark in marks} for label in judge_labels(program)}
    return [
        f"every verdict on '{short(label)}' is {10 * points.pop():.3g}: this model cannot judge "
        "(set NEBIUS_JUDGE_MODEL), or all deserve it"
        for label, points in given.items()
        if points == {0} or len(points) == 1 and len(marks) >= 4
    ]


def weighted(
    criteria: tuple[Criterion, ...], marks: Mapping[str, Mark]
) -> tuple[float, dict[str, float], str]:
    """The score 0 to 10, the mark of each label, and what was missed, one line."""
    for label, (mark, _) in marks.items():
        if not 0 <= mark <= 1:  # holds for NaN too
            raise ScoreError(f"'{label}' gave the mark {mark}, expected 0 to 1")
    given = {c.label: float(marks[c.label][0]) for c in criteria}
    total = sum(c.weight for c in criteria)
    score = 10 * sum(c.weight * given[c.label] for c in criteria) / total
    missed = [marks[label][1] for label, mark in given.items() if mark < 1 and marks[label][1]]
    return min(score, 10.0), given, one_line("; ".join(missed))  # 10.000000000000002 is 10


def by_rule(criterion: Criterion, given: Input, response: str) -> Mark:
    """The mark of a rule; whatever keeps it from giving one is a ScoreError."""
    try:
        argument, kind = read_argument(criterion, given), KINDS[criterion.kind]
        mark: Mark = kind.mark(argument, response, *[given] * kind.whole)
    except (ValueError, RecursionError) as error:
        raise ScoreError(f"'{criterion.label}': {error}") from error
    return mark


@lru_cache(maxsize=4096)
def read_argument(criterion: Criterion, given: Input) -> Any:
    """The filled argument as its kind reads it; raises ValueError."""
    if criterion.kind not in KINDS:
        raise ValueError(f"unknown criterion kind {unknown(criterion.kind, tuple(KINDS))}")
    kind = KINDS[criterion.kind]
    if kind.whole:
        return kind.parse(criterion)
    literal = Input(kind.quote(given.text), kind.quote(given.expected or ""))
    return kind.parse(fill(criterion.argument, literal))


def check_criteria(program: Program) -> None:
    """Raises ProgramError, naming the line, for a kind or an argument that cannot be used."""
    for c in program.criteria:
        filled = c.kind in KINDS and PLACEHOLDER.search(c.argument)
        for given in (*program.inputs, *program.held_out)[: None if filled else 1]:
            try:
                read_argument(c, given)
            except ValueError as error:
                source = f" (for the input '{short(given.text)}')" if filled else ""
                raise ProgramError(f"{c.where}: {c.kind}: {error}{source}") from error
