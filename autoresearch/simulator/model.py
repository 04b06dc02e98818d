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

PLAIN = sentences(
    "unlike simpler methods, {t} can bring order to the whole problem. "
    "the idea behind {t} is to keep what belongs together close. "
    "the work is done once and the result is used many times. "
    "that can keep {t} quick even when there is a lot to handle. "
    "each part has one job and hands its result to the next. "
    "small cases do not need it, large ones gain the most. "
    "people turn to {t} where speed and quality both count. "
    "there are limits, and they should be known before starting. "
    "what comes in is put in its place at once. used with care, {t} will pay off in the end."
)
FILLER = sentences(
    "certainly, great question, this matters ever more in today's fast-paced world. "
    "overall, it plays a crucial role and is, in conclusion, a real game-changer. "
    "it is a powerful and efficient way to unlock various benefits. "
    "this cutting-edge approach is designed to leverage robust and essential features."
)
USUAL = {  # words that go with a label
    "billing": "charge|invoice|refund|pay|paid|card|price|fee|money|amount|twice|euro|dollar",
    "bug": "crash|error|broken|fail|freez|button|nothing|stop|since|wrong|reload|each time|another",
    "account": "log ?in|sign in|password|mail|profile|get into|delete|factor|address|phone",
    "question": "how do|is there|can two|can i|do you|which plan|what",
}
VALUES = (  # a part of a key, and what its values look like
    ("date", r"\d{1,2} \w+ \d{4}"),
    ("number", r"\b[A-Z]*-?\d[\w/-]*"),
    ("total", r"\d[\d.,']*[.,]\d\d\b"),
    ("currency", r"\b[A-Z]{3}\b|[€$£¥]"),
    ("", r"[A-Z]\w+(?: (?:& )?[A-Z][\w.]*)+|\w+"),
)
CODES = {"$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY"}
KEYS = re.compile(r"\b(?:keys:?|extract) ((?:\w+, )*\w+(?: and \w+)?)", re.I)
LABELS = re.compile(r"\bclassify .*? as ((?:[\w-]+, )*[\w-]+ or [\w-]+)", re.I)


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
        """What the model under test says: of many instructions it overlooks more than of few."""
        rules = sentences(system)
        chance = max(0.5, 0.97 - 0.015 * len(rules))
        told = " ".join(rule for rule in rules if rng.random() < chance)
        if "json" in (system + user).lower():
            answer = as_json(told, user)
        elif labels := LABELS.search(user):
            answer = label(listed(labels[1]), told, user, rng)
        else:
            return prose(told, user, rng)
        bare = re.search(r"\bonly\b|nothing else", told) or rng.random() < 0.2
        return answer if bare else f"Here it is:\n\n{answer}\n\nAnything else?"

    def _generator(self, system: str, user: str, temperature: float) -> Random:
        request = f"{self.seed}\0{system}\0{user}".encode("utf-8", "surrogatepass")
        key = blake2b(request, digest_size=8).digest()
        nth = 0
        if temperature > 0:
            with self._lock:
                self._seen[key] += 1
                nth = self._seen[key]
        return Random(int.from_bytes(key, "big") + nth)


def listed(text: str) -> list[str]:
    return re.split(", | and | or ", text)


def is_explained(name: str, told: str) -> bool:
    return f"{name} means" in told or "Answer:" in told


def prose(told: str, user: str, rng: Random) -> str:
    """Says more than enough, with filler in it, but for what it is told."""
    topic = " ".join(re.findall(r"\w{3,}", sentences(f"{user}.")[0])[-2:]) or "it"
    plain = [line.format(t=topic) for line in rng.sample(PLAIN, len(PLAIN))]
    wanted = re.findall(r"Mention ([^.]+)\.", told) + ["for example"] * ("example" in told)
    rng.shuffle(wanted)
    for place, phrase in enumerate(wanted, 1):
        plain[place % len(plain)] = f"{phrase}: {plain[place % len(plain)]}"
    if "filler" not in told:
        for line in rng.sample(FILLER, rng.randint(1, len(FILLER))):
            plain.insert(rng.randint(0, 4), line)
    avoided = [phrase.lower() for phrase in re.findall(r"Avoid ([^.]+)\.", told)]
    left, said = at_most("words", told, rng), list[str]()
    for line in plain[: at_most("sentences", told, rng)]:
        if left >= len(line.split()) and not any(phrase in line.lower() for phrase in avoided):
            said.append(line[0].upper() + line[1:])
            left -= len(line.split())
    return " ".join(said) or "Yes."


def at_most(unit: str, told: str, rng: Random) -> int:
    """How many words or sentences to write: 'Write 60-120 words.' -> 90."""
    found = re.search(rf"(?:(\d+)-)?(\d+) {unit}", told)
    return rng.randint(int(found[1] or found[2]), int(found[2])) if found else 999


def label(labels: Sequence[str], told: str, user: str, rng: Random) -> str:
    """The one whose usual words stand in the question; of those that are explained it is surer."""

    def fit(name: str) -> float:
        usual = re.findall(USUAL.get(name, re.escape(name)), user, re.I)
        return len(usual) + rng.gauss(0, 0.3 if is_explained(name, told) else 1.2)

    return max(labels, key=fit)


def as_json(told: str, user: str) -> str:
    """What looks most like each key's value; it is in the right form where that is explained."""
    named, text = KEYS.search(told), user.split("\n\n")[-1]
    keys = named or KEYS.search(user)
    values: dict[str, str | float] = {}
    for key in listed(keys[1]) if keys else ["answer"]:
        pattern = next(pattern for name, pattern in VALUES if name in key)
        value = max(reversed(re.findall(pattern, text)), key=len, default="")
        values[key if named else key.title()] = value
        if is_explained(key, told):
            money = re.fullmatch(VALUES[2][1], value)
            values[key] = int(re.sub(r"\D", "", value)) / 100 if money else CODES.get(value, value)
    return json.dumps(values, ensure_ascii=False)


def judge(message: str, rng: Random) -> str:
    """A verdict as JSON; it likes answers with an example, no filler and a fair length."""
    said = [block["text"] for block in FENCED.finditer(message)][-1].lower()
    found = {
        "no example": "example" not in said,
        "filler": any(line[1:] in said for line in FILLER),
        "too long": len(said.split()) > 120,
    }
    score = min(10.0, max(0.0, 9.0 - 2.2 * sum(found.values()) + rng.gauss(0, 0.5)))
    reason = ", ".join(fault for fault, there in found.items() if there) or "nothing to add"
    return json.dumps({"reason": reason, "score": round(score, 1)})
