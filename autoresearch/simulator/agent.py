"""The simulated agent: it edits the best prompts that it is shown, sentence by sentence."""

import math
import re
from collections.abc import Sequence
from random import Random
from statistics import fmean

# A fence ends at the first line that begins like it.
FENCE = r"^(?P<fence>`{3,}|~{3,}).*\n((?:(?!(?P=fence)).*\n)*?)(?P=fence).*$"
FENCED = re.compile(FENCE, re.M)
ATTEMPT = re.compile(rf"^(Prompt.*\W|)score (\d+\.\d+).*\n{FENCE}", re.M)
STRATEGY = re.compile(r"^(refine|combine|simplify|explore)\b", re.I | re.M)


def sentences(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text) if part.strip()]


class Agent:
    """One proposal in the making: sentences are added, dropped and exchanged."""

    def __init__(self, message: str, vocabulary: Sequence[str], rng: Random) -> None:
        self.rng, self.vocabulary = rng, vocabulary
        shown = ATTEMPT.findall(message.replace("(no system prompt)", ""))
        found = sorted(("leader" in name, float(s), text.strip()) for name, s, _, text in shown)
        self.shown = [(score, prompt) for _, score, prompt in found]  # ascending, the leader last
        outside = FENCED.sub("", message)
        self.leads = "the leader" in outside
        self.strategy = ["refine", *STRATEGY.findall(outside)][-1].lower()
        reasons = " ".join(re.findall(".*missed:.*", outside))
        # 'Mention cats.' answers the reason 'missing: cats', as its second word shows.
        self.missed = [x for x in vocabulary if x.split()[1].strip(".") in reasons]

    def propose(self) -> str:
        leader = self.shown and self.leads and self.rng.random() < 0.85  # else another shown
        before = sentences(self.shown[-1][1]) if leader else self._parent() if self.shown else []
        after = self._edited(list(before)) if self.shown else self._untried(5)
        after = list(dict.fromkeys(after)) or [self.rng.choice(self.vocabulary)]
        changes = [f"without '{part}'" for part in before if part not in after]
        changes += [f"with '{part}'" for part in after if part not in before]
        return f"THOUGHT: {self.strategy}: {', '.join(changes)}\nPROMPT: {' '.join(after)}"

    def _edited(self, parts: list[str]) -> list[str]:
        if self.strategy == "combine":
            both = dict.fromkeys([*parts, *self._parent()])
            return [part for part in both if self.rng.random() < (0.9 if part in parts else 0.5)]
        if self.strategy == "simplify":
            gone = [self._weakest(parts) for _ in range(self.rng.randint(1, 2)) if parts]
            return [part for part in parts if part not in gone]
        if self.strategy == "explore":
            return [part for part in parts if self.rng.random() < 0.3] + self._untried(4)
        # In a long prompt a single edit would hardly show.
        for _ in range(self.rng.choice((1, 1, 2, 3)) + (len(parts) > 12)):
            edit = self.rng.choices(("add", "drop", "exchange"), (5, 2, 3))[0]
            if edit != "add" and parts:
                parts.remove(self._weakest(parts))
            if edit != "drop" or not parts:
                parts.insert(self.rng.randint(0, len(parts)), self._new(parts))
        return parts

    def _untried(self, most: int) -> list[str]:
        known = {part for _, prompt in self.shown for part in sentences(prompt)}
        pool = [line for line in self.vocabulary if line not in known]
        return self.rng.sample(pool, min(self.rng.randint(1, most), len(pool)))

    def _parent(self) -> list[str]:
        """The sentences of a prompt shown; e times as likely per 0.4 points of its score."""
        weights = [math.exp(score / 0.4) for score, _ in self.shown]
        return sentences(self.rng.choices(self.shown, weights)[0][1])

    def _new(self, parts: Sequence[str]) -> str:
        """A sentence to add: against what was missed, from another prompt shown, or any."""
        chance = self.rng.random()
        pool = self.missed if chance < 0.5 else self._parent() if chance < 0.65 else self.vocabulary
        return self.rng.choice([line for line in pool if line not in parts] or self.vocabulary)

    def _weakest(self, parts: Sequence[str]) -> str:
        """Of two sentences the one found in the worse prompts: what the scores shown can tell."""
        drawn = self.rng.choices(parts, k=2)
        found = {part: [score for score, prompt in self.shown if part in prompt] for part in drawn}
        return min(found, key=lambda part: fmean(found[part] or [0.0]))
