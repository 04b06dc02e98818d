"""How an agent's ugly replies are read. Run: pytest tests/test_proposal.py"""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoresearch.files.inputs import Input
from autoresearch.search.proposal import (
    EXAMPLES,
    ProposalError,
    form_of_answer,
    parse_proposal,
    with_examples,
)
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
        ("THOUGHT: a\n**Improved System Prompt:** You are x.", "a", P),
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
        ("THOUGHT: a\nPROMPT: Answer as in\n```json\n{", "never ends"),
        ("THOUGHT: a\nPROMPT:\n```\nYou are x. You", "never ends"),
        ("THOUGHT: a\nPROMPT:\n````\nAs in\n```\nx\n```\nand", "never ends"),
        ("THOUGHT: a\nPROMPT: <prompt>", "words of the form"),
        ("THOUGHT: a\nPROMPT: [your new system prompt here]", "words of the form"),
        ("PROMPT: That reply could not be used: it holds more than one.", "words of the form"),
        ("PROMPT: Reply again with THOUGHT: and PROMPT: only.", "words of the form"),
    ],
)
def test_a_reply_without_exactly_one_prompt_is_refused(reply: str, why: str) -> None:
    with pytest.raises(ProposalError, match=why):
        parse_proposal(reply)


PIECES = ["THOUGHT:", "PROMPT:", "**", "```", "~~~", "\n", "\r\n", '"', "json", "#"]


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


@pytest.mark.parametrize(
    "hostile",
    [
        "PROMPT" + " " * 40_000 + "x",
        "PROMPT" + "* " * 20_000 + "x",
        "THOUGHT" + "\t" * 40_000 + "x\nPROMPT: You are x.",
        "#" * 40_000 + "x\nPROMPT: You are x.",
        "~" * 40_000 + "\nPROMPT: You are x.",
        "`" * 40_000 + "\nPROMPT: You are x.",
        "PROMPT:\n" + "```\n" * 20_000,
        "PROMPT:\n~~~" + "~ \n" * 20_000,
        "PROMPT:\n" * 20_000,
    ],
)
def test_hostile_replies_are_read_in_linear_time(hostile: str) -> None:
    started = time.thread_time()
    with suppress(ProposalError):
        parse_proposal(hostile)
    assert time.thread_time() - started < 0.5


# ---- made from the inputs


def labelled(*answers: str | None) -> list[Input]:
    return [Input(f"input {n}", answer) for n, answer in enumerate(answers)]


@pytest.mark.parametrize(
    "answers, named",
    [
        (["yes", "no", "yes"], "exactly one of these and nothing else: yes, no."),
        (['{"a": 1}', '{"b": 2, "a": 0}'], "one JSON object and nothing else. Its keys: a, b."),
        (["5", "42", "17"], ""),  # no two alike: these are no labels
        (["yes", "no", None], ""),
        (["yes", "yes"], ""),
        (["a long answer that " * 4, "no", "no"], ""),
        (['{"a": 1}', "[1]", "[1]"], "nothing else"),
        ([None], ""),
    ],
)
def test_the_form_of_the_answers_is_stated_where_they_have_one(
    answers: list[str | None], named: str
) -> None:
    form = form_of_answer(labelled(*answers))
    assert named in form and bool(named) == bool(form)


def test_examples_come_from_the_pool_another_choice_each_time() -> None:
    pool = labelled(*"abcdefgh")
    prompts = [with_examples("Be kind.", pool, number) for number in range(20)]
    assert len(set(prompts)) > 15
    for prompt in prompts:
        assert prompt.startswith("Be kind.\n\nExamples:\n\nInput: input ")
        assert 2 <= prompt.count("\nAnswer: ") <= EXAMPLES
    assert with_examples("Be kind.", pool, 3) == with_examples("Be kind.", pool, 3)


def test_new_examples_replace_the_old_and_need_no_prompt() -> None:
    pool = labelled(*"abcdefgh")
    once = with_examples("Be kind.", pool, 1)
    assert with_examples(once, pool, 2) == with_examples("Be kind.", pool, 2)
    assert with_examples("", pool, 1).startswith("Examples:")


def test_an_endless_input_is_no_example_where_there_are_others() -> None:
    pool = [*labelled("a", "b", "c"), Input("long " * 10_000, "d")]
    assert all("long" not in with_examples("p", pool, number) for number in range(20))
    assert "long" in with_examples("p", pool[3:], 1)


@pytest.mark.parametrize("reply", ["{}", "```json\n{}\n```\n"])
def test_a_reply_in_json_gives_the_prompt_that_it_holds(reply):
    held = '{"THOUGHT": "shorter", "system_prompt": "Answer in one word.\\nNo more."}'
    assert parse_proposal(reply.replace("{}", held)) == ("shorter", "Answer in one word.\nNo more.")


def test_a_whole_reply_may_bear_the_wrong_label():  # as a real model of half a billion weights does
    said = "THOUGHT: The model should label reviews by their last sentence."
    assert parse_proposal(said, whole=True)[1] == said.removeprefix("THOUGHT: ")
    with pytest.raises(ProposalError):
        parse_proposal(said)
