"""What stands in a server's JSON: the text of an answer, its tokens, its numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from autoresearch.text import short


@dataclass(frozen=True)
class Completion:
    """One usable answer. `text` is never empty; token counts are None when the server gave none."""

    text: str
    finish_reason: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str
    reasoning: str = ""


def told(text: str) -> str:
    """What a server says, on one line of a message."""
    return short(text, 300)


def read_answer(data: Any, model: str) -> tuple[Completion, str]:
    """A 200's completion, and why it cannot be used, or ""."""
    usage = as_object(as_object(data).get("usage"))
    choices = as_object(data).get("choices")
    choice = as_object(choices[0] if isinstance(choices, list) and choices else None)
    message = as_object(choice.get("message"))
    finish = choice.get("finish_reason")
    finish = finish if isinstance(finish, str) and finish else "stop"
    text, thought, closed = _without_thinking(_text_of(message.get("content")))
    reasoning = thought or next(
        (r for k in ("reasoning_content", "reasoning") if isinstance(r := message.get(k), str)), ""
    )
    completion = Completion(
        text=text,
        finish_reason=finish,
        prompt_tokens=read_whole(usage.get("prompt_tokens")),
        completion_tokens=read_whole(usage.get("completion_tokens")),
        model=model,
        reasoning=reasoning,
    )
    refusal = message.get("refusal")
    if not choice:
        return completion, "no choices in the answer"
    if isinstance(refusal, str) and refusal and not text:
        return completion, f"the model refused: {told(refusal)}"
    if finish == "content_filter":
        return completion, "the server's content filter stopped the answer"
    if finish == "error":
        return completion, "the server broke off the answer with an error"
    if text and closed:
        return completion, ""
    if reasoning or not closed:
        return completion, (
            "it only thought and did not answer: raise max_tokens or switch thinking off, such as "
            """NEBIUS_EXTRA_BODY='{"reasoning_effort": "none"}' or """
            """'{"chat_template_kwargs": {"enable_thinking": false}}'"""
        )
    return completion, f"no text in the answer (finish_reason {told(finish)})"


def as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        parts = [p.get("text") if isinstance(p, dict) else p for p in content]
        return "".join(p for p in parts if isinstance(p, str))
    return content if isinstance(content, str) else ""


def _without_thinking(text: str) -> tuple[str, str, bool]:
    """The text after its <think> blocks, what they held, and whether every one was closed."""
    if "think>" not in text:
        return text.strip(), "", True
    thoughts = re.findall(r"<think>(.*?)</think>", text, re.S)
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.S)
    if "</think>" in text:  # its beginning was swallowed: all before it is thinking
        before, _, text = text.rpartition("</think>")
        thoughts.insert(0, before)
    text, unclosed, rest = text.partition("<think>")
    return text.strip(), "\n".join([*thoughts, rest]).strip(), not unclosed


def read_number(value: Any) -> float | None:
    """A finite number of at least 0 from a JSON number or string, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def read_whole(value: Any) -> int | None:
    number = read_number(value)
    return None if number is None else int(number)
