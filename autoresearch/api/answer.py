"""What a server's answer says: the JSON in it, however wrapped, and the `Completion` in that."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from autoresearch.text import mended, short

ONLY_THOUGHT = """it only thought and did not answer: raise max_tokens or switch thinking off, \
such as NEBIUS_EXTRA_BODY='{"reasoning_effort": "none"}' or \
'{"chat_template_kwargs": {"enable_thinking": false}}'"""
CUT = re.compile("length|max|trunc|limit|incomplete", re.IGNORECASE)  # why an answer ended
FILTERED = re.compile("filter|safety|sensitive|block|refus|recitation", re.IGNORECASE)
THOUGHT = re.compile("think|thought|reason|analysis", re.IGNORECASE)  # the type of a part
THINK = re.compile(
    r"(?i)([<\[\u25c1]\|?/?(?:\w{1,20}:)?think ?\|?[>\]\u25b7]"
    r"|<\|?(?:begin|start|end)_(?:of_)?(?:think(?:ing)?|thought)\|?>)"
)
WORD = re.compile(
    r"(?i)[<\[]\|?(/?)(?:\w{1,20}:)?"
    r"(?:thinking|thoughts?|reasoning|reflection|scratchpad|inner_monologue) ?\|?[>\]]"
)
AROUND = re.compile(r"(?i)<\|(?:begin|start|end)_(?:of_)?(?:solution|response)\|>")
told = partial(short, limit=300)  # what a server says, on one line of a message


@dataclass(eq=False)
class MayPass(Exception):
    """Worth asking again later."""

    what: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    setup: bool = False  # a wrong setting looks like this too
    late: bool = False  # the time for an answer was over
    alone: bool = False  # it may be this request that the server fails at, and no other
    wait: float = 0.0  # seconds, as the gate decides

    def __str__(self) -> str:
        return self.what


class Unusable(Exception):
    """The server answered and billed, but not with text that can be used."""


@dataclass(frozen=True)
class Completion:
    """One usable answer. `text` is never empty; token counts are None when the server gave none."""

    text: str
    finish_reason: str  # "length" where it was cut off, whatever the server calls that
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str
    reasoning: str = ""
    seconds: float = 0.0  # of the exchange, without waits and earlier attempts


def read_json(text: str) -> Any:
    """The JSON of a body, also with comment lines before it, `data: [DONE]` after it, or as a
    stream of events, whose parts are joined; None where none is whole."""
    for read in (json.loads, _read_lines):
        with suppress(ValueError, RecursionError):
            return read(text)
    return None


def _read_lines(text: str) -> Any:
    """The answer that events make up, None where it broke off; or JSON between other lines."""
    lines = [line.strip() for line in text.split("\n")]
    events = [line[5:].strip() for line in lines if line.startswith("data:")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    if not chunks:
        rest = [line for line in lines if not line.startswith((":", "event:", "id:", "data:"))]
        return json.loads("\n".join(rest))
    whole: dict[str, Any] = {}
    parts = defaultdict[str, list[str]](list)
    finish = None
    for chunk in map(as_object, chunks):
        if error_in(chunk):
            return chunk
        choice = first_choice(chunk)
        whole |= {name: value for name, value in chunk.items() if value is not None}
        finish = choice.get("finish_reason") or finish
        for name, value in as_object(choice.get("delta") or choice.get("message")).items():
            parts[name].append(_text_of(value))
    message = {name: "".join(texts) for name, texts in parts.items()}
    if len(chunks) == len(events) and not finish:
        return None  # it broke off
    return {**whole, "choices": [{"message": message, "finish_reason": finish}]}


def as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def first_choice(data: Any) -> dict[str, Any]:
    choices = as_object(data).get("choices")
    return as_object(choices[0] if isinstance(choices, list) and choices else None)


def error_in(data: Any) -> Any:
    """The error that a body reports in one of the ways seen in the field, else nothing."""
    data = as_object(data)
    base = as_object(data.get("base_resp"))
    if data.get("object") == "error" or data.get("success") is False:
        return data
    return base if base.get("status_code") else data.get("error") or first_choice(data).get("error")


def tokens(data: Any) -> tuple[int | None, int | None]:
    """Tokens of the prompt and of the answer, as billed."""
    usage = as_object(as_object(data).get("usage"))
    prompt, output = map(read_number, map(usage.get, ("prompt_tokens", "completion_tokens")))
    return None if prompt is None else int(prompt), None if output is None else int(output)


def read_answer(data: Any, model: str, seconds: float = 0.0) -> Completion:
    """A 200's completion; raises Unusable, and MayPass where it is no answer at all."""
    data, choice = as_object(data), first_choice(data)
    message = as_object(choice.get("message"))
    names = ("finish_reason", "native_finish_reason", "stop_reason", "done_reason")
    said = [where.get(name) for where in (choice, data) for name in names]
    ends = [end for end in said if isinstance(end, str) and end] or ["stop"]
    cut = any(map(CUT.search, ends)) or choice.get("truncated") is True
    finish = "length" if cut else ends[0]
    text, thought, closed = without_reasoning(mended(_text_of(message.get("content"))))
    apart = (message.get(name) for name in ("reasoning_content", "reasoning"))
    reasoning = thought or next((mended(r) for r in apart if isinstance(r, str)), "")
    if (refusal := message.get("refusal")) and isinstance(refusal, str) and not text:
        raise Unusable(f"the model refused: {told(refusal)}")
    if FILTERED.search(finish):
        raise Unusable("the server's content filter stopped the answer")
    if finish == "error":
        raise MayPass("the server broke off the answer with an error", alone=True)
    if not closed or (not text and (reasoning or finish == "length")):
        raise Unusable(ONLY_THOUGHT)
    if not text:
        raise MayPass(f"no text in the answer (finish_reason {told(finish)})", alone=True)
    return Completion(text, finish, *tokens(data), model, reasoning, seconds)


