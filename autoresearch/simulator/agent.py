"""The simulated agent: it edits the best prompts that it is shown, sentence by sentence."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from random import Random
from statistics import fmean

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
# A fence ends at the first line that begins like it.
FENCED = re.compile(r"^(`{3,}|~{3,}).*\n((?:(?!\1).*\n)*?)\1.*$", re.M)
SCORE = re.compile(r"\bscore\W{0,6}(\d+(?:\.\d+)?)", re.I)
STRATEGY = re.compile(r"^(refine|combine|simplify|explore)\b", re.I | re.M)


def sentences(text: str) -> list[str]:
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


LISTED = re.compile(r"^[-*] *(\w+): *(.+?)(?: *\(weight [^)]*\))?$", re.M)
ADVICE = {  # what a criterion suggests, taken by its letter
    "words": ("Write {one} words.",),
    "sentences": ("Write {one} sentences.",),
    "mentions": ("Mention {one}.",),
    "avoids": ("No filler, no preamble.", "Avoid: {one}."),
    "matches": ('Use the phrase "{text}".',),
    "equals": ("Reply with only the answer itself.", "Weigh each choice with care."),
    "json": ("Reply with JSON with the keys {all}.", "No prose, only JSON."),
    "judge": ("Make sure of this: {question}.",),
    "similar": (),
    "python": (),
}
GENERIC = sentences(
    "Give one concrete example. Use plain words and no filler. Start with the main point. "
    "Be thorough and comprehensive. You are a world-class expert. Be friendly and warm. "
    "Think step by step. Be creative. Take your time. Write for a general reader. "
    "Keep it brief. Stay factual."
)


def instructions_for(message: str, rng: Random) -> list[str]:
    """Sentences to build prompts from: some that the criteria suggest, some that rarely help."""
    found = list(GENERIC)
    for name, text in LISTED.findall(message.partition("\n```")[0]):
        question, pattern = re.split(r"[?.:]", text)[0], _matching(text, rng)
        for form in ADVICE.get(name, (f"{name} means {{all}}.",)):
            for group in text.split(","):
                one = rng.choice(group.split("|")).strip()
                found.append(form.format(all=text, one=one, question=question, text=pattern))
    return list(dict.fromkeys(found))


def _matching(pattern: str, rng: Random) -> str:
    """A text that a simple pattern matches: /(a|b) c?/ -> 'b c'. Good enough to be tried."""
    text = re.sub(r"^/|/\w*$|\\b|\(\?\w+\)|(?<=\()\?:|[$^]", "", pattern)
    text = re.sub(r"\[(.)[^]]*\]", r"\1", re.sub(r"\\s[+*]?", " ", text))
    while group := re.search(r"\(([^()]*)\)", text):
        choice = rng.choice(group[1].split("|"))
        text = text[: group.start()] + choice + text[group.end() :]
    return re.sub(r"[?*+\\\"]", "", rng.choice(text.split("|"))).lstrip(" .!,")


def read_history(message: str) -> list[tuple[float, str]]:
    """(score, prompt) of each fenced attempt, ascending, but the one called the leader last."""
    shown: list[tuple[bool, float, str]] = []
    for block in FENCED.finditer(message):
        before = message[: block.start() - 1].rpartition("\n")[2]
        score = SCORE.search(before)
        if score and "response" not in before[: score.start()]:
            prompt = block[2].strip().replace("(no system prompt)", "")
            shown.append(("leader" in before, float(score[1]), prompt))
    return [(score, prompt) for _, score, prompt in sorted(shown)]


class Agent:
    """One proposal in the making: sentences are added, dropped and exchanged."""

    def __init__(self, message: str, vocabulary: Sequence[str], rng: Random) -> None:
        self.rng, self.vocabulary = rng, list(vocabulary)
        self.shown = read_history(message)
        outside = FENCED.sub("", message)
        reasons = " ".join(line for line in outside.splitlines() if "missed:" in line)
        # 'Mention cats.' answers the reason 'missing: cats', as its second word shows.
        self.missed = [x for x in self.vocabulary if x.split()[1].strip(".") in reasons]
        named = STRATEGY.findall(outside)
        self.strategy = named[-1].lower() if named else "refine"
        self.leads = "the leader" in outside

    def propose(self) -> str:
        if self.shown:
            leader = self.leads and self.rng.random() < 0.85  # else another that is shown
            parts = sentences(self.shown[-1][1]) if leader else self._parent()
            thought, parts = getattr(self, f"_{self.strategy}")(parts)
        else:
            thought, parts = "A first attempt with a few plain instructions.", self._any(1, 5)
        prompt = " ".join(dict.fromkeys(parts)) or self.rng.choice(self.vocabulary)
        return f"THOUGHT: {thought}\nPROMPT: {prompt}"

    def _any(self, least: int, most: int, besides: Collection[str] = ()) -> list[str]:
        pool = [line for line in self.vocabulary if line not in besides]
        return self.rng.sample(pool, min(self.rng.randint(least, most), len(pool)))

    def _parent(self) -> list[str]:
        """The sentences of a prompt shown; e times as likely per 0.4 points of its score."""
        best = max(score for score, _ in self.shown)
        weights = [math.exp((score - best) / 0.4) for score, _ in self.shown]
        return sentences(self.rng.choices(self.shown, weights)[0][1])

    def _new(self, parts: Sequence[str]) -> str:
        """A sentence to add: against what was missed, from another prompt shown, or any."""
        chance = self.rng.random()
        pool = self.missed if chance < 0.5 else self._parent() if chance < 0.65 else self.vocabulary
        return self.rng.choice([line for line in pool if line not in parts] or self.vocabulary)

    def _weakest(self, parts: Sequence[str]) -> str:
        """Of two sentences the one found in the worse prompts: what the scores shown can tell."""

        def standing(part: str) -> float:
            return fmean([score for score, prompt in self.shown if part in prompt] or [0.0])

        return min(self.rng.choices(parts, k=2), key=standing)

    def _refine(self, parts: list[str]) -> tuple[str, list[str]]:
        notes = []
        # In a long prompt a single edit would hardly show.
        for _ in range(self.rng.choice((1, 1, 2, 3)) + (len(parts) > 12)):
            edit = self.rng.choices(("add", "drop", "exchange"), (5, 2, 3))[0]
            if edit != "add" and parts:
                parts.remove(gone := self._weakest(parts))
                notes.append(f"drop '{gone}'")
            if edit != "drop" or not parts:
                parts.insert(self.rng.randint(0, len(parts)), new := self._new(parts))
                notes.append(f"add '{new}'")
        return f"The best prompt so far is close; {' and '.join(notes)}.", parts

    def _combine(self, parts: list[str]) -> tuple[str, list[str]]:
        both = dict.fromkeys([*parts, *self._parent()])
        kept = [part for part in both if self.rng.random() < (0.9 if part in parts else 0.5)]
        return "Two strong prompts share a direction; this joins their best sentences.", kept

    def _simplify(self, parts: list[str]) -> tuple[str, list[str]]:
        gone = [self._weakest(parts) for _ in range(self.rng.randint(1, 2)) if parts]
        thought = f"Fewer are easier to follow, so without: {' '.join(dict.fromkeys(gone))}"
        return thought, [part for part in parts if part not in gone]

    def _explore(self, parts: list[str]) -> tuple[str, list[str]]:
        known = {part for _, prompt in self.shown for part in sentences(prompt)}
        kept = [part for part in parts if self.rng.random() < 0.3]
        return "None of the earlier prompts tried this.", kept + self._any(1, 4, besides=known)
