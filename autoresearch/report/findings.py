"""What was found, in words, for terminal and page: verdict, what fails, what next, the search.

All of it follows from the records; which prompt is best, and how sure that is, the search decides.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from autoresearch.files.program import Program
from autoresearch.files.record import Trial
from autoresearch.search.confirmation import Confirmation, fresh_trials, outcome, underway
from autoresearch.search.history import History
from autoresearch.search.intervals import Interval
from autoresearch.search.race import saturated
from autoresearch.text import count, money, named, short, visible

Row = tuple[str, str]  # label, text

STALE = 100  # proposals without a gain after which more of the same promise nothing
EARLY = 10  # proposals before which nothing is concluded from them
WORST = 5  # inputs or criteria that the terminal shows of those that fail; the page has all
FULL = 9.95  # of 10: full marks


def series_name(digest: str) -> str:
    return re.sub(r"\W", "_", digest[:6], flags=re.ASCII) or "unnamed"  # a part of file names


def interval(of: Interval) -> str:
    return f"95 % interval {of.low:.2f} to {of.high:.2f}"


def headline(history: History, found: Confirmation | None) -> str:
    """One sentence with its figures; of a search alone it claims no more than that one knows."""
    leader, baseline = history.leader, history.baseline
    if leader is None:
        return "No experiment has a score yet."
    if found is None:
        gain = f", {leader.estimate - baseline.estimate:+.2f} over the baseline" if baseline else ""
        return f"Best so far {leader.estimate:.2f}{gain}: not confirmed yet."
    winner, plain = found.winner_score.mean, found.baseline_score.mean
    few = f"just {count(found.inputs, 'held-out input')}" * (not found.generalises)
    on = few if found.held_out else "the inputs that the search saw"
    where = f", on {on}" * bool(on and history.inputs != {""})
    if found.winner == found.baseline:
        return f"Nothing that was tried beats the baseline, which scores {plain:.2f}{where}."
    by, known = found.difference.mean, interval(found.difference)
    if found.improved:
        better = f"{by:.2f} better ({known})"
        return f"The best prompt scores {winner:.2f}, the baseline {plain:.2f}: {better}{where}."
    if found.worse:
        worse = f"what the search found scores {winner:.2f}, {-by:.2f} less ({known})"
        return f"The baseline is the best prompt with {plain:.2f}{where}: {worse}."
    both = f"The new prompt ({winner:.2f}) and the baseline ({plain:.2f}) cannot be told apart"
    chosen = "the new one" if found.best == found.winner else "the baseline"
    chance = f"{chosen} is truly the better with a chance of {min(99, 100 * found.chance):.0f} %"
    return f"{both}{where} (difference {by:+.2f}, {known}); {chance}."


def grounds(history: History, found: Confirmation | None, program: Program | None) -> str:
    """What the scores rest on and, where they are confirmed, what their intervals hold for."""
    if history.leader is None:
        return ""
    if found is None:
        samples = count(history.leader.samples, *history.unit)
        doubt = f"{samples}, not confirmed: a best found by search flatters itself"
        return underway(history, history.completed) or doubt
    kind = "set-aside" if program and program.set_aside else "held-out"
    inputs = count(found.inputs, f"{kind} input" if found.held_out else "input")
    whom = "others of their kind" if found.generalises else "just these inputs"
    several = found.inputs > 1 or found.held_out
    skipped = ", ".join(f"“{named(text, 40)}”" for text in found.skipped)
    there = len(history.held_out or ())
    sampled = found.held_out and there > found.inputs + len(found.skipped)
    told = [
        f"{count(found.passes, 'fresh answer')} of each prompt" + f" to each of {inputs}" * several,
        f"a fixed sample of the {there:,} there are" * sampled,
        f"could not be asked: {skipped}" * bool(skipped),
        f"the intervals hold for {whom}" * several,
        f"the search had believed {found.believed:.2f}",
    ]
    return "; ".join(filter(None, told))


def shorter(found: Confirmation | None) -> str:
    """What the shorter prompt costs; "" where none is offered."""
    if found is None or found.shortest is None:
        return ""
    saved = f"{len(found.shortest.prompt):,} characters instead of {len(found.best):,}"
    loss = found.shortest.loss
    return f"{saved}, scores {found.shortest.score.mean:.2f} ({loss.mean:+.2f}, {interval(loss)})"


def goal_line(program: Program | None, history: History) -> str:
    """Which task this is about: the program's file and the first sentence of its goal."""
    if program is None:
        return f"series {series_name(history.series)}, which program.md no longer asks"
    text = re.sub(r"^#+ .*\n", "", program.goal.strip())
    sentence = re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]
    return f"{program.name}: {short(sentence, 200)}"


