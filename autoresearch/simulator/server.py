"""A loopback stand-in for the Token Factory API: nothing here is a real model.

`World` plays agent, model under test and judge; which one is asked shows in the request itself.
Each reply is a function of the request, the seed and how often this very request came before
(at temperature 0 of the request and the seed alone). `LANDSCAPES` holds abstract worlds whose true
score is known, for measuring a search. `Simulator` serves a World over HTTP, with faults on demand.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from statistics import fmean
from typing import Any
from urllib.parse import parse_qs, urlsplit

from autoresearch.simulator import MODEL

PRICES = {"prompt": "0.0000002", "completion": "0.0000006"}  # USD per token
CONTEXT_LENGTH = 131_072  # tokens
RATE_WITHOUT_LIMIT = 6000  # requests per minute, what /models says when no limit is set


# --- Landscapes: what a prompt is worth, known exactly ---------------------------------------

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences(text: str) -> list[str]:
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


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
LANDSCAPE_PROGRAM = """# Goal

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
    program: str = LANDSCAPE_PROGRAM

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


# --- The model under test: obeys what it recognises, most of the time ------------------------

STOP = frozenset(
    """a about above after again all also always an and any are as at avoid be been before being
    below between both brief but by can could cover describe do does each every exactly explain
    few following for from give given has have how if in include into is it its just keep less
    list make mention more most must never no not of on one only or other our output please
    prompt question reply respond response should short sentence sentences so some start such tell
    text than that the their them then there these they this those to under up use using very was
    were what when where which while who why will with within word words would write you your
    classify extract answer labels label json keys key input task ask asks go goes we""".split()
)
OPENINGS = (
    "Certainly! Great question.",
    "Sure, let's dive in!",
    "In today's fast-paced world, this topic matters more than ever.",
    "It is important to note that this is a complex subject.",
    "Of course! I would be happy to help with that.",
)
FILLER = sentences(
    "Overall, it plays a crucial role. I hope this helps! In conclusion, a real game-changer. "
    "It is a powerful and efficient way to unlock various benefits. "
    "This cutting-edge approach is designed to leverage robust and essential features."
)
PLAIN_LINES = sentences(
    "Unlike simpler methods, {t} can bring order to the whole problem. "
    "The idea behind {t} is to keep what belongs together close. "
    "The work is done once and the result is used many times. "
    "That can keep {t} quick even when there is a lot to handle. "
    "Each part has one job and hands its result to the next. "
    "What counts is how well the parts fit the question at hand. "
    "The cost is some extra care when things are set up. "
    "Small cases do not need it, large ones gain the most. "
    "People turn to {t} where speed and quality both count. "
    "Results improve as more is known about {t}. "
    "There are limits, and they should be known before starting. Used with care, {t} will pay off."
)
SHORT_LINES = ["{t} at first light", "slow and wide", "nothing stays the same", "quiet {t}"]
MENTIONS = ("It relies on {x}.", "Here {x} plays a part.", "A key idea is {x}.", "Think of {x}.")
PHRASE = "{x} a simple case that everyone knows."
EXAMPLES = (
    "For example, think of a library where like books stand side by side.",
    "For example, a shop can find the item a customer has in mind.",
    "An analogy: it is like a map where near places are alike.",
)
ASIDES = ("The label is {x}.", "**{x}**", "I would say {x}, given the wording.")
# What a model knows about labels without being told.
COMMON_SENSE = {
    "positive": "good great love loved excellent happy best fast perfect amazing nice",
    "negative": "bad terrible hate broken slow worst awful poor disappointed never rude",
    "billing": "invoice charge charged refund payment card paid subscription price twice",
    "bug": "crash crashes error broken fails freezes button wrong",
    "technical": "crash crashes error broken fails install update screen",
    "account": "login password email profile username locked",
    "shipping": "package delivery delivered tracking arrived late parcel",
    "question": "how what when why can does",
}
VALUES = (  # key -> what to look for in the text
    (r"mail", r"\S+@\S+\w"),
    (r"date|day|when", r"\d{4}-\d\d-\d\d|\d{1,2}[./ ]\w+[./ ]\d{2,4}"),
    (r"currency", r"\b[A-Z]{3}\b|[€$£¥]"),
    (r"number|\bid\b", r"\b[\w-]*\d[\d/-]*"),
    (r"amount|total|price|count|age|quantity", r"\d+[.,]\d\d\b(?!.*\d[.,]\d\d\b)|\d+"),
    (r"", r"[A-Z]\w+(?: [A-Z]\w+)+"),
    (r"", r"\w+"),
)
RANGE = r"(\d+)\s*(?:to|-|–|and)\s*(\d+)\s+{}"
MOST = r"(?:under|most|(?:fewer|less|more) than|below|within|up to|maximum)(\D{{0,12}})(\d+)\s+{}"
MENTION = re.compile(
    r"\b(?:mention|include|cover|bring in|use the (?:words?|phrases?|terms?))\b:?([^.!?\n]+)", re.I
)
AVOID = re.compile(r"\b(?:avoid|never use|do not use|don't use)\b[^:.\n]{0,30}:?([^.!?\n]*)", re.I)
CHOICE = re.compile(r"classif|label|categor|sentiment|which of", re.I)
LABELS = re.compile(
    r"\b(?:labels?|categor(?:y|ies)|class(?:es)?|one of|either|as|into|options?)\b"
    r"(?: are| is)?:? ([\w -]+(?:(?:,|/|\|| or ) ?[\w -]+)+)",
    re.I,
)
LABEL_LINE = re.compile(r"^[-*] \W*([\w ]+?)\W*(?:: | - | – |$)", re.M)
KEYS = re.compile(r"\b(?:keys?|fields?|extract(?: the)?)\b:? ((?:[\w\"'` ]+, ?)*[\w\"'` ]+)", re.I)
NO_KEY = re.compile(r" (?:from|in|as|of)\b")


