"""Do the intervals hold? Whole nights through the real confirmation, with scores whose truth is
known.

    python -m tests.benchmarks.intervals [--nights 2000]

In each night a few prompts are proposed, the confirmation asks for what it needs, and what it says
is held against the truth. Exit code 1 when a row misses its goal. `width` is the mean width over
that of the better of Wilson's and Clopper-Pearson's interval for labels, and of Student's t with
the true variance for grades.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

from scipy import stats

from autoresearch.files.record import Experiment, Trial
from autoresearch.search.confirmation import Confirmation, next_steps, outcome
from autoresearch.search.history import History

PROPOSALS = 3
COUNTS = (5, 8, 12, 20, 30)
PAIRS = ((5, 5), (7, 5), (8, 8), (9, 7), (9.5, 9.5), (9.7, 9))  # true score, baseline's
KINDS = (  # shape, proposals around, baseline, spread: what a night may find
    *(("labels", 7, 7, 1), ("labels", 8, 7, 0.7), ("labels", 9, 8.5, 0.5), ("labels", 7, 7.5, 0.5)),
    *(("symmetric", 6.5, 6.5, 0.7), ("symmetric", 7, 6, 0.5), ("symmetric", 6.5, 6.7, 0.2)),
    ("long tail", 6.5, 6.5, 0.3),
)
ONE = ("labels", "symmetric", "long tail")
DIFFICULTY, TASTE, NOISE = 1.0, 0.7, 0.7  # of grades: input, prompt on an input, answer


@dataclass(frozen=True)
class Cell:
    """One kind of night. The proposals are truly worth `winner`, give or take the `spread`; every
    other one is short and worth `loss` less."""

    shape: str  # labels | symmetric | long tail
    inputs: int
    repeats: bool
    winner: float
    baseline: float
    spread: float = 0.0
    held_out: bool = True
    loss: float | None = None


class World:
    """What a model answers in one night, and what is true of it."""

    def __init__(self, cell: Cell, draw: random.Random) -> None:
        self.cell, self.draw = cell, draw
        self.searched = [f"searched {number}" for number in range(5 if cell.inputs > 1 else 1)]
        self.held_out = tuple(f"held out {n}" for n in range(cell.inputs)) if cell.held_out else ()
        self.truth = {"baseline" + " at length" * 3: cell.baseline}
        for number in range(PROPOSALS):
            short = cell.loss is not None and number % 2 == 1
            lost = (cell.loss or 0.0) * short
            value = cell.winner - lost + cell.spread * draw.gauss(0, 1)
            self.truth[f"{number}" + " at length" * (1 if short else 4)] = min(9.9, max(0.1, value))
        self._levels: dict[tuple[str, str], float] = {}
        self._inputs: dict[str, float] = {}

    def true(self, prompt: str) -> float:
        """What the report's score of a prompt is about: other inputs, or those of the search."""
        if self.cell.held_out:
            return self.truth[prompt]
        return fmean(self.level(prompt, text) for text in self.searched)

    def _error(self, size: float) -> float:
        if self.cell.shape == "symmetric":
            return size * self.draw.gauss(0, 1)
        return size * (1 - self.draw.expovariate(1))

    def level(self, prompt: str, text: str) -> float:
        """The true score of one prompt on one input."""
        found = self._levels.get((prompt, text))
        if found is None:
            truth = self.truth[prompt]
            if self.cell.inputs == 1:
                found = truth
            elif self.cell.shape != "labels":
                if text not in self._inputs:
                    self._inputs[text] = self._error(DIFFICULTY)
                found = truth + self._inputs[text] + self._error(TASTE)
            elif self.cell.repeats:
                found = 10.0 * (self.draw.random() < truth / 10)
            else:
                found = 10 * self.draw.betavariate(truth / 5, 2 - truth / 5)
            self._levels[prompt, text] = found
        return found

    def trial(self, prompt: str, text: str) -> Trial:
        score = self.level(prompt, text)
        if not self.cell.repeats:
            if self.cell.shape == "labels":
                score = 10.0 * (self.draw.random() < score / 10)
            else:
                score += self._error(NOISE)
        score = min(10.0, max(0.0, score))
        return Trial(text, repr(score), score, {}, "")

    def experiment(
        self, kind: str, number: int, stage: str, prompt: str, passes: int, inputs: Iterable[str]
    ) -> Experiment:
        trials = tuple(self.trial(prompt, text) for _ in range(passes) for text in inputs)
        score = fmean(trial.score for trial in trials)
        return Experiment(number, kind, stage, prompt=prompt, score=score, trials=trials)


