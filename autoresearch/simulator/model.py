"""What the simulated model says, as the model under test, as the agent and as the judge.

Which one is asked shows in the request itself. Each reply is a function of the request, the seed
and how often this very request came before (at temperature 0 of the request and the seed alone).
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from autoresearch.simulator.agent import FENCED, Agent, instructions_for, sentences

STOP = frozenset("answer describe explain please what when where which does have with".split())
OPENINGS = ("Certainly! Great question.", "In today's fast-paced world, this matters ever more.")
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
    "Small cases do not need it, large ones gain the most. "
    "People turn to {t} where speed and quality both count. "
    "There are limits, and they should be known before starting. Used with care, {t} will pay off."
)
MENTIONS = ("It relies on {x}.", "Here {x} plays a part.", "A key idea is {x}.", "Think of {x}.")
PHRASE = "{x} a simple case that everyone knows."
EXAMPLES = ("For example, think of a library with shelves.", "An analogy: it is like a city map.")
ASIDES = ("The label is {x}.", "**{x}**", "I would say {x}, given the wording.")
COMMON_SENSE = {  # what a model knows about labels without being told
    "positive": "good|great|love|excellent|happy|best|perfect|amazing|nice",
    "negative": "bad|terrible|hate|broken|slow|worst|awful|poor|disappoint|never|rude",
    "billing": "charge|invoice|refund|pay|paid|card|price|fee|money|amount|twice|euro|dollar",
    "bug": "crash|error|broken|fail|freez|button|nothing|stop|since|wrong|reload|each time|another",
    "account": "log ?in|sign in|password|mail|profile|get into|delete|factor|address|phone",
    "question": "how do|is there|can two|can i|do you|which plan|what",
}
VALUES = (  # key -> what to look for in the text
    ("date|day|when", r"\d{4}-\d\d-\d\d|\d{1,2}[./ ]\w+[./ ]\d{2,4}"),
    ("currency", r"\b[A-Z]{3}\b|[€$£¥]"),
    ("total|amount|price", r"\d+[.,]\d\d\b(?!.*\d[.,]\d\d\b)|\d+"),
    ("number", r"\b[\w-]*\d[\d/-]*"),
    ("", r"[A-Z]\w+(?: [A-Z]\w+)+|\w+"),
)
BOUNDS = r"(?:(\d+) ?(?:to|-|–|and) ?)?(\d+)\+? {}"
MENTION = re.compile(r"\b(?:mention|include|cover):? ([^.!?\n]+)", re.I)
AVOID = re.compile(r"\bavoid:? ([^.\n]+)", re.I)
CHOICE = re.compile(
    r"(?:classif|label|categor|sentiment)[^:\n]*?\b((?:[\w-]+, )*[\w-]+,? or [\w-]+)", re.I
)
KEYS = r"\b(?:{}) ((?:\w+, )*\w+(?:,? and \w+)?)"


class World:
    """Plays all three roles. Thread-safe; the order of different requests does not matter."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._seen: Counter[bytes] = Counter()
        self._lock = threading.Lock()

    def complete(self, system: str, user: str, temperature: float = 0.7) -> str:
        rng = self._generator(system, user, temperature)
        message = f"{system}\n\n{user}"
        if "THOUGHT:" in message and "PROMPT:" in message:
            return Agent(message, self.vocabulary(message, rng), rng).propose()
        if '"score"' in message:
            return judge(message, rng)
        return self.answer(system, user, rng)

    def vocabulary(self, message: str, rng: Random) -> Sequence[str]:
        """The sentences of which the agent builds prompts."""
        return instructions_for(message, rng)

    def answer(self, system: str, user: str, rng: Random) -> str:
        """What the model under test says."""
        return Model(system, user, rng).reply()

    def _generator(self, system: str, user: str, temperature: float) -> Random:
        request = f"{self.seed}\0{system}\0{user}".encode("utf-8", "surrogatepass")
        key = blake2b(request, digest_size=8).digest()
        nth = 0
        if temperature > 0:
            with self._lock:
                self._seen[key] += 1
                nth = self._seen[key]
        return Random(int.from_bytes(key, "big") + nth)


