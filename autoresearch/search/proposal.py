"""A proposal: read from an agent's reply, or made from the inputs without one."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.search.history import History

LABELS = 12  # different expected answers, of so many
LABEL_LENGTH = 40  # characters at most, that a prompt may list
EXAMPLES = 5  # pairs at most that a prompt shows
PAIR = 2_000  # characters of an input and its answer that make an example
WORDS = 4  # at least, of a whole reply that may be a prompt
REFUSAL = re.compile(r"(i'?m |i am )?(sorry|unable)|i (can'?t|cannot|won'?t|will not)\b", re.I)
ECHO = re.compile(  # words of the agent's message that stand in no prompt of its own
    "complete new system prompt|new system prompt itself|no label no explanation"
    "|change and why it should score higher|you improve system prompts by experiment"
    "|write the best system prompt you can|change it where it loses points|reply again with thought"
    "|join what makes each strong|another approach than all above|that reply could not be used"
    "|may not earn its place|the leader loses points|prompt repeats an earlier one"
    r"|how an answer is scored|score \d+ \d\d (?:\d+ samples|missed)"
    r"|\A(?:(?:an?|here|improved|insert|my|new|revised|system|the|your) )*prompt(?: goes| here)*\Z"
)
SHOWN = "Examples:\n\nInput: "


class ProposalError(Exception):
    """No usable prompt came after all tries, `reply` the last of them: spoils this experiment."""

    def __init__(self, message: str, reply: str = "") -> None:
        super().__init__(message)
        self.reply = reply


@dataclass(frozen=True)
class Proposal:
    strategy: str
    thought: str
    prompt: str


# No run of blanks or marks may be cut in two ways: a pattern must be linear in a hostile reply.
LABEL = r"^[ \t>#*_`]*{}[ \t]*(?:[*_`]+[ \t]*)?(?:[:：][*_]*|$)"
THOUGHT_LABEL = re.compile(LABEL.format("THOUGHT"), re.IGNORECASE | re.MULTILINE)
PROMPT_LABEL = re.compile(LABEL.format("(?:(?:NEW|IMPROVED|FINAL|SYSTEM) )*PROMPT"), re.I | re.M)
FENCED = re.compile(r"\A(`{3,}|~{3,})(?![`~])[^\n`]*\n(.*)(?<=\n)[ \t]*\1[ \t]*(?:\n|\Z)", re.S)
FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})([^\n`]*)$", re.MULTILINE)
QUOTES = ('""', "''", "“”", "«»", "``")


def parse_proposal(reply: str, whole: bool = False) -> tuple[str, str]:
    """The thought and the prompt in a reply; raises ProposalError where there is not one prompt.
    With `whole` a reply that does not keep to the form is the prompt, where it can be one."""
    reply = reply.replace("\r\n", "\n").strip()
    fence = FENCED.match(reply)
    inner = fence[2] if fence else reply
    reply = _from_json(inner) or (inner if PROMPT_LABEL.search(inner) else reply)
    thought = THOUGHT_LABEL.search(reply)
    label = PROMPT_LABEL.search(reply, thought.end() if thought else 0)
    last = label or thought
    given = reply[last.end() :] if last else reply
    if not label and not (whole and len(given.split()) >= WORDS and not REFUSAL.match(given)):
        raise ProposalError("it has no line that begins with PROMPT:")
    prompt = _unwrapped(given)
    if not prompt.strip(". …"):
        raise ProposalError("nothing follows PROMPT:")
    if PROMPT_LABEL.search(prompt) and not FENCED.match(given.strip()):
        raise ProposalError("it holds more than one PROMPT:")
    if ECHO.search(" ".join(re.findall(r"\w+", prompt.casefold()))):
        raise ProposalError("it repeats the words of the form instead of a prompt")
    told = reply[thought.end() : label.start()].strip(" \t\n*_`") if thought and label else ""
    return told, prompt


def _from_json(reply: str) -> str:
    """The form that was asked for, from a JSON object with a prompt in it; "" from any other."""
    try:
        found = {key.casefold(): value for key, value in json.loads(reply).items()}
    except (ValueError, RecursionError, AttributeError):
        return ""
    prompts = [value for key, value in found.items() if "prompt" in key and isinstance(value, str)]
    return f"THOUGHT: {found.get('thought', '')}\nPROMPT: {prompts[0]}" if prompts else ""


def _unwrapped(prompt: str) -> str:
    """A prompt without the code fence or the quotes that surround the whole of it; raises
    ProposalError where a fence is left open, for then it was cut off."""
    if fence := FENCED.match(prompt := prompt.strip()):
        prompt = fence[2].strip()
    opened: re.Match[str] | None = None
    for found in FENCE.finditer(prompt):
        closes = opened and found[1].startswith(opened[1]) and not found[2].strip()
        opened = None if closes else opened or found
    if opened and "\n" in prompt[opened.start() :]:
        raise ProposalError("a code fence in it never ends")
    if opened:  # the end of a fence around more than the prompt
        prompt = prompt[: opened.start()].strip()
    ends = prompt[:1] + prompt[-1:]
    if ends in QUOTES and not set(ends) & set(prompt[1:-1]):
        return prompt[1:-1].strip()
    return prompt


def form_of_answer(inputs: Sequence[Input]) -> str:
    """A sentence that states the form of the expected answers: labels or JSON; "" for any other."""
    different = list(dict.fromkeys(given.expected or "" for given in inputs))
    with suppress(ValueError, RecursionError, AttributeError):  # no JSON, or no object
        keys = dict.fromkeys(key for answer in different for key in json.loads(answer).keys())
        if named := ", ".join(list(keys)[: 2 * LABELS]):
            return f"Reply with one JSON object and nothing else. Its keys: {named}."
    short = all(0 < len(answer) <= LABEL_LENGTH and "\n" not in answer for answer in different)
    if short and 2 <= len(different) <= LABELS and len(different) < len(inputs):
        return f"Reply with exactly one of these and nothing else: {', '.join(different)}."
    return ""


def without_agent(
    program: Program, history: History, strategy: str, number: int
) -> Proposal | None:
    """The proposal of a strategy that needs no agent."""
    leader = history.leader.prompt if history.leader else program.baseline
    if strategy == "carry over":
        return Proposal(strategy, "the best prompt of the series before", history.inherited or "")
    if strategy == "format":
        prompt = f"{leader}\n\n{form_of_answer(program.inputs)}".strip()
        return Proposal(strategy, "the form of the answer", prompt)
    if strategy == "examples":
        prompt = with_examples(leader, program.pool, number)
        return Proposal(strategy, "examples from the data", prompt)
    return None


def with_examples(prompt: str, pool: Sequence[Input], number: int) -> str:
    """The prompt with input-answer pairs from the pool in place of those that it has; which and how
    many follows from the iteration's number."""
    draw = Random(number)
    fitting = [given for given in pool if len(given.text) + len(given.expected or "") <= PAIR]
    chosen = draw.sample(fitting or pool, min(draw.randint(2, EXAMPLES), len(fitting or pool)))
    pairs = "\n\nInput: ".join(f"{given.text}\nAnswer: {given.expected}" for given in chosen)
    return f"{prompt.partition(SHOWN)[0].rstrip()}\n\n{SHOWN}{pairs}".strip()