class Model:
    """One reply of the model under test in the making."""

    def __init__(self, system: str, user: str, rng: Random) -> None:
        self.system, self.user, self.rng = system, user, rng
        named = MENTION.findall(system)
        self.mentions = [x for found in named if '"' not in found for x in _items(found)]
        self.phrases = [x for found in named for x in re.findall(r'"([^"]+)"', found)]
        self.avoid = [x.lower() for found in AVOID.findall(system) for x in _items(found)]
        self.thorough = self.asks("thorough|comprehensive|detail|complete|expert")
        # The more is asked at once, the less of it is done: shorter prompts can win.
        load = len(sentences(system)) + len(self.mentions + self.phrases) / 3
        self.obedience = max(0.35, 0.96 - 0.02 * max(0.0, load - 4) - 0.1 * self.thorough)

    def asks(self, pattern: str) -> bool:
        return re.search(pattern, self.system, re.I) is not None

    def follows(self, share: float = 1.0) -> bool:
        """Whether it does what one instruction says, this time."""
        return self.rng.random() < self.obedience * share

    def reply(self) -> str:
        if "json" in (self.system + self.user).lower():
            return self._json()
        if CHOICE.search(self.system + self.user) and (
            labels := _labels(self.user) or _labels(self.system)
        ):
            return self._label(labels)
        return self._prose()

    def _length(self) -> int:
        """Words this reply is going to have, roughly; without being told, too many."""
        stretch = self.rng.gauss(1.0, 0.15) * (1.5 if self.thorough else 1.0)
        told, hinted = _bounds(self.system, "words"), _bounds(self.user, "words")
        if told and self.follows():
            return round(self.rng.uniform(max(told[0], told[1] * 0.6), told[1]))
        if bounds := told or hinted:
            return max(5, round(1.35 * bounds[1] * stretch))
        brief = re.search(r"haiku|poem|title|slogan|headline|tweet|one sentence", self.user, re.I)
        return max(12, round((35 if brief else 165) * stretch))

    def _prose(self) -> str:
        length = self._length()
        shunned = [x for x in self.avoid if self.follows()]
        chosen: list[str] = []
        for line in self._lines(length):
            if length >= len(line.split()) and not any(x in line.lower() for x in shunned):
                chosen.append(line[0].upper() + line[1:])
                length -= len(line.split())
        chosen = chosen or content_words(self.user)[-1:] or ["Yes."]
        most = _bounds(self.system, "sentences")
        while most and len(chosen) > most[1] and self.follows(1.05):
            at = self.rng.randrange(len(chosen) - 1)
            second = chosen.pop(at + 1)
            chosen[at] = f"{chosen[at].rstrip('.!?')}, and {second[0].lower()}{second[1:]}"
        if self.asks("bullet|heading") and self.follows():
            return "\n".join(f"- {line}" for line in chosen)
        return " ".join(chosen)

    def _lines(self, length: int) -> list[str]:
        """What there is to say, in order; more than fits into `length` words."""
        rng, brief = self.rng, length < 30
        topics = content_words((sentences(self.user) or [""])[0]) or ["it"]
        topic = " ".join(topics[-1:] if brief else topics[-3:])
        wanted = [rng.choice(MENTIONS).format(x=x) for x in self.mentions if self.follows()]
        wanted += [PHRASE.format(x=x) for x in self.phrases if self.follows()]
        bullets = self.asks("bullet|heading")  # lists leave little room for examples
        asked = self.asks("example|analogy|for instance")
        if (asked and self.follows(0.5 if bullets else 1.0)) or rng.random() < 0.1:
            wanted.append(rng.choice(EXAMPLES))
        rng.shuffle(wanted)
        lines = [line.format(t=topic) for line in (SHORT_LINES if brief else PLAIN_LINES)]
        rng.shuffle(lines)
        lines = lines[:1] + wanted + lines[1:] * 3
        plain = self.avoid or self.asks("filler|plain|preamble|directly|main point")
        if not (plain and self.follows()):
            for line in rng.sample(FILLER, rng.randint(0, 2)):
                lines.insert(rng.randint(1, 4), line)
            lines[:0] = rng.sample(OPENINGS, rng.random() < 0.75)
        return lines

    def _bare(self) -> bool:
        asked = self.asks(r"\b(only|just|alone|nothing else|exactly|no prose)\b")
        return self.follows() if asked else self.rng.random() < 0.3

    def _label(self, labels: Sequence[str]) -> str:
        """The label that shares most words with the question, by what is known or said of it."""
        given = {word.lower() for word in content_words(self.user)}
        doubt = 0.5 if self.asks("example|step|careful|means|definition") else 1.0

        def fit(label: str) -> float:
            told = [line for line in sentences(self.system) if label.lower() in line.lower()]
            known = content_words(" ".join(told)) + COMMON_SENSE.get(label.lower(), "").split()
            return len(given.intersection(map(str.lower, known))) + self.rng.gauss(0, doubt)

        best = max(labels, key=fit)
        return best if self._bare() else self.rng.choice(ASIDES).format(x=best)

    def _json(self) -> str:
        told = [_items(NO_KEY.split(x)[0]) for x in KEYS.findall(self.system)]
        hinted = [_items(NO_KEY.split(x)[0]) for x in KEYS.findall(self.user)]
        names = max(told + hinted, key=len, default=["answer"])
        sure = 1.0 if names in told else 0.75
        values = {
            name if self.follows(sure) else f"{name}_value": self._value(name)
            for name in (item.replace(" ", "_") for item in names)
        }
        reply = json.dumps(values)
        if self._bare():
            return reply
        if self.follows(sure):
            return f"Here is what you asked for:\n\n```json\n{reply}\n```"
        return "The details are: " + ", ".join(f"{name} is {x}" for name, x in values.items()) + "."

    def _value(self, key: str) -> str:
        fitting = (re.search(value, self.user) for name, value in VALUES if re.search(name, key))
        return next((found[0] for found in fitting if found), "")


