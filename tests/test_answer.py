"""What stands in a server's answer: wrapped JSON, reasoning, truncation, text.

Run: pytest tests/test_answer.py
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from autoresearch.api.answer import MayPass, Unusable, read_answer, read_json, without_reasoning
from tests.servers import answer

REASONED = {
    "<think>hm</think>fine",
    "[THINK]hm[/THINK]fine",
    "<Think>\nhm\n</Think>\n\nfine",
    "<thought>hm</thought>fine",
    " <thinking>hm</thinking> fine",
    "<REASONING>hm</REASONING>fine",
    "<mm:think>hm</mm:think>fine",
    "<seed:think>hm</seed:think>fine",
    "\u25c1think\u25b7hm\u25c1/think\u25b7fine",
    "<|begin_of_thought|>hm<|end_of_thought|>fine",
    "<|START_THINKING|>hm<|END_THINKING|>fine",
    "<think >hm</think >fine",
    "<|think|>hm<|/think|>fine",
    "<scratchpad>hm</scratchpad>fine",
    "<|begin_of_thought|>hm<|end_of_thought|><|begin_of_solution|>fine<|end_of_solution|>",
    "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>fine<|END_RESPONSE|>",
    "hm</think>fine",
    "hm</thinking>\nfine",
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>fine",
    "<|channel|>analysis<|message|>hm<|end|><|channel|>final<|message|>fine<|return|>",
    "analysishmassistantfinalfine",
}


@pytest.mark.parametrize("text", sorted(REASONED))
def test_reasoning_is_taken_off_in_every_tag(text: str) -> None:
    assert without_reasoning(text) == ("fine", "hm", True)


@pytest.mark.parametrize(
    "tag", ["<think>", "[THINK]", "<thinking>", "<mm:think>", "<|channel|>analysis<|message|>"]
)
def test_reasoning_that_never_ends_is_no_answer(tag: str) -> None:
    with pytest.raises(Unusable, match="only thought"):
        read_answer(answer(f"{tag}hm, fine"), "m")


@pytest.mark.parametrize(
    "text",
    [
        "Write your reasoning in <thinking> tags, then the answer.",
        "First <thinking>...</thinking>, then <answer>...</answer>.",
        "A [thought] and <reasoning> are words.",
    ],
)
def test_a_tag_that_a_prompt_speaks_of_is_no_reasoning(text: str) -> None:
    assert without_reasoning(text) == (text, "", True)


@pytest.mark.parametrize("tag", ["<think>", "[THINK]", "<thinking>", "</think>", "<x:thought>"])
def test_thousands_of_tags_take_no_time(tag: str) -> None:
    began = time.process_time()
    without_reasoning(tag * 32_768)
    without_reasoning("x" + tag * 32_768)
    without_reasoning((tag + "</think>") * 16_384)
    assert time.process_time() - began < 0.6


@pytest.mark.parametrize(
    "choice",
    [
        {"finish_reason": name}
        for name in ("length", "max_tokens", "MAX_TOKENS", "model_length", "incomplete")
    ]
    + [
        {"finish_reason": "stop", "native_finish_reason": "MAX_TOKENS"},
        {"finish_reason": None, "stop_reason": "max_tokens"},
        {"truncated": True},
    ],
)
def test_truncation_is_truncation_under_any_name(choice: dict[str, Any]) -> None:
    data = {"choices": [{"message": {"content": "half"}, **choice}]}
    assert read_answer(data, "m").finish_reason == "length"


def test_an_end_of_any_other_name_is_none() -> None:
    for name in ("stop", "eos_token", "stop_sequence", "COMPLETE", None):
        assert read_answer(answer("fine", name), "m").finish_reason != "length"


def test_parts_of_reasoning_are_no_text() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "reasoning", "text": "hm"},
        {"type": "text", "text": "fi"},
        "ne",
    ]
    assert read_answer(answer(parts), "m").text == "fine"


WHOLE = json.dumps(answer())
CHUNKS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"delta": {"content": "fi"}}]},
    {"choices": [{"delta": {"content": "ne", "reasoning_content": "hm"}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}},
]
STREAM = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS)


@pytest.mark.parametrize(
    "text",
    [
        WHOLE + "\n\ndata: [DONE]\n\n",
        ": processing\n\n: processing\n\n" + WHOLE,
        f"data: {WHOLE}\n\n",
        STREAM,
        ": ping\n\n" + STREAM + "data: [DONE]\n\n",
        STREAM.replace("data:", "event: message\nid: 3\ndata:").replace("\n", "\r\n"),
    ],
)
def test_an_answer_however_wrapped_is_read(text: str) -> None:
    found = read_answer(read_json(text), "m")
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("fine", 7, 5)


@pytest.mark.parametrize(
    "text", ["", "{", STREAM[:60], "".join(STREAM.partition("\n\n")[:2]), "data: [DONE", "[" * 9999]
)
def test_half_an_answer_is_none(text: str) -> None:
    assert read_json(text) is None


def test_an_error_within_a_stream_is_the_answer() -> None:
    error = {"error": {"message": "overloaded", "code": 503}}
    assert read_json(STREAM[:100].partition("\n\n")[0] + f"\n\ndata: {json.dumps(error)}") == error


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_kept() -> None:
    data = json.loads(json.dumps(answer("a \ud83d b \U0001f600", reasoning="\udc00")))
    found = read_answer(data, "m")
    assert (found.text, found.reasoning) == ("a \ufffd b \U0001f600", "\ufffd")


def test_an_empty_answer_may_pass_and_may_be_this_request_alone() -> None:
    with pytest.raises(MayPass, match="no text") as caught:
        read_answer(answer(""), "m")
    assert caught.value.alone