@dataclass(frozen=True)
class Weakness:
    """How the best prompt's answers to one input went, or how they met one criterion."""

    name: str
    expected: str | None
    answer: str  # a typical one of those that lose points; "" for a criterion
    missed: str
    mean: float  # 0 to 10
    right: str  # as it is shown
    baseline: str  # the same of the baseline


def what_fails(
    history: History, found: Confirmation | None, program: Program | None
) -> tuple[list[Weakness], list[Weakness]]:
    """By input where there are several, and by criterion, of fresh samples; each worst first."""
    if found is not None:
        mine, theirs = (fresh_trials(history, found, p) for p in (found.best, found.baseline))
    else:
        both = history.leader, history.baseline
        mine, theirs = (history.trials(each.prompt) if each else [] for each in both)
    rows = [*by_input(mine, theirs, program)], [*by_criterion(mine, theirs)]
    inputs, criteria = (sorted(each, key=lambda row: row.mean) for each in rows)
    return inputs if len(inputs) > 1 else [], criteria


def by_input(mine: list[Trial], theirs: list[Trial], program: Program | None) -> Iterator[Weakness]:
    given = (*program.inputs, *program.held_out) if program else ()
    expected = {i.text: i.expected for i in given}
    labelled = all(right(trial) in (0, 10) for trial in mine + theirs)
    grade = right if labelled else lambda trial: trial.score

    def tally(trials: list[Trial]) -> str:
        if labelled:
            return f"{sum(right(t) == 10 for t in trials)} of {len(trials)}"
        return f"{fmean(t.score for t in trials):.2f}" if trials else "–"

    for text in dict.fromkeys(trial.input for trial in mine):
        own = [t for t in mine if t.input == text]
        mean = fmean(map(grade, own))
        typical = min([t for t in own if grade(t) < 10] or own, key=lambda t: abs(grade(t) - mean))
        told = text, expected.get(text), typical.response, typical.reason
        yield Weakness(*told, mean, tally(own), tally([t for t in theirs if t.input == text]))


def right(trial: Trial) -> float:
    """0 to 10: by `equals` where that is a criterion, else the score."""
    marks = [mark for label, mark in trial.criteria.items() if label.startswith("equals")]
    return 10 * min(marks) if marks else trial.score


def by_criterion(mine: list[Trial], theirs: list[Trial]) -> Iterator[Weakness]:
    for label in dict.fromkeys(label for trial in mine for label in trial.criteria):
        marked = [t for t in mine if label in t.criteria]
        plain = [t.criteria[label] for t in theirs if label in t.criteria]
        met = fmean(t.criteria[label] for t in marked)
        missed = evidence(min(marked, key=lambda t: t.criteria[label]), label)
        baseline = f"{100 * fmean(plain):.0f} %" if plain else "–"
        yield Weakness(label, None, "", missed, 10 * met, f"{100 * met:.0f} %", baseline)


def evidence(trial: Trial, label: str) -> str:
    """What a response missed of a criterion, with the sentence that shows it where one does."""
    missed = [name for name, mark in trial.criteria.items() if mark < 1]
    parts = trial.reason.split("; ")
    parts = parts if len(parts) == len(missed) else [trial.reason] * len(missed)
    reason = dict(zip(missed, parts, strict=True)).get(label, "")
    words = reason.partition("to avoid: ")[2].casefold().split(", ")
    for sentence in re.split(r"(?<=[.!?])\s+", trial.response):
        if any(word and word in sentence.casefold() for word in words):
            return f"{reason}, as in “{short(sentence, 160)}”"
    return reason


def worst_rows(inputs: list[Weakness], criteria: list[Weakness]) -> Iterator[Row]:
    """The worst inputs or, for a task alone, the criteria that lose points."""
    shown = named if inputs else short  # criteria differ where they begin
    for row in (inputs or criteria)[:WORST]:
        answered = f"answered “{short(row.answer, 60)}”, " if row.answer else ""
        wanted = f"wanted “{short(row.expected, 40)}”" if row.expected else short(row.missed, 120)
        if row.mean < FULL:
            yield row.right, f"{shown(row.name, 60)}: {answered}{wanted}; baseline {row.baseline}"