def _bounds(text: str, unit: str) -> tuple[int, int] | None:
    """The least and the most of what a text asks for: 'under 20 words' -> (10, 20)."""
    if found := re.search(RANGE.format(unit), text, re.I):
        return int(found[1]), int(found[2])
    found = re.search(MOST.format(unit), text, re.I)
    return (int(found[2]) // 2, int(found[2])) if found else None


def _items(listed: str) -> list[str]:
    """'the words "a b", c and d' -> ['a b', 'c', 'd']"""
    parts = re.split(r"[,;/|]|\b(?:and|or)\b", listed)
    bare = (re.sub(r"^\W*(?:(?:the|a|an|words?|phrases?)\s+)*|\W+$", "", part) for part in parts)
    return [part for part in bare if part and len(part.split()) <= 5]


def _labels(text: str) -> list[str]:
    text = re.sub(r"\([^)]*\)", "", text)
    lists = [_items(found) for found in LABELS.findall(text)] + [LABEL_LINE.findall(text)]
    fitting = (x for x in lists if len(x) > 1 and all(len(item.split()) <= 2 for item in x))
    return next(fitting, [])


def content_words(text: str) -> list[str]:
    found = re.findall(r"[^\W\d_][\w'-]+", text)
    return list(dict.fromkeys(word for word in found if word.lower() not in STOP))


# --- The judge -------------------------------------------------------------------------------

# A fence ends at the first line that begins like it.
FENCED = re.compile(r"^(`{3,}|~{3,}).*\n((?:(?!\1).*\n)*?)\1.*$", re.M)


def judge(message: str, rng: Random) -> str:
    """A verdict as JSON; it likes answers that stay on the question, with an example, no filler."""
    tagged = re.findall(r"<response[^>]*>(.*?)</response", message, re.S)
    response = (tagged or [block[1] for block in FENCED.findall(message)] or [message])[-1]
    asked, said = content_words(message.replace(response, "")), response.lower()
    found = {
        "little to the question": sum(word.lower() in said for word in asked) < len(asked) / 4,
        "no example": not re.search("example|analogy|imagine", said),
        "filler": any(line.lower() in said for line in (*OPENINGS, *FILLER)),
        "a poor length": not 15 <= len(said.split()) <= 160,
    }
    score = min(10.0, max(0.0, 9.0 - 1.7 * sum(found.values()) + rng.gauss(0, 0.5)))
    reason = ", ".join(fault for fault, there in found.items() if there) or "nothing to add"
    return _dressed(json.dumps({"reason": reason, "score": round(score, 1)}), rng)


def _dressed(reply: str, rng: Random) -> str:
    """Models fence a reply now and then that nobody wanted fenced."""
    return f"```\n{reply}\n```" if rng.random() < 0.015 else reply


# --- The agent: edits the best prompts that it is shown --------------------------------------

SCORE = re.compile(r"\bscore\W{0,6}(\d+(?:\.\d+)?)", re.I)
PLAIN_ATTEMPT = re.compile(
    r"^\W*prompt\W*:[ \t*]*(.+)(?:\n.*){0,8}?\n\W*score\W*?(\d+(?:\.\d+)?)", re.I | re.M
)
KINDS = (
    "words",
    "sentences",
    "mentions",
    "avoids",
    "matches",
    "equals",
    "json",
    "judge",
    "similar",
)
CRITERION = re.compile(rf"^[-*] *({'|'.join(KINDS)})\b[^:\n]*: *(.+)$", re.M)
DESCRIBED = re.compile(r"^[-*] (\w+): (.+)$", re.M)
STRATEGY = re.compile(r"^(?:strategy\W+)?(refine|combine|simplify|explore)\b", re.I | re.M)
MISSED = ("missing", "missed", "wanted", "to avoid", "no match")
CASE = re.compile(r"to the input '(.+)':\n(?:.*\n)+?.*\bwanted '([^']+)', got")
GENERIC = sentences(
    "Give one concrete example. Use plain words and no filler. Start with the main point. "
    "Be thorough and comprehensive. You are a world-class expert. Use bullet points. "
    "Use headings for each part. Be friendly and warm. Think step by step. Be creative. "
    "Take your time. Write for a general reader. Keep it brief. Stay factual."
)


def read_history(message: str) -> list[tuple[float, str]]:
    """(score, prompt) of each attempt shown, ascending, but one that is called the leader last.

    Fenced with the score in the line before or after, else lines `Prompt: ...` and `Score: N`.
    """
    shown: list[tuple[bool, float, str]] = []
    for block in FENCED.finditer(message):
        before = message[: block.start() - 1].rpartition("\n")[2]
        after = message[block.end() + 1 :].partition("\n")[0]
        score = SCORE.search(before) or SCORE.search(after)
        if score and "response" not in before[: score.start()]:
            shown.append(("leader" in before, float(score[1]), block[2].strip()))
    if not shown:
        found = PLAIN_ATTEMPT.findall(message)
        shown = [(False, float(score), prompt.strip()) for prompt, score in found]
    return [(score, prompt) for _, score, prompt in sorted(shown)]


def instructions_for(message: str, rng: Random) -> list[str]:
    """Sentences to build prompts from: some that the criteria suggest, some that rarely help."""
    found = list(GENERIC)
    head = message.partition("\n```")[0]
    for kind, argument in CRITERION.findall(head):
        found += _instructions(kind, re.sub(r" *\(weight [^)]*\) *$", "", argument), rng)
    named = [(name, text) for name, text in DESCRIBED.findall(head) if name not in KINDS]
    if len(named) > 1:
        found.append(f"Reply with one of these labels: {', '.join(name for name, _ in named)}.")
        found += [f"The label {name} means {text.rstrip('.')}." for name, text in named]
    if case := CASE.search(message):
        one_sentence = re.sub(r"[.!?]+ *", ", ", case[1]).strip(", ")
        found.append(f"Example: {one_sentence} => {case[2]}.")
    return list(dict.fromkeys(found))


def _instructions(kind: str, argument: str, rng: Random) -> list[str]:
    """What a criterion suggests, taken by its letter."""
    groups = [rng.choice(group.split("|")).strip() for group in argument.split(",")]
    if kind == "mentions":
        return [f"Mention {one}." for one in groups]
    if kind in ("words", "sentences") and (bounds := re.findall(r"\d+", argument)):
        low = bounds[-2] if len(bounds) > 1 else "1"
        return [f"Write {low} to {bounds[-1]} {kind}.", f"Use at most {bounds[-1]} {kind}."]
    if kind == "avoids":
        return ["No filler, no preamble."] + [f"Avoid: {one}." for one in groups]
    if kind == "matches":
        return [f'Use the phrase "{_matching(argument, rng)}".' for _ in range(2)]
    if kind == "equals":
        return ["Reply with only the label.", "Be careful and weigh each label."]
    if kind == "json":
        return [f"Reply with JSON with the keys {argument}.", "No prose, only JSON."]
    return [f"Make sure of this: {argument}"]


def _matching(pattern: str, rng: Random) -> str:
    """A text that a simple pattern matches: /(a|b) c?/ -> 'b c'. Good enough to be tried."""
    text = re.sub(r"^/|/\w*$|\\b|\(\?\w+\)|(?<=\()\?:|[$^]", "", pattern)
    text = re.sub(r"\[(.)[^]]*\]", r"\1", re.sub(r"\\s[+*]?", " ", text))
    while group := re.search(r"\(([^()]*)\)", text):
        choice = rng.choice(group[1].split("|"))
        text = text[: group.start()] + choice + text[group.end() :]
    return re.sub(r"[?*+\\\"]", "", rng.choice(text.split("|"))).lstrip(" .!,")


def _subject(instruction: str) -> str:
    """'Mention a cat.' -> 'a cat'"""
    return re.sub(
        r'^(?:Mention|Avoid:|Write|Use the phrase) "?|"?(?: words| sentences)?\.$', "", instruction
    )


def _spoken(prompt: str) -> list[str]:
    return [] if prompt == "(no system prompt)" else sentences(prompt)


class Agent:
    """One proposal in the making: sentences are added, dropped and exchanged."""

    def __init__(self, message: str, vocabulary: Sequence[str], rng: Random) -> None:
        self.rng = rng
        self.vocabulary = list(vocabulary)
        self.shown = read_history(message)
        outside = FENCED.sub("", message)
        lines = (line for line in outside.splitlines() if any(word in line for word in MISSED))
        reasons = " ".join(lines)
        self.missed = [x for x in self.vocabulary if _subject(x) in reasons]
        named = STRATEGY.findall(outside)
        self.strategy = named[-1].lower() if named else "refine"
        self.leads = "the leader" in outside

    def propose(self) -> str:
        if not self.shown:
            thought, parts = "A first attempt with a few plain instructions.", self._any(1, 5)
        elif self.rng.random() < 0.01:
            thought, parts = "This direction is the right one.", self._parent()
        else:
            thought, parts = getattr(self, f"_{self.strategy}")(self._start())
        prompt = " ".join(dict.fromkeys(parts)) or self.rng.choice(self.vocabulary)
        mark = "**" if self.rng.random() < 0.015 else ""
        return _dressed(f"{mark}THOUGHT:{mark} {thought}\n{mark}PROMPT:{mark} {prompt}", self.rng)

    def _any(self, least: int, most: int, besides: Collection[str] = ()) -> list[str]:
        pool = [line for line in self.vocabulary if line not in besides]
        return self.rng.sample(pool, min(self.rng.randint(least, most), len(pool)))

    def _start(self) -> list[str]:
        """The sentences to work on: those of the leader, when the message speaks of one."""
        if self.leads and self.rng.random() < 0.85:
            return _spoken(self.shown[-1][1])
        return self._parent()

    def _parent(self) -> list[str]:
        """The sentences of a prompt shown; e times as likely per 0.4 points of its score."""
        best = max(score for score, _ in self.shown)
        weights = [math.exp((score - best) / 0.4) for score, _ in self.shown]
        return _spoken(self.rng.choices(self.shown, weights)[0][1])

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
        return f"The best prompt so far is close; {' and '.join(notes)}.", self._joined(parts)

    def _joined(self, parts: list[str]) -> list[str]:
        """Now and then two `Mention` sentences become one, which asks the same in less."""
        lists = [part for part in parts if part.startswith(("Mention ", "Cover: "))]
        if len(lists) < 2 or self.rng.random() < 0.5:
            return parts
        pair = self.rng.sample(lists, 2)
        topics = (re.sub(r"^(Mention|Cover:) |\.$", "", part) for part in pair)
        return [part for part in parts if part not in pair] + [f"Cover: {'; '.join(topics)}."]

    def _combine(self, parts: list[str]) -> tuple[str, list[str]]:
        both = dict.fromkeys([*parts, *self._parent()])
        kept = [part for part in both if self.rng.random() < (0.9 if part in parts else 0.5)]
        return "Two strong prompts share a direction; this joins their best sentences.", kept

    def _simplify(self, parts: list[str]) -> tuple[str, list[str]]:
        gone = [self._weakest(parts) for _ in range(self.rng.randint(1, 2)) if parts]
        kept = [part for part in parts if part not in gone]
        return (
            f"Fewer instructions are easier to follow, so without: {' '.join(dict.fromkeys(gone))}",
            kept,
        )

    def _explore(self, parts: list[str]) -> tuple[str, list[str]]:
        known = {part for _, prompt in self.shown for part in sentences(prompt)}
        kept = [part for part in parts if self.rng.random() < 0.3]
        return "None of the earlier prompts tried this.", kept + self._any(1, 4, besides=known)


# --- The world: one request in, one reply out ------------------------------------------------


class World:
    """Plays all three roles. Thread-safe; the order of different requests does not matter."""

    def __init__(
        self, landscape: str | Landscape = "text", seed: int = 0, noise: float | None = None
    ) -> None:
        """`landscape`: "text", a key of LANDSCAPES, or one's own; `noise` replaces its noise."""
        if isinstance(landscape, str):
            self.landscape = None if landscape == "text" else LANDSCAPES[landscape]
        else:
            self.landscape = landscape
        if self.landscape and noise is not None:
            self.landscape = replace(self.landscape, noise=_flat(noise))
        self.seed = seed
        self._seen: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def complete(self, system: str, user: str, temperature: float = 0.7) -> str:
        rng = self._generator(system, user, temperature)
        message = f"{system}\n\n{user}"
        if "THOUGHT:" in message and "PROMPT:" in message:
            known = self.landscape.levers if self.landscape else instructions_for(message, rng)
            return Agent(message, known, rng).propose()
        if '"score"' in message and re.search(r'"reason"|verdict|judge', message, re.I):
            return judge(message, rng)
        return (
            self.landscape.reply(system, rng)
            if self.landscape
            else Model(system, user, rng).reply()
        )

    def _generator(self, system: str, user: str, temperature: float) -> Random:
        request = f"{self.seed}\0{system}\0{user}".encode("utf-8", "surrogatepass")
        key = blake2b(request, digest_size=8).digest()
        nth = 0
        if temperature > 0:
            with self._lock:
                self._seen[key] += 1
                nth = self._seen[key]
        return Random(int.from_bytes(key, "big") + nth)


# --- HTTP ------------------------------------------------------------------------------------

REASONS = {200: "OK", 401: "Unauthorized", 404: "Not Found", 405: "Method Not Allowed"}
FAULTS = ("reset", "truncated", "empty", "null")  # besides any status from 400 to 599
ROUTES = {"/v1/chat/completions": "POST", "/v1/models": "GET"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def stays_open(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


@dataclass(frozen=True)
class Reply:
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""  # "reset" or "truncated": what happens to it on the wire

    def encoded(self) -> bytes:
        body = json.dumps(self.body).encode()
        head = f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Simulated')}\r\n"
        lines = {
            "server": "simulated",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **self.headers,
        }
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return head.encode() + b"\r\n" + body


class Connection(socketserver.StreamRequestHandler):
    """One kept-alive connection, served by a thread of its own."""

    disable_nagle_algorithm = True
    server: Listener

    def handle(self) -> None:
        with suppress(ConnectionError, ValueError):  # the client is gone, or speaks no HTTP
            while (request := self.read()) is not None:
                if not self.send(self.server.respond(request)) or not request.stays_open:
                    return

    def read(self) -> Request | None:
        start = self.rfile.readline(65_536).decode("latin-1").split()
        if len(start) != 3:
            return None
        headers = {}
        while (line := self.rfile.readline(65_536)).strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        url = urlsplit(start[1])
        body = self.rfile.read(int(headers.get("content-length", 0)))
        return Request(start[0], url.path, parse_qs(url.query), headers, body)

    def send(self, reply: Reply) -> bool:
        """False when the connection is spoiled and has to be closed."""
        if reply.fault == "reset":
            # Closing with lingering for zero seconds sends RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        sent = reply.encoded()
        self.connection.sendall(sent[:-20] if reply.fault == "truncated" else sent)
        return reply.fault != "truncated"


class Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, respond: Callable[[Request], Reply]) -> None:
        self.respond = respond
        self._open: set[Any] = set()
        super().__init__(("127.0.0.1", port), Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        self.close_request(request)

    def hang_up(self) -> None:
        """Ends the connections that clients keep open, so that their threads end."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Bucket:
    """A token bucket of `rate` requests per minute that holds ten seconds' worth."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.size = max(1.0, rate / 6)
        self.level = self.size
        self.checked = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether this request may pass, and the headers that say how things stand."""
        with self._lock:
            now = time.monotonic()
            self.level = min(self.size, self.level + (now - self.checked) * self.rate / 60)
            self.checked = now
            passes = self.level >= 1
            self.level -= passes
            full = math.ceil((self.size - self.level) * 60 / self.rate)
            headers = {
                "x-ratelimit-limit-requests": str(self.rate),
                "x-ratelimit-remaining-requests": str(int(self.level)),
                "x-ratelimit-reset-requests": f"{full}s",
            }
            if not passes:
                wait = math.ceil((1 - self.level) * 60 / self.rate)
                headers["retry-after"] = str(max(1, wait))
            return passes, headers


class Simulator:
    """The API on 127.0.0.1, in a thread: `with Simulator(seed=1) as server: server.url`.

    `latency` and `retry_after` in seconds, `rate_limit` in requests per minute, `faults` maps a
    status ("429") or a word of FAULTS to its probability; `models` are the only ids then served.
    `counts` holds the chat requests by outcome: "200", "429", "reset", ...
    """

    def __init__(
        self,
        landscape: str | Landscape = "text",
        seed: int = 0,
        *,
        port: int = 0,
        noise: float | None = None,
        latency: float = 0.0,
        rate_limit: int | None = None,
        faults: Mapping[str, float] | None = None,
        retry_after: float = 0.05,
        models: Sequence[str] = (),
    ) -> None:
        self.world = World(landscape, seed, noise)
        self.latency, self.retry_after, self.models = latency, retry_after, models
        self.faults = dict(faults or {})
        if sum(self.faults.values()) > 1:
            raise ValueError(f"the shares of the faults add up to more than 1: {self.faults}")
        self.counts: Counter[str] = Counter()
        self._bucket = Bucket(rate_limit) if rate_limit else None
        self._requests = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = Listener(port, self.respond)
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_address[1]}/v1"

    def __enter__(self) -> Simulator:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.shutdown()
        self._thread.join()
        self._listener.hang_up()
        self._listener.server_close()

    def respond(self, request: Request) -> Reply:
        allowed = ROUTES.get(request.path)
        if allowed is None:
            return Reply(404, {"detail": "Not Found"})
        if request.method != allowed:
            return Reply(405, {"detail": "Method Not Allowed"}, {"allow": allowed})
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or not key.strip():
            why = "Unable authenticate" if scheme else "token is not present"
            return Reply(401, {"detail": f"Couldn't authenticate. Reason: {why}"})
        if allowed == "GET":
            return Reply(200, self._list_models(request.query.get("verbose") == ["true"]))
        reply = self._chat(request.body)
        with self._lock:
            self.counts[reply.fault or str(reply.status)] += 1
        return reply

    def _list_models(self, verbose: bool) -> dict[str, Any]:
        rate = self._bucket.rate if self._bucket else RATE_WITHOUT_LIMIT
        more = {
            "name": "simulated: no real model",
            "pricing": PRICES,
            "context_length": CONTEXT_LENGTH,
            "per_request_limits": {"requests_per_minute": rate, "tokens_per_minute": 400_000},
            "supported_features": ["json_mode"],
        }
        basic = {"object": "model", "created": 0, "owned_by": "simulated"}
        listed = [
            {"id": name, **basic, **(more if verbose else {})} for name in self.models or [MODEL]
        ]
        return {"object": "list", "data": listed}

    def _chat(self, body: bytes) -> Reply:
        try:
            asked = json.loads(body)
        except ValueError:
            return Reply(422, {"detail": [_fault("json_invalid", "JSON decode error", {})]})
        if problems := _problems(asked):
            return Reply(422, {"detail": problems})
        if self.models and asked["model"] not in self.models:
            missing = f"The model `{asked['model']}` does not exist."
            return Reply(404, {"detail": missing})
        passes, headers = self._bucket.take() if self._bucket else (True, {})
        if not passes:
            return Reply(429, {"detail": "Rate limit exceeded"}, headers)
        self._closing.wait(self.latency)
        return self._answer(asked, headers)

    def _answer(self, asked: Mapping[str, Any], headers: dict[str, str]) -> Reply:
        """The completion, or the fault that is drawn for this request."""
        with self._lock:
            self._requests += 1
            nth = self._requests
        names, odds = [*self.faults, ""], [*self.faults.values(), 1 - sum(self.faults.values())]
        fault = Random(f"{self.world.seed} fault {nth}").choices(names, odds)[0]
        if fault.isdigit():
            wait = {"retry-after": str(self.retry_after)} if fault in ("429", "503") else {}
            return Reply(int(fault), {"detail": f"simulated fault {fault}"}, headers | wait)
        reply = Reply(200, self._completion(asked, nth), headers, fault)
        if fault in ("empty", "null"):
            reply.body["choices"][0]["message"]["content"] = "" if fault == "empty" else None
        return reply

    def _completion(self, asked: Mapping[str, Any], nth: int) -> dict[str, Any]:
        said = [(message["role"], _text(message["content"])) for message in asked["messages"]]
        system = "\n\n".join(text for role, text in said if role == "system")
        user = "\n\n".join(text for role, text in said if role != "system")
        temperature = asked.get("temperature")
        text = self.world.complete(system, user, 1.0 if temperature is None else temperature)
        room = asked.get("max_tokens") or 8192
        cut = _tokens(text) > room
        text = text[: room * 4] if cut else text
        read, written = 4 * len(said) + _tokens(system + user), _tokens(text)
        return {
            "id": f"chatcmpl-simulated-{nth}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": asked["model"],
            "system_fingerprint": "simulated",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "length" if cut else "stop",
                }
            ],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": written,
                "total_tokens": read + written,
                "completion_tokens_details": None,
            },
        }


def _tokens(text: str) -> int:
    return (len(text) + 3) // 4


def _text(content: Any) -> str:
    """Content as a string, or as a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))


def _fault(kind: str, message: str, given: Any, *where: str | int) -> dict[str, Any]:
    return {"type": kind, "loc": ["body", *where], "msg": message, "input": given}


def _problems(asked: Any) -> list[dict[str, Any]]:
    """Every field error at once, each with the input echoed, as FastAPI does."""
    if not isinstance(asked, dict):
        return [_fault("model_attributes_type", "Input should be a valid dictionary", asked)]
    missing = [name for name in ("messages", "model") if name not in asked]
    found = [_fault("missing", "Field required", asked, name) for name in missing]
    for name, low, high in (("temperature", 0, 2), ("max_tokens", 1, math.inf)):
        value = asked.get(name)
        if value is not None and not (isinstance(value, (int, float)) and low <= value <= high):
            found.append(_fault("out_of_range", f"Expected {low} to {high}", value, name))
    messages = asked.get("messages", [])
    if not isinstance(messages, list):
        return [*found, _fault("list_type", "Input should be a valid list", messages, "messages")]
    for i, message in enumerate(messages):
        given = message if isinstance(message, dict) else {}
        if "role" not in given or not isinstance(given.get("content"), (str, list)):
            found.append(_fault("missing", "Role and content required", message, "messages", i))
    return found


# --- Command line ----------------------------------------------------------------------------


def _fault_option(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    known = name in FAULTS or re.fullmatch(r"[45]\d\d", name)
    if not known or not re.fullmatch(r"0?\.\d+|[01]", share):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not STATUS=SHARE or one of {', '.join(FAULTS)}=SHARE, as in 429=0.05"
        )
    return name, float(share)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="A simulated Token Factory API on 127.0.0.1: no real model answers here."
    )
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0, metavar="MS", help="per chat request")
    parser.add_argument("--landscape", choices=("text", *LANDSCAPES), default="text")
    parser.add_argument(
        "--noise", type=float, metavar="SD", help="of an abstract landscape, points"
    )
    parser.add_argument("--rate-limit", type=int, metavar="N", help="requests per minute")
    parser.add_argument(
        "--fault", type=_fault_option, action="append", default=[], metavar="KIND=SHARE",
        help=f"repeatable; a status such as 429, or {', '.join(FAULTS)}",
    )  # fmt: skip
    parser.add_argument("--retry-after", type=float, default=0.05, metavar="S")
    parser.add_argument("--models", default=MODEL, metavar="A,B", help=f"served (default: {MODEL})")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_arguments(argv)
    simulator = Simulator(
        options.landscape,
        options.seed,
        port=options.port,
        noise=options.noise,
        latency=options.latency / 1000,
        rate_limit=options.rate_limit,
        faults=dict(options.fault),
        retry_after=options.retry_after,
        models=[name for name in options.models.split(",") if name],
    )
    with simulator, suppress(KeyboardInterrupt):
        said = f"simulated Token Factory, no real model; serves {options.models}"
        print(f"{said}: {simulator.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
