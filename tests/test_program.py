"""program.md as a person may write it, and what they are told when it cannot be used.

pytest tests/test_program.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from autoresearch.files.inputs import Input, ProgramError, fill
from autoresearch.files.program import Program, load_program

WHOLE = """\
# Goal

Sort mail.

## Task

Label: {input}

## Inputs

- free money => spam
- lunch at noon? => ham

## Held-out inputs

1. you have won => spam

## Criteria

- equals (weight 2): {expected}
- words: 1

## Baseline

You label mail.
"""


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def read(text: str | bytes) -> Program:
        path = Path("program.md")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_program(path)

    return read


def minimal(inputs: str = "", criteria: str = "", task: str = "Do it.") -> str:
    text = f"Goal.\n\n## Task\n{task}\n"  # the goal is line 1, the task line 4
    text += f"## Inputs\n{inputs}\n" if inputs else ""
    return text + (f"## Criteria\n{criteria}\n" if criteria else "")


def test_reads_a_whole_program(read):
    program = read(WHOLE)
    assert program.goal == "Sort mail."
    assert program.inputs == (Input("free money", "spam"), Input("lunch at noon?", "ham"))
    assert program.held_out == (Input("you have won", "spam"),)
    equals, words = program.criteria
    assert (equals.kind, equals.argument, equals.weight) == ("equals", "{expected}", 2.0)
    assert (words.label, words.weight, words.where) == ("words: 1", 1.0, "program.md:21")
    assert (program.baseline, program.text, program.name) == (
        "You label mail.",
        WHOLE,
        "program.md",
    )


def test_a_goal_and_a_task_are_enough(read):
    program = read("Be brief.\n\n## Task\nExplain.")
    assert program.inputs == (Input(""),)
    assert program.criteria == () and program.held_out == () and program.baseline == ""
    assert program.question(program.inputs[0]) == "Explain."


@pytest.mark.parametrize(
    "text",
    [
        WHOLE.replace("## Held-out inputs", "## HELD OUT INPUTS:"),
        WHOLE.replace("## Task", "# task ##"),
        WHOLE.replace("# Goal\n", ""),
        WHOLE.replace("\n", "\r\n"),
        WHOLE.replace("- ", "* "),
        WHOLE.replace("- words", "<!-- how long?\n- words: 9 -->\n- words"),
        WHOLE.encode("utf-8-sig"),
    ],
)
def test_forgives_how_it_is_written(read, text):
    assert read(text).digest("m", 0.7) == read(WHOLE).digest("m", 0.7)
    assert read(text).criteria_digest() == read(WHOLE).criteria_digest()
    assert read(text).goal == "Sort mail."


def test_a_title_belongs_to_the_goal(read):
    assert (
        read("# Mail for us\n\n## Goal\nSort it.\n## Task\nGo.").goal == "# Mail for us\n\nSort it."
    )


def test_headings_and_comments_in_code_blocks_are_text(read):
    program = read(minimal(task="Tidy this:\n```\n# Goal\n<!-- kept -->\n```"))
    assert program.task == "Tidy this:\n```\n# Goal\n<!-- kept -->\n```"


def test_a_prompt_in_a_code_block_may_have_headings(read):
    assert read(minimal() + "## Baseline\n```\n## Role\nPoet\n```").baseline == "## Role\nPoet"


def test_comments_vanish_and_lines_keep_their_numbers(read):
    text = minimal(criteria="<!-- one\ntwo -->\n- words <!-- wide -->: 1-9\n- nonsense")
    with pytest.raises(ProgramError, match="^program.md:9: expected 'kind: argument'"):
        read(text)


def test_an_input_may_have_several_lines(read):
    program = read(minimal("- first\n  second\n\n    third\n  => answer\n- other\n  - nested"))
    assert program.inputs == (
        Input("first\nsecond\n\n  third", "answer"),
        Input("other\n- nested"),
    )


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("x => x + 1 => valid", Input("x => x + 1", "valid")),
        (r"x \=> x + 1", Input("x => x + 1")),
        (r"what is \=>? => an arrow", Input("what is =>?", "an arrow")),
        ("is `a => b` valid?", Input("is `a => b` valid?")),
        ("a=>b", Input("a=>b")),
        ("naïve 漢字 => ja", Input("naïve 漢字", "ja")),
    ],
)
def test_the_last_arrow_divides(read, item, expected):
    assert read(minimal(f"- {item}")).inputs == (expected,)


def test_the_input_follows_a_task_that_has_no_place_for_it(read):
    program = read(minimal("- a cat", task='Reply as {"label": ...}.'))
    assert program.question(program.inputs[0]) == 'Reply as {"label": ...}.\n\na cat'


def test_fills_in_one_pass_and_leaves_other_braces():
    given = Input("{expected} {0}", "{input}")
    assert fill('{"a": {input}, {expected}, {b}}', given) == '{"a": {expected} {0}, {input}, {b}}'


def test_reads_inputs_from_files(read, tmp_path):
    (tmp_path / "a.csv").write_text(
        'Input,expected,id\n"red, round",apple,1\n"two\nlines","",2\n', "utf-8-sig"
    )
    (tmp_path / "b.jsonl").write_text(
        '{"input": "long", "expected": {"n": 1}}\n\n{"input": "short\u2028"}\n', "utf-8"
    )
    assert read(minimal("- file: a.csv\n- pear => pear\n- file: b.jsonl")).inputs == (
        Input("red, round", "apple"),
        Input("two\nlines"),
        Input("pear", "pear"),
        Input("long", '{"n": 1}'),
        Input("short"),
    )


def test_the_digest_covers_what_a_file_holds_not_its_name(read, tmp_path):
    digests = []
    for name, content in (("a", "input\nx\n"), ("b", "input\nx\n"), ("b", "input\ny\n")):
        (tmp_path / f"{name}.csv").write_text(content)
        digests.append(read(minimal(f"- file: {name}.csv")).digest("m", 0.7))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nx,y\n", "a.csv:1: expected the columns input,expected"),
        ("a.csv", "input,expected\nx,y\n,z\n", "a.csv:3: no input"),
        ("a.csv", "input,expected\nx,y,z\n", "a.csv:2: more cells than the header"),
        ("a.csv", 'input\n"x\n', "a.csv:2: not CSV"),
        ("a.csv", "input\n", "a.csv: no inputs .named at program.md:6"),
        ("a.csv", "", "a.csv: is empty"),
        ("a.jsonl", '{"input": "x"}\n{oops}\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", '["x"]', "a.jsonl:1: expected"),
        ("a.jsonl", '{"input": null}', "a.jsonl:1: no input"),
        ("a.jsonl", '{"input": "x"}\n{"input": "x"}', "a.jsonl:2: the same input .* a.jsonl:1"),
        ("a.txt", "x", "program.md:6: expected a .csv or .jsonl file"),
    ],
)
def test_names_the_row_of_a_file_that_is_wrong(read, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ProgramError, match=message):
        read(minimal(f"- file: {name}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "program.md: is empty"),
        (" \n", "program.md: is empty"),
        ("Größe".encode("latin-1"), "program.md: not UTF-8 at byte 2; save it as UTF-8"),
        (WHOLE.encode("utf-16"), "not UTF-8"),
        (WHOLE.encode("utf-16-le"), "not UTF-8"),
        ("## Task\nGo.", "program.md: no goal"),
        ("Only a goal.", "program.md: no task"),
        ("Goal.\n## Task\n", "program.md: no task"),
        ("Goal.\n\n## Taks\nGo.", "program.md:3: unknown section 'Taks' .did you mean 'Task'"),
        ("# Gaol\nx\n## Task\nGo.", "program.md:1: unknown section 'Gaol' .did you mean 'Goal'"),
        ("Goal.\n## Notes\nx", "program.md:2: unknown section 'Notes'; known: Goal, Task, Inputs"),
        (minimal() + "## Task\nAgain.", "program.md:5: section 'Task' stands already at program"),
        (minimal() + "```\nopen", "program.md:5: ``` is opened here and never closed"),
        (minimal() + "<!-- open", "program.md:5: <!-- is opened here and never closed"),
        (minimal() + "## Inputs\n\n", "program.md:5: nothing under ## Inputs"),
        (minimal() + "## Criteria\n", "program.md:5: nothing under ## Criteria"),
        (minimal("some text"), "program.md:6: expected a list item such as '- text', found 'some"),
        (minimal("- a\nb"), "program.md:7: expected a list item"),
        (minimal("-"), "program.md:6: expected text after the list marker"),
        (minimal("- a =>"), "program.md:6: expected 'input => expected answer'"),
        (minimal("- a\n- b\n- a"), "program.md:8: the same input stands already at program.md:6"),
        (minimal("- a") + "## Held-out inputs\n- a", "program.md:8: the same input stands already"),
        (minimal(task="See {input}."), "program.md:3: this task needs inputs"),
        (minimal() + "## Held-out inputs\n- a", "program.md:3: this task needs inputs"),
        (minimal("- a => b", task="{expected}!"), "program.md:3: {expected} in the task"),
        (
            minimal(criteria="- words 60"),
            "program.md:6: expected 'kind: argument' or 'kind .weight",
        ),
        (minimal(criteria="- words:"), "program.md:6: nothing after 'words:'"),
        (minimal(criteria="- words: 1-9\n- words:  1-9"), "program.md:7: the same criterion"),
        (minimal(criteria="- equals: {expected}"), "program.md:6: {expected} needs inputs"),
        (
            minimal().replace("Do it.", "Do {Inputs}."),
            "{Inputs} is no placeholder; did you mean {input}?",
        ),
        (
            minimal("- a => b\n- c", "- equals: {expected}"),
            "program.md:9: .* there is none for 'c'",
        ),
    ],
)
def test_says_what_is_wrong_and_where(read, text, message):
    with pytest.raises(ProgramError, match=message):
        read(text)


@pytest.mark.parametrize("task", ["Fill {{ input }}.", "An {unexpected} one.", 'Give {"key": 1}.'])
def test_other_braces_are_left_alone(read, task):
    assert read(minimal(task=task)).task == task


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e999", "two", "", "1e-300"])
def test_a_weight_is_a_positive_number(read, weight):
    with pytest.raises(ProgramError, match="program.md:6: expected a positive number"):
        read(minimal(criteria=f"- words (weight {weight}): 1-9"))


def test_a_remark_that_is_no_weight_is_refused(read):
    with pytest.raises(ProgramError, match=r"found \(important\)"):
        read(minimal(criteria="- words (important): 1-9"))


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(ProgramError, match="nowhere.md: not found"):
        load_program(tmp_path / "nowhere.md")
    with pytest.raises(ProgramError, match="cannot be read"):
        load_program(tmp_path)


def digests(program: Program) -> tuple[str, str]:
    return program.digest("m", 0.7), program.criteria_digest()


def test_each_digest_covers_its_part(read):
    asked, scored = digests(read(WHOLE))
    assert digests(read(WHOLE.replace("Sort mail", "Sort it"))) == (asked, scored)
    assert digests(read(WHOLE.replace("you have won", "you lost")))[0] == asked
    assert digests(read(WHOLE.replace("You label", "Label")))[0] == asked
    for change in (("Label: ", "Tag: "), ("free money", "cash")):
        assert digests(read(WHOLE.replace(*change)))[0] != asked
    for change in (
        ("words: 1", "words: 2"),
        ("weight 2", "weight 3"),
        ("noon? => ham", "noon? => x"),
    ):
        assert digests(read(WHOLE.replace(*change)))[0] == asked
        assert digests(read(WHOLE.replace(*change)))[1] != scored
    assert read(WHOLE).digest("other", 0.7) != asked != read(WHOLE).digest("m", 0.8)


@pytest.mark.parametrize("criteria", ["", "- judge: goal"])
def test_a_judged_goal_is_part_of_both_digests(read, criteria):
    one, other = read(minimal(criteria=criteria)), read("Else" + minimal(criteria=criteria))
    assert digests(one)[0] != digests(other)[0] and digests(one)[1] != digests(other)[1]


def test_an_answer_that_a_judge_is_shown_is_part_of_what_was_asked(read):
    one, other = (read(minimal(f"- a => {x}", "- judge: Right?")) for x in "bc")
    assert one.digest("m", 0.7) != other.digest("m", 0.7)


PIECES = st.sampled_from(
    ["# Goal", "## Task", "## Inputs", "## Criteria", "## Baseline", "## Held-out inputs", "```"]
    + [
        "- a => b",
        "- words (weight 2): 1-9",
        "- file: x.csv",
        "<!--",
        "-->",
        "{input}",
        "  =>",
        "-",
    ]
)


@settings(deadline=None)
@drawn(st.lists(PIECES | st.text(), max_size=30))
def test_any_text_is_read_or_refused(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.md"
    path.write_bytes("\n".join(lines).encode(errors="replace"))
    try:
        program = load_program(path)
    except ProgramError as error:
        assert "\n" not in str(error)
    else:
        assert program.goal and program.task and program.inputs
        assert len(program.digest("m", 0.7)) == len(program.criteria_digest()) == 12


@settings(deadline=None)
@drawn(st.binary(max_size=200), st.sampled_from(["csv", "jsonl"]))
def test_any_file_of_inputs_is_read_or_refused(tmp_path_factory, content, ending):
    folder = tmp_path_factory.getbasetemp()
    (folder / f"any.{ending}").write_bytes(b"input,expected\n" * (ending == "csv") + content)
    (folder / "files.md").write_text(minimal(f"- file: any.{ending}"))
    try:
        assert load_program(folder / "files.md").inputs
    except ProgramError as error:
        assert f"any.{ending}" in str(error)