def fails_line(inputs: list[Weakness], criteria: list[Weakness]) -> str:
    """One line: which inputs fail or, for a task alone, which criteria lose points."""
    weak = [f"{row.right} of {short(row.name, 40)}" for row in criteria if row.mean < FULL]
    if not inputs:
        met = "every criterion is met" * bool(criteria)
        return f"reaches {', '.join(weak[:3])}" if weak else met
    if failing := [f"“{named(row.name, 40)}”" for row in inputs if row.mean < 5]:
        return f"{len(failing)} of {len(inputs)} inputs fail: {', '.join(failing[:3])}"
    if inputs[0].mean >= FULL:
        return f"all {len(inputs)} inputs get full marks"
    weakest = f"“{named(inputs[0].name, 40)}”, {inputs[0].right}"
    return f"none of {len(inputs)} inputs fails; the weakest: {weakest}"


def next_step(history: History, found: Confirmation | None, command: str = "python main.py") -> str:
    """One suggestion, from the facts; `command` is that of this start, "" for a demo."""
    if not command:
        return "your own task: write program.md, put a key into .env, then python main.py --check"
    if history.leader is None:
        return f"{command} --check tells whether key, model and program work"
    marks = [pair for e in history.experiments for t in e.trials for pair in t.criteria.items()]
    met = {label for label, mark in marks if mark}
    never = [label for label, _ in marks if label not in met]
    if history.completed >= EARLY and never:
        cause = "compare the answers with what it expects, then mend it or the task"
        return f"no answer ever met “{short(never[0])}”: {cause}"
    if found is None:
        return f"{command} goes on and confirms the best on fresh samples"
    if saturated(history) and max(found.winner_score.high, found.baseline_score.high) >= FULL:
        passed = short(", ".join(history.passed_by_all()))
        easy = f" (everything passes {passed})" * bool(passed)
        return f"the best cannot be told from 10{easy}: harder criteria would find more"
    if not found.improved and not found.worse and found.inputs > 1:
        more = "held-out inputs" if found.held_out else "inputs, some of them held out"
        return f"{found.inputs} inputs are too few to tell such a difference: add more {more}"
    if not found.improved:
        return "nothing beat the baseline: say more in the goal, or try another NEBIUS_AGENT_MODEL"
    if history.completed >= EARLY and history.since_lead < history.completed / 10:
        goes_on = f"{command} --iterations {2 * history.completed}"
        return f"the gain was still growing at the end: {goes_on} goes on"
    if history.since_lead >= STALE:
        stale = f"no gain in the last {history.since_lead} experiments"
        return f"{stale}: stop here, or try another NEBIUS_AGENT_MODEL"
    return f"{command} --ablate tells which sentences of it matter"


def search_rows(history: History) -> Iterator[Row]:
    if history.noise is not None:
        tie, unit = f"differences below {history.tie:.2f} are ties", history.unit[0]
        yield "noise", f"{history.noise:.2f} points from {unit} to {unit}; {tie}"
    if history.failures:
        failed = [f"{cause} ({n})" for cause, n in history.failures.most_common()]
        yield "failed", f"{sum(history.failures.values())}: {'; '.join(failed)}"
    if history.left_out:
        yield "left out", f"{'; '.join(named(t, 60) for t in history.left_out)}: never answered"
    if history.tokens:
        cost = "" if history.cost is None else f", {money(history.cost)}"
        yield "spent", count(history.tokens, "token") + cost
    for at, (name, tried, mean, leads) in enumerate(history.strategies()):
        told = f"{name:<10} {count(tried, 'experiment'):>17}   mean {mean:5.2f}"
        yield "" if at else "strategies", f"{told}   led {count(leads, 'time')}"
    if gain := history.history_gain():
        yield "history", f"{gain.mean:+.2f} ({interval(gain)}) for proposals that saw it"


def summary(history: History, simulated: bool) -> list[Row]:
    """The run as `key: value`, for grep: unknown values have no line, the prompt is JSON."""
    values: dict[str, Any] = {
        "simulated": "yes" if simulated else "no",
        "completed": history.completed,
        "tokens": history.tokens or None,
        "cost_usd": f"{history.cost:.6f}" if history.tokens and history.cost is not None else None,
    }
    prompt = history.leader and history.leader.prompt
    values["best_score"] = history.leader and history.leader.estimate
    if found := outcome(history, history.completed):
        best = found.winner_score if found.best == found.winner else found.baseline_score
        prompt, values["best_score"] = found.best, best.mean
        for name, of in ("confirmed", best), ("difference", found.difference):
            values |= {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}
    values["best_prompt"] = prompt if prompt is None else json.dumps(prompt, ensure_ascii=False)
    shown = {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in values.items()}
    return [(key, visible(str(value))) for key, value in shown.items() if value is not None]
