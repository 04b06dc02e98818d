"""What the simulated model says: it depends on seed, request and how often that came before."""

import json
import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import count
from random import Random

from autoresearch.simulator.agent import Agent, sentences

CRITERION = re.compile(r"^- (words|sentences|mentions|matches|avoids|json): (.+) \(weight", re.M)
ADVICE = {"words": "Write {} words.", "sentences": "Write {} sentences.", "avoids": "Avoid {}."}
AROUND = re.compile(r"\\\w|/\w*$|[^\w' -]")  # the words of a pattern
COMMON = sentences(
    "Give one concrete example. Use plain words and no filler. Start with the main point. "
    "Be thorough and comprehensive. You are a world-class expert. Be friendly and warm. "
    "Think step by step. Reply with only the answer. Take your time. Stay factual."
)
PLAIN = sentences(
    "unlike simpler methods, {t} can bring order to the whole problem. the idea behind {t} is to "
    "keep what belongs together close. the work is done once and the result is used many times. "
    "that can keep {t} quick even when there is a lot to handle. each part has one job and hands "
    "its result to the next. small cases do not need it, large ones gain the most. people turn to "
    "{t} where speed and quality both count. there are limits, and they should be known at once."
)
FILLER = sentences(
    "certainly, great question, this matters ever more in today's fast-paced world. overall, it "
    "plays a crucial role and is, in conclusion, a real game-changer. it is a powerful and "
    "efficient approach, designed to unlock various benefits with robust and essential features."
)
KNOWN = {  # words that go with a label, or what the value of a key looks like
    "billing": "charge|refund|pay|paid|card|price|fee|money|amount|twice|euro|dollar",
    "bug": "crash|error|broken|fail|button|nothing|stop|since|wrong|reload|each time|another",
    "account": "log ?in|sign in|password|mail|profile|get into|delete|factor|address|phone",
    "question": "how do|is there|can two|can i|do you|which plan|what",
    "number": r"\b[A-Z]*-?\d[\w/-]*",
    "total": r"\d[\d.,']*[.,]\d\d\b",
    "currency": r"\b[A-Z]{3}\b",
}
ASKED = re.compile(r"(?:classify .*? as|extract) ((?:[\w-]+, )*[\w-]+ (?:or|and) [\w-]+)", re.I)


class World:
    """Plays all three roles. Thread-safe; the order of different requests does not matter."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._numbers: dict[bytes, Iterator[int]] = {}

    def complete(self, system: str, user: str, temperature: float = 0.7) -> str:
        request = f"{self.seed}\0{system}\0{user}".encode("utf-8", "surrogatepass")
        key = blake2b(request, digest_size=8).digest()
        nth = next(self._numbers.setdefault(key, count(1))) if temperature > 0 else 0
        rng = Random(int.from_bytes(key, "big") + nth)
        message = f"{system}\n\n{user}"
        if "THOUGHT:" in message and "PROMPT:" in message:
            return Agent(message, self.vocabulary(message, rng), rng).propose()
        if '"score"' in message:
            return judge(message, rng)
        return self.answer(system, user, rng)

    def vocabulary(self, message: str, rng: Random) -> Sequence[str]:
        """Sentences to build prompts from: common ones, and what the criteria suggest."""
        found = list(COMMON)
        for kind, text in CRITERION.findall(message):
            for group in text.split(","):
                words = AROUND.sub(" ", rng.choice(group.replace("?", "").split("|"))).split()
                found.append(ADVICE.get(kind, "Mention {}.").format(" ".join(words)))
        return found

    def answer(self, system: str, user: str, rng: Random) -> str:
        """What the model under test says: of many instructions it overlooks more than of few."""
        rules = sentences(system)
        chance = max(0.1, 0.97 - 0.02 * len(rules))
        told = " ".join(rule for rule in rules if rng.random() < chance)
        asked = ASKED.search(user)
        if asked is None:
            return prose(told, user, rng)
        kind = as_json if "json" in user.lower() else label
        answer = kind(re.split(", | and | or ", asked[1]), told, user, rng)
        bare = re.search(r"\bonly\b|nothing else", told) or rng.random() < 0.2
        return answer if bare else f"Here it is:\n\n{answer}\n\nAnything else?"


def prose(told: str, user: str, rng: Random) -> str:
    """Says what it is told to mention, in plain sentences and, unless told better, in others."""
    topic = " ".join(re.findall(r"\w{3,}", sentences(f"{user}.")[0])[-2:]) or "it"
    lines = [line.format(t=topic) for line in PLAIN]
    phrases = re.findall(r"Mention ([^.]+)\.", told) + ["for example"] * ("example" in told)
    for place, phrase in enumerate(rng.sample(phrases, len(phrases))):
        lines[place % len(lines)] = f"{phrase}: {lines[place % len(lines)]}"
    if "filler" not in told:
        lines += rng.sample(FILLER, rng.randint(1, len(FILLER)))
    rng.shuffle(lines)
    avoided = re.findall(r"avoid ([^.]+)\.", told.lower())
    lines = [line for line in lines if not any(phrase in line.lower() for phrase in avoided)]
    most = {unit: int(number) for number, unit in re.findall(r"(\d+) (words|sentences)", told)}
    text = " ".join(line[0].upper() + line[1:] for line in lines[: most.get("sentences")])
    return " ".join(text.split()[: most.get("words")]) or "Yes."


def label(names: Sequence[str], told: str, user: str, rng: Random) -> str:
    """The one whose words stand in the question; it errs less with examples, or step by step."""
    doubt = 0.4 if re.search("Answer:|step by step", told) else 1.2
    found = {name: len(re.findall(KNOWN.get(name, name), user, re.I)) for name in names}
    return max(names, key=lambda name: found[name] + rng.gauss(0, doubt))


def as_json(names: Sequence[str], told: str, user: str, rng: Random) -> str:
    """What looks most like the value of each name, which is a key as it stands where it is told."""
    values: dict[str, str | float] = {}
    for name in names:
        found = re.findall(KNOWN.get(name, r"[A-Z]\w+(?: (?:& )?[A-Z][\w.]*)+"), user)
        value = max(reversed(found), key=len, default="")
        key = name if name in told or rng.random() < 0.3 else name.title()
        values[key] = int("0" + re.sub(r"\D", "", value)) / 100 if name == "total" else value
    return json.dumps(values, ensure_ascii=False)


def judge(message: str, rng: Random) -> str:
    """A verdict as JSON; it likes answers with an example and without filler."""
    said = message.rpartition("Response to judge:")[2].lower()
    faults = ["filler"] * any(line in said for line in FILLER)
    faults += ["no example"] * ("example" not in said)
    score = round(9 - 2.5 * len(faults) + rng.uniform(-1, 1), 1)
    return json.dumps({"reason": ", ".join(faults) or "nothing to add", "score": score})
