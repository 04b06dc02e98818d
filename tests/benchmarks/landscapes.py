"""Abstract worlds whose true score is known, for measuring a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from autoresearch.simulator.agent import sentences
from autoresearch.simulator.model import World

LEVERS = tuple(
    sentences(
        "Begin with the main point. Give one concrete example. Write for a curious beginner. "
        "Keep every sentence short. Name the parts before using them. Say where it fails. "
        "Compare it with everyday life. Say what it is good for. Prefer verbs over nouns. "
        "Define each term once. Use the active voice throughout. Close with a single takeaway. "
        "Put numbers where they help. Explain causes before effects. Leave out the history. "
        "Address the reader directly. Order the steps by time. State the trade-offs openly. "
        "Check the answer before sending. Repeat the question first. Write with a warm tone. "
        "Add a heading to each part. Show the reasoning in full. Admit what is uncertain."
    )
)
PROGRAM = """# Goal

Find the system prompt with which the simulated model answers best.

## Task

Answer the question.

## Criteria

- words: 200-400
"""


@dataclass(frozen=True)
class Landscape:
    """A prompt is worth what the levers (sentences) in it are worth together.

    A sample is a normal draw around `value` with standard deviation `noise`, clipped to 0..10.
    The reply carries it as its length: scored by `program`, 100 words are 0 points, 200 are 10.
    """

    value: Callable[[frozenset[int]], float]
    noise: Callable[[frozenset[int]], float]
    levers: tuple[str, ...] = LEVERS
    program: str = PROGRAM

    def pulled(self, prompt: str) -> frozenset[int]:
        """The numbers of the levers that stand in `prompt`."""
        text = " ".join(prompt.split())
        return frozenset(i for i, lever in enumerate(self.levers) if lever in text)

    def true_score(self, prompt: str) -> float:
        """Expected score, exact: the mean of the clipped normal distribution."""
        pulled = self.pulled(prompt)
        mean, sd = self.value(pulled), self.noise(pulled)
        if sd == 0:
            return min(10.0, max(0.0, mean))
        low, high = -mean / sd, (10 - mean) / sd
        inside = mean * (_cumulative(high) - _cumulative(low))
        return inside + sd * (_density(low) - _density(high)) + 10 * (1 - _cumulative(high))

    def sample(self, prompt: str, rng: Random) -> float:
        pulled = self.pulled(prompt)
        return min(10.0, max(0.0, rng.gauss(self.value(pulled), self.noise(pulled))))

    def reply(self, prompt: str, rng: Random) -> str:
        # Rounded up or down at random, so that the mean over replies stays exact.
        return " ".join(["word"] * (100 + int(self.sample(prompt, rng) * 10 + rng.random())))


def _cumulative(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _additive(name: str) -> Callable[[frozenset[int]], float]:
    """Base 3; ten levers help, eight do nothing much, six hurt."""
    rng = Random(name)
    weights = [rng.uniform(0.3, 1.0) for _ in range(10)]
    weights += [rng.uniform(-0.1, 0.1) for _ in range(8)]
    weights += [rng.uniform(-1.0, -0.4) for _ in range(6)]
    rng.shuffle(weights)
    return lambda pulled: 3 + sum(weights[i] for i in pulled)


def _pairs(name: str) -> Callable[[frozenset[int]], float]:
    """Levers alone do little; eight pairs of them help, eight hurt."""
    rng = Random(name)
    alone = [rng.uniform(-0.2, 0.2) for _ in LEVERS]
    every = [(i, j) for i in range(len(LEVERS)) for j in range(i)]
    worth = dict(zip(rng.sample(every, 16), [1.0] * 8 + [-1.0] * 8, strict=True))

    def value(pulled: frozenset[int]) -> float:
        together = sum(w for (i, j), w in worth.items() if i in pulled and j in pulled)
        return 3 + sum(alone[i] for i in pulled) + together

    return value


def _keys(name: str, count: int) -> list[frozenset[int]]:
    """Two disjoint sets of `count` levers."""
    drawn = Random(name).sample(range(len(LEVERS)), 2 * count)
    return [frozenset(drawn[:count]), frozenset(drawn[count:])]


def _deceptive(name: str) -> Callable[[frozenset[int]], float]:
    """Baits lead to a hill of 6.75; a peak near 9 lies behind keys that hurt one by one."""
    keys, baits = _keys(name, 5)

    def value(pulled: frozenset[int]) -> float:
        found, bait = len(keys & pulled), len(baits & pulled)
        return 4 + 0.55 * bait - 0.3 * found + max(0, found - 2) * (2.0 if bait < 2 else 0.6)

    return value


def _plateau(name: str) -> Callable[[frozenset[int]], float]:
    """Flat at 3 until two of five keys meet, then flat again up to the next step."""
    keys, _ = _keys(name, 5)
    steps = (0.0, 0.0, 2.0, 2.0, 4.0, 6.0)
    return lambda pulled: 3 + steps[len(keys & pulled)] - 0.05 * len(pulled)


def _dilution(name: str) -> Callable[[frozenset[int]], float]:
    """Gains shrink as they add up, and each further lever costs more than the one before."""
    rng = Random(name)
    gains = [rng.uniform(-0.7, 0.7) for _ in LEVERS]

    def value(pulled: frozenset[int]) -> float:
        gain = max(0.0, sum(gains[i] for i in pulled))
        return 2.5 + 8 * (1 - math.exp(-gain / 2)) - 0.04 * len(pulled) ** 2

    return value


def _flat(sd: float) -> Callable[[frozenset[int]], float]:
    return lambda pulled: sd


LANDSCAPES: dict[str, Landscape] = {
    "additive": Landscape(_additive("additive"), _flat(1.0)),
    "pairs": Landscape(_pairs("pairs"), _flat(1.0)),
    "deceptive": Landscape(_deceptive("deceptive"), _flat(1.0)),
    "plateau": Landscape(_plateau("plateau"), _flat(1.0)),
    "dilution": Landscape(_dilution("dilution"), _flat(1.0)),
    # Each third lever makes the answers less reliable.
    "uneven": Landscape(
        _additive("uneven"), lambda pulled: 0.4 + 0.3 * sum(i % 3 == 0 for i in pulled)
    ),
    "quiet": Landscape(_additive("quiet"), _flat(0.2)),
}


class LandscapeWorld(World):
    """The simulated agent pulls levers, and the model under test answers by the landscape."""

    def __init__(self, landscape: Landscape, seed: int = 0) -> None:
        super().__init__(seed)
        self.landscape = landscape

    def vocabulary(self, message: str, rng: Random) -> tuple[str, ...]:
        return self.landscape.levers

    def answer(self, system: str, user: str, rng: Random) -> str:
        return self.landscape.reply(system, rng)