def night(cell: Cell, seed: int) -> tuple[World, Confirmation]:
    world = World(cell, random.Random(seed))
    history = History()
    history.held_out = world.held_out
    baseline, *proposals = world.truth
    history.add(world.experiment("baseline", 0, "baseline", baseline, 4, world.searched))
    for number, prompt in enumerate(proposals, 1):
        history.add(world.experiment("proposal", number, "refine", prompt, 1, world.searched))
    while steps := next_steps(history, PROPOSALS):
        for step in steps:
            asked = step.stage, step.prompt, step.passes, step.inputs
            history.add(world.experiment(step.kind, PROPOSALS, *asked))
    found = outcome(history)
    assert found is not None
    return world, found


@dataclass(frozen=True)
class Seen:
    """What one kind of nights came to. `holds` and `width`: winner, baseline, difference."""

    cell: Cell
    holds: tuple[float, float, float]
    width: tuple[float, float, float]
    improved: float
    chances: list[tuple[float, bool]]  # of the written prompt, and whether it truly is the better
    offered: int  # nights with a shorter prompt,
    lossy: int  # and those in which it loses over 0.5
    claims: float  # nights in which something is said of other inputs


def nights(cell: Cell, number: int) -> Seen:
    holds, width, bound, counted = [[0.0] * 3 for _ in range(4)]
    improved = offered = lossy = claims = 0
    chances = []
    for seed in range(number):
        world, found = night(cell, seed)
        best, plain = world.true(found.winner), world.true(found.baseline)
        scores = (found.winner_score, found.baseline_score, found.difference)
        for at, (interval, truth) in enumerate(
            zip(scores, (best, plain, best - plain), strict=True)
        ):
            if at == 2 and found.winner == found.baseline:
                continue  # no difference by construction
            counted[at] += 1
            holds[at] += interval.low - 1e-9 <= truth <= interval.high + 1e-9
            width[at] += interval.high - interval.low
            bound[at] += known_width(cell, found, at)
        improved += found.improved
        claims += found.generalises or found.held_out
        if not (found.improved or found.worse or best == plain):
            chances.append((found.chance, (best > plain) == (found.best == found.winner)))
        if found.shortest is not None:
            offered += 1
            lossy += world.true(found.shortest.prompt) < world.true(found.best) - 0.5
    ratios = [w / b if b else 0.0 for w, b in zip(width, bound, strict=True)]
    shares = [held / of if of else 1.0 for held, of in zip(holds, counted, strict=True)]
    return Seen(
        cell, (*shares,), (*ratios,), improved / number, chances, offered, lossy, claims / number
    )


def known_width(cell: Cell, found: Confirmation, at: int) -> float:
    """How wide a good interval is; 0 where there is none to compare with."""
    interval = (found.winner_score, found.baseline_score, found.difference)[at]
    n = found.inputs * (1 if found.generalises else found.passes)
    if cell.shape == "labels":
        return 0.0 if at == 2 else wilson(round(interval.mean * n / 10, 2), n)
    noise = 0.0 if cell.repeats else NOISE**2 / (found.passes if cell.inputs > 1 else 1)
    variance = noise + (TASTE**2 + DIFFICULTY**2 * (at < 2)) * (cell.inputs > 1)
    return 2 * quantile(n - 1) * math.sqrt(variance * (2 if at == 2 else 1) / n)


@lru_cache
def quantile(freedom: int) -> float:
    return float(stats.t.ppf(0.975, freedom))


@lru_cache(maxsize=10_000)
def wilson(right: float, n: int) -> float:
    """Wilson's width for so many of n, in points: Clopper-Pearson's is larger throughout."""
    z, share = 1.959964, right / n
    half = z * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n) / (1 + z * z / n)
    centre = (share + z * z / 2 / n) / (1 + z * z / n)
    return 10 * (min(1.0, centre + half) - max(0.0, centre - half))


def cells() -> Iterator[tuple[str, Cell]]:
    """The table: which row a cell belongs to."""
    for repeats in (True, False):
        answers = "repeat" if repeats else "flicker"
        for inputs in COUNTS:
            for winner, baseline in PAIRS:
                yield f"labels, {answers}", Cell("labels", inputs, repeats, winner, baseline)
            for shape in ("symmetric", "long tail"):
                yield f"{shape}, {answers}", Cell(shape, inputs, repeats, 7, 7)
    for winner, baseline in PAIRS:
        yield "labels, flicker", Cell("labels", 1, False, winner, baseline, held_out=False)
    for shape in ("symmetric", "long tail"):
        yield f"{shape}, flicker", Cell(shape, 1, False, 7, 7, held_out=False)


