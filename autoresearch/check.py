"""--check, the rehearsal before the night: one real call, what the run will take, cheap tricks.

The stress test scores responses that deserve little, without a call: a trick that pays is what the
search would find. Nothing here changes a file.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from autoresearch.api.models import ModelCheck, Preflight
from autoresearch.criteria import (
    by_rule,
    is_judge,
    judge_labels,
    needs_judge,
    read_argument,
    weighted,
)
from autoresearch.criteria.kind import ScoreError
from autoresearch.criteria.lengths import Band
from autoresearch.files.inputs import Input
from autoresearch.files.program import Criterion, Program
from autoresearch.night import AT_ONCE
from autoresearch.search.confirmation import FINAL, ROUND
from autoresearch.search.race import PASSES, ROUNDS
from autoresearch.text import count, duration, visible

ENOUGH = 7.0  # points from which a cheap trick is a warning
STRESSED_INPUTS = 20  # inputs that the tricks are tried on
LONGEST_TRICK = 1000  # words
MESSAGE = 16_000  # characters that the agent reads at most
RACED = 1.5  # passes of an average proposal, as the demo has them


def rehearse(program: Program, found: Preflight, options: argparse.Namespace) -> int:
    """Print what the run would do and cost, and every problem in sight; 0 where there is none."""
    print(f"{program.name}: {_summary(program)}")
    for model in found.models:
        print(_model_line(model))
    for line in _forecast(program, found, options):
        print(line)
    problems = [visible(problem) for problem in found.problems]
    try:
        tricks = stress(program)
    except ScoreError as error:
        tricks = []
        problems.append(f"no stress test: {visible(str(error))}")
    if tricks:
        print("\nstress test of the criteria: what responses that deserve little would score")
        if needs_judge(program):
            print("  (rules only; a judge is taken to give 0)")
    for trick in sorted(tricks, key=lambda t: -t.score):
        print(f"  {trick.score:5.2f}  {trick.name}")
    problems += warnings(tricks)
    print()
    for problem in problems:
        print(f"warning: {problem}")
    print(
        "ready: python main.py"
        if not problems
        else f"{len(problems)} to look at, then python main.py"
    )
    return 0


def _summary(program: Program) -> str:
    parts = [count(len(program.inputs), "input")]
    if program.held_out:
        parts.append(f"{len(program.held_out)} held out")
    given = len(program.criteria)
    parts.append(count(given, "criterion", "criteria") if given else "judged by the goal")
    return ", ".join(parts)


def _model_line(model: ModelCheck) -> str:
    price = "price unknown"
    if model.price:
        price = "${:g} in, ${:g} out per million tokens".format(*(p * 1e6 for p in model.price))
    parts = [f"{model.id} ({', '.join(model.roles)})", price]
    if model.context_length:
        parts.append(f"context of {model.context_length:,} tokens")
    if model.requests_per_minute:
        parts.append(f"{model.requests_per_minute:g} requests a minute")
    return "; ".join(parts)


def expected_calls(program: Program, iterations: int, confirmed: bool) -> int:
    """Calls of a whole run: proposals, passes with the judge's verdicts, the confirmation."""
    per_response = 1 + len(judge_labels(program))
    passes = PASSES + RACED * iterations + (ROUNDS * ROUND if confirmed else 0)
    final = 2 * FINAL * len(program.held_out or program.inputs) if confirmed else 0
    return round(iterations + per_response * (passes * len(program.inputs) + final))


def _forecast(program: Program, found: Preflight, options: argparse.Namespace) -> Iterator[str]:
    """The run in calls, tokens, money and time, as far as one call can tell."""
    calls = expected_calls(program, options.iterations, not options.no_confirm)
    first = next(model for model in found.models if "task" in model.roles)
    prompt, output = first.prompt_tokens, first.completion_tokens
    yield f"first call: {duration(first.seconds)}, {prompt or '?'} + {output or '?'} tokens"
    yield f"\nexpected for {count(options.iterations, 'iteration')}, roughly, from that call:"
    yield f"  calls     {calls:,}"
    if prompt is not None and output is not None:
        # the agent reads the history, up to its budget of characters at four a token
        read = calls * prompt + options.iterations * MESSAGE / 8
        yield f"  tokens    {read + calls * output:,.0f}"
        if first.price:
            yield f"  cost      ${read * first.price[0] + calls * output * first.price[1]:,.2f}"
    side_by_side = min(AT_ONCE, len(program.inputs))
    seconds = calls / side_by_side / options.workers * first.seconds
    limit = first.requests_per_minute
    yield f"  duration  {duration(max(seconds, calls / limit * 60) if limit else seconds)}"


# --- stress test ---

