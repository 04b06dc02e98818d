"""--check, the rehearsal before the night: a cheap trick that pays the search would find too."""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import filterfalse
from statistics import fmean, mode
from typing import Any

from autoresearch.api.exchange import APIError, FatalAPIError
from autoresearch.api.models import ModelCheck
from autoresearch.criteria import by_rule, criteria_of, is_judge, read_argument, weighted
from autoresearch.criteria.kind import Mark, ScoreError
from autoresearch.files.inputs import Input
from autoresearch.files.program import Criterion, Program
from autoresearch.files.record import Experiment, Response, Trial
from autoresearch.night import AT_ONCE
from autoresearch.search.confirmation import FINAL, MOST, ROUND
from autoresearch.search.history import BLOCK, WHOLE, History
from autoresearch.search.intervals import t_quantile
from autoresearch.search.proposal import ProposalError
from autoresearch.search.race import BLOCKS, PASSES
from autoresearch.text import count, duration, money, short, visible

ENOUGH = 7.0  # points from which a cheap trick is a warning
SOME, MANY = 20, 200  # inputs that the tricks, the expected answers are tried on
MESSAGE = 4000  # tokens that the agent reads more, once there is a history
DEVIATION = 6.5  # points by which right-or-wrong scores of two prompts differ on one input
LOREM = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor".split()
ADD_JUDGE = "add 'judge: Does the response do what the task asks, correctly and clearly?'"
TRUST_JUDGE = "only the judge can tell, so give it more weight"


def rehearse(program: Program, options: argparse.Namespace, client: Any, *functions: Any) -> int:
    """Prints what the run would do and cost, and every problem in sight; changes no file."""
    listed = f"{count(len(program.inputs), 'input')} searched, {len(program.held_out):,} held out"
    asked = listed if program.inputs[0].text else "the task is asked alone, without inputs"
    given = count(len(program.criteria), "criterion", "criteria")
    marked = given if program.criteria else "judged by the goal"
    say(f"{program.name}: {asked}; {marked}", *program.notices)
    found = client.preflight(program.baseline, program.question(program.inputs[0]))
    say(*map(model_line, found.models))
    rehearsal = Rehearsal(program, client, *functions)
    rehearsal.example()
    rehearsal.forecast(options, found.models)
    say(shows(program))
    rehearsal.expected_answers()
    rehearsal.stress_test()
    problems = dict.fromkeys([*found.problems, *rehearsal.problems])
    say("", *(f"warning: {problem}" for problem in problems))
    say(f"{len(problems)} to look at, then python main.py" if problems else "ready: python main.py")
    return 0


def say(*lines: str) -> None:
    print(*map(visible, lines), sep="\n", flush=True)


def model_line(model: ModelCheck) -> str:
    read, written = (1e6 * price for price in model.price or (math.nan, math.nan))
    line = f"{model.id} ({', '.join(model.roles)}); "
    line += f"${read:g} in, ${written:g} out per million tokens" if model.price else "price unknown"
    return line + (f"; context of {model.context_length:,} tokens" if model.context_length else "")