def _text_of(content: Any) -> str:
    """The text of a message's content, without parts that hold reasoning."""
    if isinstance(content, list):
        parts = [as_object(part) or {"text": part} for part in content]
        texts = [p.get("text") for p in parts if not THOUGHT.search(str(p.get("type")))]
        content = "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def without_reasoning(text: str) -> tuple[str, str, bool]:
    """The text without what stands in tags of reasoning, what stood there, and whether all closed.

    <think>, [THINK] and their like are no words that people write: they count anywhere. <thinking>,
    <reasoning> ... may be what a prompt speaks of: they count where the text begins with them.
    """
    if "<|channel|>" in text:  # of which `final` is the answer
        parts: dict[bool, list[str]] = {True: [], False: []}
        for part in text.split("<|channel|>"):
            name, _, said = part.partition("<|message|>")
            said = re.split(r"<\|(?:end|return|start|call)\|>", said, maxsplit=1)[0]
            parts[name.strip().startswith("final")].append(said.strip())
        thought = "\n".join(filter(None, parts[False]))
        return "\n".join(parts[True]).strip(), thought, bool(parts[True])
    if text.startswith("analysis") and "assistantfinal" in text:  # the same, its marks lost
        thought, _, text = text.partition("assistantfinal")
        return text.strip(), thought.removeprefix("analysis").strip(), True
    if (first := WORD.search(text)) and (first[1] or not text[: first.start()].strip()):
        close = next((tag for tag in WORD.finditer(text) if tag[1]), None)
        ends = close.end() if close else len(text)
        text = WORD.sub(r"<\1think>", text[:ends]) + text[ends:]
    before, *rest = THINK.split(text)
    outside, inside, opened = [before], list[str](), False
    for tag, part in zip(rest[::2], rest[1::2], strict=True):
        closes = "/" in tag or "end_" in tag.lower()
        if closes and not opened:  # its beginning was swallowed: all before it is thinking
            inside += outside
            outside = []
        opened = not closes
        (inside if opened else outside).append(part)
    thought = "\n".join(part for part in inside if part.strip())
    return AROUND.sub("", "".join(outside)).strip(), thought.strip(), not opened


def read_number(value: Any) -> float | None:
    """A finite number of at least 0 from a JSON number or string, else None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < math.inf and not isinstance(value, bool) else None