LOREM = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut"
    " labore et dolore magna aliqua ut enim ad minim veniam quis nostrud exercitation ullamco"
    " laboris nisi ut aliquip ex ea commodo consequat"
).split()
REFUSAL = "I'm sorry, but I can't help with that."
ADD_JUDGE = "add 'judge: Does the response do what the task asks, correctly and clearly?'"
TRUST_JUDGE = "only the judge can tell, so give it more weight"


@dataclass(frozen=True)
class Trick:
    """A response that deserves little; `remedy` says what to add when it scores `ENOUGH`."""

    name: str
    response: str
    score: float
    remedy: str = ""


def warnings(tricks: Iterable[Trick]) -> list[str]:
    """A line for each remedy, with the tricks that it is for."""
    by_remedy: dict[str, list[Trick]] = defaultdict(list)
    for trick in tricks:
        if trick.remedy:
            by_remedy[trick.remedy].append(trick)
    return [
        f"{', '.join(f'{t.name!r} scores {t.score:.1f}' for t in same)}: {remedy}"
        for remedy, same in by_remedy.items()
    ]


def stress(program: Program) -> list[Trick]:
    """Scores cheap tricks by the rules, without a call; a judge is taken to give 0, as it should.

    The mean over the first inputs; the response shown is the one to the first. [] when no criterion
    is a rule. The program must have passed `check_criteria`; raises ScoreError for a slow pattern.
    """
    rules = tuple(c for c in program.criteria if not is_judge(c))
    if not rules:
        return []
    tried: dict[str, list[tuple[str, float, str]]] = {}
    for given in program.inputs[:STRESSED_INPUTS]:
        for name, response, remedy in tricks(program, rules, given):
            marks = dict.fromkeys(judge_labels(program), (0.0, ""))
            marks |= {c.label: by_rule(c, given, response) for c in rules}
            value, _, _ = weighted(program.criteria, marks)
            tried.setdefault(name, []).append((response, value, remedy))
    return [weighed(name, runs) for name, runs in tried.items()]


def weighed(name: str, runs: list[tuple[str, float, str]]) -> Trick:
    response, _, remedy = runs[0]
    mean = sum(value for _, value, _ in runs) / len(runs)
    return Trick(name, response, mean, remedy if mean >= ENOUGH else "")


def tricks(
    program: Program, rules: tuple[Criterion, ...], given: Input
) -> Iterator[tuple[str, str, str]]:
    """(name, response, what would see through it) of each trick on one input."""
    arguments = {c.kind: read_argument(c, given) for c in rules}
    length = middle(arguments.get("words", (60, 60)))
    stops = middle(arguments.get("sentences", (length // 12, length // 12)))
    mentioned = [read_argument(c, given) for c in rules if c.kind == "mentions"]
    keywords = [name.split(" | ")[0] for groups in mentioned for name, *_ in groups]
    answers = Counter(i.expected for i in program.inputs if i.expected)
    judge = TRUST_JUDGE if needs_judge(program) else ADD_JUDGE
    longer = judge if "words" in arguments else "add 'words: 20+'"
    yield "nothing at all", "", longer
    yield "the task repeated", program.question(given), f"add 'avoids: {opening(program.task)}'"
    yield "the goal repeated", program.goal, judge
    yield "a refusal", REFUSAL, "add 'avoids: sorry | can't help | cannot help'"
    yield "one word over and over", " ".join(["word"] * length), judge
    yield "lorem ipsum of the right length", filler(length, stops, []), judge
    yield "the criteria themselves", "\n".join(c.label for c in rules), judge
    if given.text:
        yield "the input repeated", given.text, judge
    if keywords:
        yield "the keywords as a list", ", ".join(keywords), longer
        yield "the keywords in lorem ipsum", filler(length, stops, keywords), judge
    if "json" in arguments:
        form = json.dumps(dict.fromkeys(arguments["json"], ""))
        yield "the JSON form left empty", form, "add 'equals: {expected}'"
    if answers:
        yield "the same answer always", answers.most_common(1)[0][0], "add inputs of other answers"


def opening(task: str) -> str:
    """The first words of the task, as an argument of `avoids`."""
    return " ".join(re.split(r"[,|{\n]", task.strip() or "task")[0].split()[:6])


def middle(band: Band) -> int:
    low, high = band
    return min(LONGEST_TRICK, low if high == float("inf") else round((low + high) / 2))


def filler(length: int, stops: int, keywords: list[str]) -> str:
    """Meaningless text of so many words and sentences, the keywords spread over it."""
    words = max(0, length - sum(len(keyword.split()) for keyword in keywords))
    text = [LOREM[i % len(LOREM)] for i in range(words)]
    for place, keyword in enumerate(keywords):
        text.insert(place * len(text) // len(keywords), keyword)
    size = max(1, -(-len(text) // max(1, stops)))
    pieces = [" ".join(text[i : i + size]) for i in range(0, len(text), size)]
    return " ".join(f"{piece[:1].upper()}{piece[1:]}." for piece in pieces)