class Rehearsal:
    """Calls and marks as in the run, on the first input; the problems that were met."""

    def __init__(self, program: Program, client: Any, *functions: Any) -> None:
        self.program, self.problems = program, list[str]()
        self.spent = {role: type(client.total)() for role in ("task", "judge", "agent")}
        self.answer, self.judge, self.propose = (  # functions of the five, not imported here
            partial(call, client, program, spent=spent)
            for call, spent in zip(functions, self.spent.values(), strict=True)
        )

    def attempt(self, call: Callable[..., Any], *given: object) -> Any:
        """What a call gives, or None and a problem more; what spoils every call goes on up."""
        try:
            return call(*given)
        except FatalAPIError:
            raise
        except (APIError, ProposalError, ScoreError) as error:
            self.problems.append(str(error))

    def mark(self, criterion: Criterion, response: Response) -> Any:
        if is_judge(criterion):
            return self.attempt(self.judge, criterion, response)
        return self.attempt(by_rule, criterion, response.given, response.text)

    def example(self) -> None:
        """The baseline's answer to the first input with all its marks; then a proposal."""
        given, criteria, history = self.program.inputs[0], criteria_of(self.program), History()
        for answer in self.attempt(self.answer, self.program.baseline, [given]) or []:
            say("\none worked example, by the baseline:")
            shown = {"input": given.text, "answer": answer.text, "expected": given.expected}
            say(*(f"  {name:9} {short(text, 300)}" for name, text in shown.items() if text))
            found: dict[str, Mark] = {}
            for c in criteria:
                if mark := self.mark(c, answer):
                    missed = f": {short(mark[1], 200)}" if mark[0] < 1 and mark[1] else ""
                    say(f"  {10 * mark[0]:5.2f}     {short(c.label)}{missed}")
                    found[c.label] = mark
                if is_judge(c):
                    self.tell_apart(c, answer, mark)
            if len(found) == len(criteria):
                trial = Trial(given.text, answer.text, *weighted(criteria, found))
                say(f"  {trial.score:5.2f}     in all")
                prompt = self.program.baseline
                history.add(Experiment(0, "baseline", prompt=prompt).scored([trial]))
        if proposal := self.attempt(self.propose, history, 2):  # the first that needs the agent
            say(f"\na first proposal: {short(proposal.prompt, 300)}")

    def tell_apart(self, judge: Criterion, good: Response, mark: Mark | None) -> None:
        """A judge on a good answer, the expected one where there is one, and on a cheap one."""
        if good.given.expected:
            good = Response(good.given, good.given.expected)
            mark = self.mark(judge, good)
        cheap = self.mark(judge, Response(good.given, filler(60, 5)))
        if mark and cheap and cheap[0] >= mark[0]:
            self.problems.append(
                f"'{short(judge.label)}' gives '{short(good.text)}' {10 * mark[0]:.3g} of 10, and "
                f"lorem ipsum {10 * cheap[0]:.3g}: this judge cannot tell them apart; ask it more "
                "exactly, or set NEBIUS_JUDGE_MODEL to a stronger model"
            )

    def forecast(self, options: argparse.Namespace, models: list[ModelCheck]) -> None:
        """The run by the calls just made; neither waits nor what was asked again count."""
        responses = expected_calls(self.program, options.iterations, not options.no_confirm)
        judges = sum(map(is_judge, criteria_of(self.program)))
        calls = {"task": responses, "judge": responses * judges, "agent": options.iterations}
        at_once = options.workers * min(AT_ONCE, len(self.program.inputs))
        tokens = cost = seconds = 0.0
        for model, role in [(each, role) for each in models for role in each.roles]:
            spent, prices = self.spent[role], model.price or (math.nan, math.nan)
            share = calls[role] / max(1, spent.calls)
            read = spent.prompt_tokens * share + MESSAGE * calls[role] * (role == "agent")
            written = spent.completion_tokens * share
            tokens += read + written
            cost += read * prices[0] + written * prices[1]
            limit = 60 / (model.requests_per_minute or math.inf)
            seconds += calls[role] * max(model.seconds / at_once, limit)
        say(f"\nexpected for {count(options.iterations, 'iteration')}, roughly, by these calls:")
        say(f"  calls     {sum(calls.values()):,}", f"  tokens    {tokens:,.0f}")
        say(f"  cost      {'unknown' if math.isnan(cost) else money(cost)}")
        say(f"  duration  {duration(seconds)}")

    def expected_answers(self) -> None:
        """Each rule on the answers that program.md calls right."""
        right = [i for i in (*self.program.inputs, *self.program.held_out) if i.expected][:MANY]
        for criterion in filterfalse(is_judge, self.program.criteria):
            marks = [(self.mark(criterion, Response(i, i.expected or "")), i.text) for i in right]
            missed = [f"{m[1]} (for '{short(text)}')" for m, text in marks if m and m[0] < 1]
            if missed:
                self.problems.append(
                    f"'{short(criterion.label)}' gives the expected answer less than 10 on "
                    f"{len(missed)} of {count(len(right), 'input')}: {missed[0]}"
                )

    def stress_test(self) -> None:
        """Tricks by their points; a warning for each remedy of those that pay."""
        remedies = defaultdict[str, list[str]](list)
        if found := self.attempt(stress, self.program):
            say("\nstress test of the criteria, by rule: what deserves little would score")
        for points, name, remedy in found or ():
            say(f"  {points:5.2f}  {name}")
            if points >= ENOUGH:
                remedies[remedy].append(f"'{name}' scores {points:.1f}")
        self.problems += [f"{', '.join(names)}: {remedy}" for remedy, names in remedies.items()]


