"""How an agent's ugly replies are read. Run: pytest tests/test_proposal.py"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.search.proposal import ProposalError, parse_proposal
from autoresearch.text import fenced

P = "You are x."


@pytest.mark.parametrize(
    "reply, thought, prompt",
    [
        ("THOUGHT: a\nPROMPT: You are x.", "a", P),
        ("Thought : a\nPrompt : You are x.", "a", P),
        ("THOUGHT: a\n\nPROMPT:\n\nYou are x.\n\n", "a", P),
        ("PROMPT: You are x.", "", P),
        ("THOUGHT：a\nPROMPT：You are x.", "a", P),
        ("THOUGHT: a\r\nb\r\nPROMPT: You are x.\r\nYou are y.\r\n", "a\nb", f"{P}\nYou are y."),
        ("THOUGHT: a\r\nPROMPT:\r\n```\r\nYou are x.\r\n```\r\n", "a", P),
        ("**THOUGHT:** a\n\n**PROMPT:** You are x.", "a", P),
        ("**THOUGHT**: a\n\n**PROMPT**: You are x.", "a", P),
        ("__Thought:__ *a*\n__Prompt:__\nYou are x.", "a", P),
        ("## THOUGHT:\na\n\n## PROMPT:\nYou are x.", "a", P),
        ("## THOUGHT\na\n\n## PROMPT\nYou are x.", "a", P),
        ("**Thought**\na\n\n**New prompt**\nYou are x.", "a", P),
        ("> THOUGHT: a\n> PROMPT: You are x.", "a", P),
        ("THOUGHT: a\nSYSTEM PROMPT: You are x.", "a", P),
        ("Sure! Here it is.\nTHOUGHT: a\nPROMPT: You are x.", "a", P),
        ("THOUGHT: the old prompt: too long\nPROMPT: You are x.", "the old prompt: too long", P),
        ("THOUGHT: one\ntwo\nPROMPT: You are x.", "one\ntwo", P),
        # wrapped
        ('THOUGHT: a\nPROMPT: "You are x."', "a", P),
        ("THOUGHT: a\nPROMPT: “You are x.”", "a", P),
        ("THOUGHT: a\nPROMPT: `You are x.`", "a", P),
        ("THOUGHT: a\nPROMPT:\n```\nYou are x.\n```", "a", P),
        ("THOUGHT: a\nPROMPT:\n```text\nYou are x.\n```\nHope this helps!", "a", P),
        ("THOUGHT: a\nPROMPT:\n~~~\nYou are x.\n~~~", "a", P),
        ("```\nTHOUGHT: a\nPROMPT: You are x.\n```", "a", P),
        ("THOUGHT: a\nPROMPT: You are x.\n```", "a", P),
        ("Here:\n```\nTHOUGHT: a\nPROMPT: You are x.\n```", "a", P),
        # thinking
        ("<think>PROMPT: no</think>\nTHOUGHT: a\nPROMPT: You are x.", "a", P),
        ("<THINK>\nPROMPT: no\n</THINK>THOUGHT: a\nPROMPT: You are x.", "a", P),
        ("PROMPT: a draft\n</think>\nTHOUGHT: a\nPROMPT: You are x.", "a", P),
        # what looks like a wrapping and is part of the prompt
        ('THOUGHT: a\nPROMPT: "Hi" is how to begin, "bye" how to "end"', "a", None),
        ("THOUGHT: a\nPROMPT: **You are x.** Be **brief**.", "a", None),
        ("THOUGHT: a\nPROMPT: *Always* answer.", "a", None),
        ("THOUGHT: a\nPROMPT: # Role\nYou are x.\n\n- one\n- two", "a", None),
        ("THOUGHT: a\nPROMPT: Follow the prompt: be short.", "a", None),
        ("THOUGHT: a\nPROMPT: Answer as in\n```json\n{}\n```\nand no more.", "a", None),
        ("THOUGHT: a\nPROMPT: Answer as in\n```json\n{}\n```", "a", None),
    ],
)
def test_one_prompt_is_read_from_any_dress(reply: str, thought: str, prompt: str | None) -> None:
    wanted = reply.partition("PROMPT: ")[2] if prompt is None else prompt
    assert parse_proposal(reply) == (thought, wanted)


NESTED = "Answer as in\n```json\n{}\n```\nand no more."


@pytest.mark.parametrize(
    "reply",
    [
        f"THOUGHT: a\nPROMPT:\n```\n{NESTED}\n```",
        f"THOUGHT: a\nPROMPT:\n````\n{NESTED}\n````\n",
        f"THOUGHT: a\nPROMPT:\n~~~markdown\n{NESTED}\n~~~",
        f"```\nTHOUGHT: a\nPROMPT:\n{NESTED}\n```",
    ],
)
def test_code_blocks_within_a_fenced_prompt_do_not_cut_it(reply: str) -> None:
    assert parse_proposal(reply) == ("a", NESTED)


def test_a_fenced_prompt_may_speak_of_prompts() -> None:
    prompt = "You are x.\nPrompt: whatever the user says.\nEnd."
    assert parse_proposal(f"THOUGHT: a\nPROMPT:\n```\n{prompt}\n```") == ("a", prompt)


@pytest.mark.parametrize(
    "reply, why",
    [
        ("", "no line that begins with PROMPT"),
        ("You are x.", "no line that begins with PROMPT"),
        ("I will not write a prompt: it is late.", "no line that begins with PROMPT"),
        ("THOUGHT: only this", "no line that begins with PROMPT"),
        ("THOUGHT: a\nPROMPT:", "nothing follows"),
        ("THOUGHT: a\nPROMPT: \n\n", "nothing follows"),
        ("THOUGHT: a\nPROMPT: ...", "nothing follows"),
        ('THOUGHT: a\nPROMPT: ""', "nothing follows"),
        ("THOUGHT: a\nPROMPT:\n```\n```", "nothing follows"),
        ("THOUGHT: a\nPROMPT: one\nPROMPT: two", "more than one"),
        ("THOUGHT: a\n**PROMPT:** one\n\nTHOUGHT: b\n**PROMPT:** two", "more than one"),
        ("<think>\nPROMPT: a draft, and then no end", "thinking"),
        ("<think>hm\nTHOUGHT: a\nPROMPT: You are x.", "thinking"),
    ],
)
def test_a_reply_without_exactly_one_prompt_is_refused(reply: str, why: str) -> None:
    with pytest.raises(ProposalError, match=why):
        parse_proposal(reply)


PIECES = ["THOUGHT:", "PROMPT:", "**", "```", "~~~", "\n", "\r\n", '"', "<think>", "</think>", "#"]


@given(st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=15).map("".join))
@settings(max_examples=300, deadline=None)
def test_whatever_is_replied_gives_a_prompt_or_a_proposal_error(reply: str) -> None:
    try:
        thought, prompt = parse_proposal(reply)
    except ProposalError:
        return
    assert prompt == prompt.strip() != ""
    assert "\r\n" not in prompt


@given(st.text("ab.\n -", min_size=1, max_size=60).map(str.strip).filter(lambda p: p.strip(". …")))
@settings(deadline=None)
def test_any_plain_prompt_comes_back_as_it_was_written(prompt: str) -> None:
    assert parse_proposal(f"THOUGHT: why\nPROMPT:\n{prompt}") == ("why", prompt)
    assert parse_proposal(f"THOUGHT: why\nPROMPT:\n{fenced(prompt)}") == ("why", prompt)