def other_cells() -> Iterator[tuple[str, Cell]]:
    for repeats in (True, False):
        for shape, winner, baseline, spread in KINDS:
            for inputs in (5, 8, 12, 30):
                yield "chance", Cell(shape, inputs, repeats, winner, baseline, spread)
        yield "seen", Cell("labels", 12, repeats, 8, 8, held_out=False)
        for inputs in (12, 30):
            for loss in (0.0, 0.3, 0.6, 1.0):
                yield "shortest", Cell("symmetric", inputs, repeats, 7, 6, 0.2, loss=loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=2000)
    number = parser.parse_args().nights
    todo = [(row, cell, number) for row, cell in cells()]
    todo += [(row, cell, max(1, number // 4)) for row, cell in other_cells()]
    found = defaultdict(list)
    with ProcessPoolExecutor() as pool:
        seen = pool.map(nights, *zip(*(each[1:] for each in todo), strict=True), chunksize=4)
        for (row, *_), each in zip(todo, seen, strict=True):
            found[row].append(each)
    missed = [*coverage(found), *said(found)]
    print("\n".join(["", *(f"missed: {each}" for each in missed)] if missed else ["", "all hold"]))
    sys.exit(1 if missed else 0)


def coverage(found: dict[str, list[Seen]]) -> Iterator[str]:
    """Prints how often the intervals hold at the least, by number of inputs; yields what fails."""
    counts = (1, *COUNTS)
    print("| scores, answers | % of nights, by inputs |", " | ".join(map(str, counts)), "| width |")
    print("|" + "---|" * (len(counts) + 3))
    for row in [row for row in found if ", " in row]:
        for at, what in enumerate(("winner", "baseline", "difference")):
            lowest = {
                n: min(s.holds[at] for s in found[row] if s.cell.inputs == n)
                for n in sorted({s.cell.inputs for s in found[row]})
            }
            widest = max(s.width[at] for s in found[row])
            shares = [f"{100 * lowest[n]:.1f}" if n in lowest else "" for n in counts]
            wide = f"{widest:.2f}" if widest else ""
            print(f"| {row} | {what} |", " | ".join(shares), f"| {wide} |")
            for n, share in lowest.items():
                if share < 0.93:
                    yield f"{row}, {n} inputs, {what}: {share:.3f}"
            if widest > 1.2:
                yield f"{row}, {what}: {widest:.2f} times as wide"


def said(found: dict[str, list[Seen]]) -> Iterator[str]:
    """Prints how true the rest of the report is; yields what fails."""
    equal = [
        (row, s)
        for row, every in found.items()
        for s in every
        if ", " in row and s.cell.winner == s.cell.baseline and s.cell.held_out
    ]
    row, worst = max(equal, key=lambda each: each[1].improved)
    print(f"\nno prompt better: 'improved' in at most {worst.improved:.1%} of nights ({row})")
    if worst.improved > 0.03:
        yield f"false improvements in {worst.improved:.1%}"
    claims = max(s.claims for s in found["seen"])
    print(f"without held-out inputs: claims of other inputs in {claims:.0%} of nights")
    if claims:
        yield "claims of other inputs without held-out ones"
    chances = [chance for s in found["chance"] for chance in s.chances]
    for low in range(0, 100, 20):
        inside = [c for c in chances if low / 100 <= c[0] < low / 100 + 0.2]
        if len(inside) < 100:
            continue
        told, true = fmean(c for c, _ in inside), fmean(right for _, right in inside)
        print(f"chance told {told:.0%}: true in {true:.0%} of {len(inside):,} nights")
        if abs(told - true) > 0.05:
            yield f"chance {told:.0%} is {true:.0%}"
    offered, lossy = (
        sum(x) for x in zip(*((s.offered, s.lossy) for s in found["shortest"]), strict=True)
    )
    print(f"a shorter prompt was offered {offered:,} times and lost over 0.5 in {lossy:,}")
    if lossy > 0.05 * offered:
        yield f"{lossy} of {offered} shorter prompts lose over 0.5"


if __name__ == "__main__":
    main()