class Model:
    """One reply of the model under test: it does what it recognises, most of the time."""

    def __init__(self, system: str, user: str, rng: Random) -> None:
        self.system, self.user, self.rng = system, user, rng
        self.mentions = MENTION.findall(system)
        self.phrases = re.findall(r'phrase "([^"]+)"', system)
        self.avoid = [x.lower() for x in AVOID.findall(system)]
        # The more is asked at once, the less of it is done: shorter prompts can win.
        load = len(sentences(system)) + len(self.mentions + self.phrases) / 3
        self.obedience = max(0.35, 0.97 - 0.015 * max(0.0, load - 4))

    def asks(self, pattern: str) -> bool:
        return re.search(pattern, self.system, re.I) is not None

    def follows(self) -> bool:
        """Whether it does what one instruction says, this time."""
        return self.rng.random() < self.obedience

    def reply(self) -> str:
        if "json" in (self.system + self.user).lower():
            return self._json()
        if choice := CHOICE.search(self.user) or CHOICE.search(self.system):
            return self._label(re.split(r",? or |, ", choice[1]))
        return self._prose()

    def _prose(self) -> str:
        length, most = self._length(), _bounds(self.system, "sentences")
        shunned = [x for x in self.avoid if self.follows()]
        chosen: list[str] = []
        for line in self._lines():
            if length >= len(line.split()) and not any(x in line.lower() for x in shunned):
                chosen.append(line[0].upper() + line[1:])
                length -= len(line.split())
        return " ".join(chosen[: most[1] if most and self.follows() else None] or ["Yes."])

    def _length(self) -> float:
        """Words this reply is going to have, roughly; without being told, too many."""
        told, hinted = _bounds(self.system), _bounds(self.user)
        if told and self.follows():
            return self.rng.uniform(max(told[0], told[1] * 0.6), told[1])
        bounds = told or hinted
        return (1.35 * bounds[1] if bounds else 165) * self.rng.uniform(0.8, 1.2)

    def _lines(self) -> list[str]:
        """What there is to say, in order; more than fits."""
        rng = self.rng
        question = (sentences(self.user.split(": ")[-1]) or [""])[0]
        words = re.findall(r"[^\W\d_][\w'-]{2,}", question)
        topic = " ".join([word for word in words if word.lower() not in STOP][-2:]) or "it"
        wanted = [rng.choice(MENTIONS).format(x=x) for x in self.mentions if self.follows()]
        wanted += [PHRASE.format(x=x) for x in self.phrases if self.follows()]
        if self.asks("example|analogy|for instance") and self.follows() or rng.random() < 0.1:
            wanted.append(rng.choice(EXAMPLES))
        rng.shuffle(wanted)
        lines = [line.format(t=topic) for line in PLAIN_LINES]
        rng.shuffle(lines)
        lines = lines[:1] + wanted + lines[1:] * 3
        if not (self.avoid or self.asks("filler|plain|preamble|main point")) or not self.follows():
            for line in rng.sample(FILLER, rng.randint(0, 2)):
                lines.insert(rng.randint(1, 4), line)
            lines[:0] = rng.sample(OPENINGS, rng.random() < 0.75)
        return lines

    def _bare(self) -> bool:
        """Whether the answer comes without words around it."""
        return self.follows() if self.asks(r"\b(only|just|no prose)\b") else self.rng.random() < 0.3

    def _label(self, labels: Sequence[str]) -> str:
        """The label that fits the question best; told what labels mean, it errs less."""
        doubt = 0.3 if self.asks("example|means|care") and self.follows() else 1.0

        def fit(label: str) -> float:
            known = COMMON_SENSE.get(label.lower(), re.escape(label))
            return len(re.findall(known, self.user, re.I)) + self.rng.gauss(0, doubt)

        best = max(labels, key=fit)
        return best if self._bare() else self.rng.choice(ASIDES).format(x=best)

    def _json(self) -> str:
        told = re.search(KEYS.format("keys"), self.system, re.I)
        hinted = re.search(KEYS.format("keys|extract"), self.user, re.I)
        keys = re.split(r",? and |, ", found[1]) if (found := told or hinted) else ["answer"]
        odds = 0.95 if told else 0.4  # of a key by its right name
        named = (key if self.rng.random() < odds else f"{key}_value" for key in keys)
        reply = json.dumps({name: self._value(name) for name in named})
        return reply if self._bare() else f"Here it is:\n\n```json\n{reply}\n```\nAnything else?"

    def _value(self, key: str) -> str | float:
        sought = next(value for name, value in VALUES if re.search(name, key))
        found = re.search(sought, self.user.split("\n\n")[-1])
        value = found[0] if found else ""
        return float(value) if re.fullmatch(r"\d+(\.\d\d)?", value) else value


def _bounds(text: str, unit: str = "words") -> tuple[int, int] | None:
    """The least and the most that a text asks for: 'under 20 words' -> (10, 20)."""
    found = re.search(BOUNDS.format(unit), text, re.I)
    return (int(found[1] or int(found[2]) // 2), int(found[2])) if found else None


def judge(message: str, rng: Random) -> str:
    """A verdict as JSON; it likes answers with an example, no filler and a fair length."""
    said = ([block[2] for block in FENCED.finditer(message)] or [message])[-1].lower()
    found = {
        "no example": not re.search("example|analogy|imagine", said),
        "filler": any(line.lower() in said for line in (*OPENINGS, *FILLER)),
        "a poor length": not 15 <= len(said.split()) <= 160,
    }
    score = min(10.0, max(0.0, 9.0 - 2.2 * sum(found.values()) + rng.gauss(0, 0.5)))
    reason = ", ".join(fault for fault, there in found.items() if there) or "nothing to add"
    return json.dumps({"reason": reason, "score": round(score, 1)})
