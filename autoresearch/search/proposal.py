"""A proposal, and how it is read from an agent's reply."""

from __future__ import annotations

import re
from dataclasses import dataclass


class ProposalError(Exception):
    """No usable prompt came after all tries: spoils this experiment."""


@dataclass(frozen=True)
class Proposal:
    strategy: str
    thought: str
    prompt: str


LABEL = r"^[ \t>#*_`]*{}[ \t]*[*_`]*[ \t]*(?:[:：][*_]*|$)"
THOUGHT_LABEL = re.compile(LABEL.format("THOUGHT"), re.IGNORECASE | re.MULTILINE)
PROMPT_LABEL = re.compile(LABEL.format("(?:SYSTEM |NEW )?PROMPT"), re.IGNORECASE | re.MULTILINE)
FENCED = re.compile(r"\A(`{3,}|~{3,})[^\n`]*\n(.*)(?<=\n)[ \t]*\1[ \t]*(?:\n|\Z)", re.DOTALL)
QUOTES = {'"': '"', "'": "'", "“": "”", "«": "»", "`": "`"}


def parse_proposal(reply: str) -> tuple[str, str]:
    """The thought and the prompt in a reply; raises ProposalError where there is not one prompt."""
    reply = re.split("</think>", reply, flags=re.IGNORECASE)[-1].replace("\r\n", "\n").strip()
    if reply.lower().startswith("<think>"):
        raise ProposalError("its thinking never ends")
    if (whole := FENCED.match(reply)) and PROMPT_LABEL.search(whole[2]):
        reply = whole[2]
    thought = THOUGHT_LABEL.search(reply)
    labels = list(PROMPT_LABEL.finditer(reply, thought.end() if thought else 0))
    if not labels:
        raise ProposalError("it has no line that begins with PROMPT:")
    prompt = unwrapped(reply[labels[0].end() :])
    if not prompt.strip(". …"):
        raise ProposalError("nothing follows PROMPT:")
    if PROMPT_LABEL.search(prompt) and not FENCED.match(reply[labels[0].end() :].strip()):
        raise ProposalError("it holds more than one PROMPT:")
    return (reply[thought.end() : labels[0].start()].strip(" \t\n*_`") if thought else ""), prompt


def unwrapped(prompt: str) -> str:
    """A prompt without the code fence or the quotes that surround the whole of it."""
    prompt = prompt.strip()
    if fence := FENCED.match(prompt):
        prompt = fence[2].strip()
    prompt = (
        re.sub(r"\n[ \t]*(?:`{3,}|~{3,})[ \t]*\Z", "", prompt)
        if prompt.count("```") == 1
        else prompt
    )
    if len(prompt) > 1 and QUOTES.get(prompt[0]) == prompt[-1]:
        inner = prompt[1:-1]
        prompt = inner if prompt[0] not in inner and prompt[-1] not in inner else prompt
    return prompt.strip()