def shows(program: Program) -> str:
    """The true gain that is seen in four of five nights: (t + 0.84) standard errors."""
    if not program.inputs[0].text:
        return "a gain holds for this task; inputs under '## Inputs' tell whether for others"
    n = len(program.held_out or program.inputs)
    kind = "held out" if program.held_out else "that the search sees too"
    least = (t_quantile(max(1, n - 1)) + 0.84) * DEVIATION / math.sqrt(n)
    gain = f"a true gain of {least:.1f} points" if least < 10 else "hardly any gain"
    return f"{count(n, 'input')} {kind} can show {gain} in 4 of 5 nights (right or wrong)"


def expected_calls(program: Program, iterations: int, confirmed: bool) -> int:
    """Responses of a whole run: the baseline, proposals in passes or blocks, the confirmation."""
    n = len(program.inputs)
    block, usual = (BLOCK, 2.2) if n > WHOLE else (n, 1.5)  # blocks, passes that a prompt gets
    searched = min(n, BLOCKS * BLOCK) if n > WHOLE else n * PASSES
    last = max(FINAL, min(MOST, 2 * len(program.held_out or program.inputs)))
    halving = 3 * ROUND * block  # three rounds, from eight contenders to one
    return round(searched + usual * block * iterations) + (halving + 3 * last) * confirmed


def stress(program: Program) -> list[tuple[float, str, str]]:
    """The mean score, name and remedy of each trick; a judge is taken to give 0, as it should."""
    points, rules = defaultdict[Any, list[float]](list), [*filterfalse(is_judge, program.criteria)]
    for given in program.inputs[:SOME] if rules else ():
        for name, response, remedy in tricks(program, given):
            marks = {c.label: (0.0, "") for c in program.criteria}
            marks |= {c.label: by_rule(c, given, response) for c in rules}
            points[name, remedy].append(weighted(program.criteria, marks)[0])
    return sorted(((fmean(scores), *trick) for trick, scores in points.items()), reverse=True)


def tricks(program: Program, given: Input) -> Iterator[tuple[str, str, str]]:
    """Name and response of each, and what would see through it."""
    arguments = {c.kind: read_argument(c, given) for c in program.criteria}
    low, high = arguments.get("words", (60, 60))
    length = min(1000, low if high == math.inf else round((low + high) / 2))  # words
    stops = min(length, arguments.get("sentences", (length // 12, 0))[0])
    mentioned = [read_argument(c, given) for c in program.criteria if c.kind == "mentions"]
    keywords = [group[0] for groups in mentioned for group in groups]
    judge = TRUST_JUDGE if any(map(is_judge, program.criteria)) else ADD_JUDGE
    longer = judge if "words" in arguments else "add 'words: 20+'"
    yield "the task repeated", program.question(given), judge
    yield "a refusal", "I'm sorry, but I can't help.", "add 'avoids: sorry | can't help'"
    yield "lorem ipsum of the right length", filler(length, stops), judge
    if given.text:
        yield "the input repeated", given.text, judge
    if keywords:
        yield "the keywords as a list", ", ".join(keywords), longer
        yield "the keywords in lorem ipsum", filler(length, stops, *keywords), judge
    if "json" in arguments:
        form = json.dumps(dict.fromkeys(arguments["json"], ""))
        yield "the JSON form left empty", form, "add 'equals: {expected}'"
    if answers := [i.expected for i in program.inputs if i.expected]:
        yield "the same answer always", mode(answers), "add inputs of other answers"


def filler(length: int, stops: int, *keywords: str) -> str:
    """Meaningless text of so many words and sentences, the keywords before it."""
    text = [*" ".join(keywords).split(), *LOREM * (1 + length // len(LOREM))][:length]
    size = math.ceil(len(text) / max(1, stops))
    return " ".join(word + "." * (n % size == 0) for n, word in enumerate(text, 1))
