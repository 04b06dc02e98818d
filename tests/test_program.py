"""program.md as a person may write it, and what they are told when it cannot be used.

pytest tests/test_program.py
"""

from __future__ import annotations

import dataclasses
import json
import time
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
        WHOLE.replace("## Task", "   ## Task").replace("## Inp", " ## Inp"),
        WHOLE.replace("# Goal\n", ""),
        WHOLE.replace("\n", "\r\n"),
        WHOLE.replace("- ", "* "),
        WHOLE.replace("- words", "<!-- how long?\n- words: 9 -->\n- words"),
        WHOLE.encode("utf-8-sig"),
    ],
)
def test_forgives_how_it_is_written(read, text):
    assert read(text).digests("m", 0.7)[-1] == read(WHOLE).digests("m", 0.7)[-1]
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,label\nx,y\n", "a.csv:1: no column input in text,label; "),
        ("a.csv", "input,expected\nx,y\n,z\n", "a.csv:3: no input"),
        ("a.csv", "input,expected\nx,y,z\n", "a.csv:2: more cells than the header"),
        ("a.csv", 'input\n"x\n', "a.csv:2: not CSV: .*; close every quote"),
        ("a.csv", "input\n", "a.csv: no inputs .named at program.md:6"),
        ("a.csv", ";;\n;;\n", "a.csv:1: no column input in ;;; "),
        ("a.csv", "", "a.csv: is empty"),
        ("a.jsonl", '{"input": "x"}\n{oops}\n', "a.jsonl:2: not JSON"),
        ("a.jsonl", '["x"]', "a.jsonl:1: expected"),
        ("a.jsonl", '{"input": null}', "a.jsonl:1: no input"),
        (
            "a.jsonl",
            '{"input": 1}\n{"input": 1, "expected": 2}',
            "jsonl:2: .* answer at a.jsonl:1",
        ),
        ("a.json", '[{"input": 1}, {"input": " "}]', "a.json: row 2: no input in this row"),
        ("a.json", "[1]", "a.json: row 1: expected"),
        ("a.json", '[\n{"input": 1},\n]', "a.json:3: not JSON"),
        ("a.csv", 'id,input\n1,"long\ncell"\n2,\n', "a.csv:4: no input in this row"),
        ("a.txt", "x", "program.md:6: expected a .csv, .json or .jsonl file"),
    ],
)
def test_names_the_row_of_a_file_that_is_wrong(read, tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ProgramError, match=message):
        read(minimal(f"- file: {name}"))


def test_a_column_that_was_named_and_is_not_there_is_told(read, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,y\n")
    with pytest.raises(ProgramError, match="a.csv:1: no column lable in text, label; name yours"):
        read(minimal("- file: a.csv (input: text, expected: lable)", "- equals: {expected}"))


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
        (minimal("- a => b\n- a => c"), "program.md:7: the same input has another answer at"),
        (minimal() + "##Inputs\n- a", "program.md:5: a blank is missing: write '## Inputs'"),
        (minimal() + "## Inputs: all\n- a", "program.md:5: unknown section 'Inputs: all'"),
        (minimal(task="See {input}."), "program.md:3: this task needs inputs"),
        (minimal() + "## Held-out inputs\n- a", "program.md:3: this task needs inputs"),
        (minimal("- a => b", task="{expected}!"), "program.md:3: {expected} in the task"),
        (
            minimal(criteria="- words 60"),
            "program.md:6: expected 'kind: argument' or 'kind .weight",
        ),
        (minimal(criteria="- words:"), "program.md:6: nothing after 'words:'"),
        (minimal(criteria="- words: 1-9\n- words:  1-9"), "program.md:7: the same criterion"),
        (minimal(criteria="- equals: {expected}"), "or the column expected of a file; "),
        (minimal(criteria="- It must be polite."), "judge it: '- judge: It must be polite.'"),
        (
            minimal().replace("Do it.", "Do {Inputs}."),
            r"{Inputs} is no placeholder: write {input}, or in the task \\{Inputs}",
        ),
        (
            minimal("- a => b\n- c", "- equals: {expected}"),
            "program.md:9: .* there is no answer at .*program.md:7",
        ),
    ],
)
def test_says_what_is_wrong_and_where(read, text, message):
    with pytest.raises(ProgramError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("task", "inputs"),
    [
        ("An {unexpected} one.", ""),
        ('Give {"key": 1}, [1], <b>, $5, {1, 2}.', "- a"),
        ("Sort <input>{input}</input> as {label}.", "- a"),
    ],
)
def test_other_braces_are_left_alone(read, task, inputs):
    program = read(minimal(inputs, task=task))
    assert program.question(program.inputs[0]).startswith(task.replace("{input}", "a"))


@pytest.mark.parametrize(
    "spelled",
    ["{{input}}", "{{ input }}", "${input}", "[[input]]", "{Input}", "{ input }", "{inputs}"]
    + ["%(input)s", "<input>", "{text}", "{{review}}", "${mail}", "{0}", "{INPUT}"]
    + ["{{{input}}}", "$input", "%input%", "[INPUT]"],
)
def test_another_spelling_of_a_placeholder_is_refused_unless_it_is_meant(read, spelled):
    with pytest.raises(ProgramError) as error:
        read(minimal("- a cat", task=f"Sort this: {spelled}"))
    assert str(error.value).startswith(
        f"program.md:3: {spelled} is no placeholder: write {{input}}"
    )
    assert f"\\{spelled}" in str(error.value)
    program = read(minimal("- a cat", task=f"Write \\{spelled} for {{input}} and \\{{input}}."))
    assert program.question(program.inputs[0]) == f"Write {spelled} for a cat and {{input}}."
    program = read(minimal("- a cat", task=f"Write \\{spelled}."))
    assert program.question(program.inputs[0]) == f"Write {spelled}.\n\na cat"


@pytest.mark.parametrize("spelled", ["{{expected}}", "{{ expected }}", "${expected}", "{Expected}"])
def test_another_spelling_in_a_criterion_is_refused(read, spelled):
    with pytest.raises(ProgramError, match="program.md:8: .* is no placeholder: write {expected}"):
        read(minimal("- a => b", f"- equals: {spelled}"))


@pytest.mark.parametrize("word", ["expected", "<expected>", "[Expected]", "{label}"])
def test_the_bare_word_expected_is_told(read, word):
    program = read(minimal("- a => b", f"- equals: {word}\n- words: 1"))
    (notice,) = program.notices
    assert notice.startswith(f"program.md:8: 'equals: {word}' asks for that word; ")


@pytest.mark.parametrize(
    "text", ["It costs $5, 5% [sic] of $total", "[input] $input: {input}", "$x}"]
)
def test_signs_that_are_no_placeholder_stay(read, text):
    program = read(minimal("- a cat", task=text))
    assert program.question(program.inputs[0]).startswith(text.replace("{input}", "a cat"))


@pytest.mark.parametrize("text", ["File: the report is late", "file: lost => no", r"\file: a.csv"])
def test_an_input_may_begin_like_a_file(read, text):
    (given,) = read(minimal(f"- {text}")).inputs
    assert given == Input(*text.removeprefix("\\").split(" => "))


def test_a_comment_mark_in_code_or_a_pattern_is_text(read):
    text = minimal(
        "- why `<!--`? <!-- none -->\n- x", "- matches (weight 2): /<!--\\/a/i <!-- b/ -->"
    )
    program = read(text)
    assert [given.text for given in program.inputs] == ["why `<!--`?", "x"]
    assert program.criteria[0].argument == r"/<!--\/a/i"


def test_an_item_that_does_not_reach_the_text_above_is_its_sibling(read):
    inputs = read(minimal("- a\n - b\n   - of b\n- c\n  - of c\n10. d\n  - e")).inputs
    assert [given.text for given in inputs] == ["a", "b\n- of b", "c\n- of c", "d", "e"]


EXCEL = '\ufeff\r\nInput;Expected;;\r\nI paid 1,50 twice;billing;;\r\n;;;\r\n"a;b";bug;;\r\n'


@pytest.mark.parametrize(
    ("name", "content", "inputs"),
    [
        ("a.csv", EXCEL, [("I paid 1,50 twice", "billing"), ("a;b", "bug")]),
        ("a.csv", "sep=;\n" + EXCEL[3:], [("I paid 1,50 twice", "billing"), ("a;b", "bug")]),
        ("a.csv", 'EXPECTED\t"Input"\nyes\ta, b\n', [("a, b", "yes")]),
        ("a.csv", ",,\ninput,expected\na,b\n,\n,,,\nc\n", [("a", "b"), ("c", None)]),
        ("a.csv", f"input\n{'x' * 150_000}\n", [("x" * 150_000, None)]),
        ("a.csv", 'Input\nI paid 1,50; twice\n"a, b"\n', [("I paid 1,50; twice",), ("a, b",)]),
        ("a.json", '[{"Input": "a", "expected": 2}, {"input": [1]}]', [("a", "2"), ("[1]",)]),
        ("a.jsonl", '{"input": "a \\ud83d", "expected": "\\ud83d\\ude42"}', [("a \ufffd", "🙂")]),
    ],
)  # fmt: skip
def test_rows_are_read_as_excel_and_others_write_them(read, tmp_path, name, content, inputs):
    (tmp_path / name).write_bytes(content.encode())
    assert read(minimal(f"- file: {name}")).inputs == tuple(Input(*each) for each in inputs)


def test_other_columns_can_be_named(read, tmp_path):
    (tmp_path / "my mails (1).csv").write_text("id;Text;Label\n7;hi;ham\n")
    (tmp_path / "b.jsonl").write_text('{"Text": "yo", "Label": "spam"}')
    item = "- file: my mails (1).csv (Input: text, expected: LABEL)\n- File: b.jsonl (input: text)"
    assert read(minimal(item)).inputs == (Input("hi", "ham"), Input("yo"))
    for wrong in ("(text)", "(input: )", "(in: text)"):
        with pytest.raises(ProgramError, match="program.md:6: expected .input: column, expected"):
            read(minimal(f"- file: b.jsonl {wrong}"))
    with pytest.raises(ProgramError, match=r"no column input in id;text;label; name.*'- file: my"):
        read(minimal("- file: my mails (1).csv"))


def test_samples_of_openai_evals_read_as_they_are(read, tmp_path):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    more = [*turns, {"role": "assistant", "content": "4"}, {"role": "user", "content": "Sure?"}]
    samples = [
        {"input": turns, "ideal": "4"},
        {"messages": more, "ideal": ["yes", "Yes"]},
        {"input": "plain", "ideal": 5},
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
    assert read(minimal("- file: samples.jsonl")).inputs == (
        Input("2 + 2?", "4"),
        Input("user: 2 + 2?\n\nassistant: 4\n\nuser: Sure?", "yes"),
        Input("plain", "5"),
    )


def test_repeats_count_once_and_are_told_in_one_line(read, tmp_path):
    (tmp_path / "a.csv").write_text("input,expected\na,1\nb,2\na,1\na,1\n")
    program = read(minimal("- file: a.csv") + "## Held-out inputs\n- b => 2\n- c => 3")
    assert program.inputs == (Input("a", "1"), Input("b", "2"))
    assert program.held_out == (Input("c", "3"),)
    (notice,) = program.notices
    assert notice.endswith("3 left out; a.csv:4 repeats a.csv:2")


def rows(count: int, label: str = " => x") -> str:
    return "\n".join(f"- input number {n}{label}" for n in range(count))


def test_a_third_of_twelve_labelled_inputs_is_held_out_unless_told_otherwise(read):
    for text in (minimal(rows(11)), minimal(rows(40, ""))):
        assert (read(text).held_out, read(text).set_aside, read(text).notices) == ((), 0, ())
    program = read(minimal(rows(300)))
    assert 80 <= len(program.held_out) == program.set_aside <= 120
    assert f"{program.set_aside} of the 300 inputs are held out" in program.notices[0]
    for count in range(12, 40):
        assert len(read(minimal(rows(count))).held_out) >= 2
    for off in (
        "## Held-out inputs: none",
        "## Held-out inputs\nNone\n",
        "## Held-out inputs\n- none",
    ):
        program = read(minimal(rows(12)) + off)
        assert (len(program.inputs), program.held_out, program.set_aside) == (12, (), 0)
    assert read(minimal(rows(12)) + "## Held-out inputs\n- b => x").held_out == (Input("b", "x"),)


def test_rows_that_are_added_move_no_other_out_of_the_search(read):
    few = read(minimal(rows(100)))
    many = read(
        minimal(f"{rows(150)}\n- first => y").replace("## Inputs\n", "## Inputs\n- top => x\n")
    )
    assert set(few.held_out) <= set(many.held_out)
    assert set(few.inputs) <= set(many.inputs)
    assert set(few.pool) <= set(many.pool)


def test_a_tenth_of_twenty_labelled_search_inputs_is_a_pool_of_examples(read):
    assert read(minimal(rows(19)) + "## Held-out inputs: none").pool == ()
    for count, least, most in ((20, 5, 7), (300, 20, 40)):
        program = read(minimal(rows(count)) + "## Held-out inputs: none")
        assert least <= len(program.pool) <= most
        assert len(program.inputs) + len(program.pool) == count
        assert not set(program.pool) & set(program.inputs)
    assert read(minimal(rows(60, ""))).pool == ()


def test_ten_thousand_rows_load_in_under_a_second(read, tmp_path):
    lines = [f"{n},{'some words of a mail ' * 10},{n % 7}" for n in range(10_000)]
    (tmp_path / "a.csv").write_text("\n".join(["id,text,label", *lines]))
    (tmp_path / "b.jsonl").write_text(
        "\n".join(json.dumps({"input": line, "expected": "x"}) for line in lines)
    )
    for item in ("a.csv (input: id, expected: label)", "b.jsonl"):
        started = time.process_time()
        program = read(minimal(f"- file: {item}", "- equals: {expected}"))
        program.digests("m", 0.7)[-1]
        assert time.process_time() - started < 1
        assert len(program.rows) == 10_000


@pytest.mark.parametrize("weight", ["0", "-1", "nan", "inf", "1e999", "two", "", "1e-300"])
def test_a_weight_is_a_positive_number(read, weight):
    for remark in (f"weight {weight}".strip(), f"important{weight}"):
        with pytest.raises(ProgramError) as error:
            read(minimal(criteria=f"- words ({remark}): 1-9"))
        assert str(error.value).startswith("program.md:6: expected a positive number")
        assert f"found ({remark})" in str(error.value)


def test_a_missing_file_or_folder_is_named(tmp_path):
    with pytest.raises(ProgramError, match="nowhere.md: cannot be read: no such"):
        load_program(tmp_path / "nowhere.md")
    with pytest.raises(ProgramError, match="cannot be read"):
        load_program(tmp_path)


def digests(program: Program) -> tuple[str, str]:
    return program.digests("m", 0.7)[-1], program.criteria_digest()


def test_each_digest_covers_its_part(read):
    asked, scored = digests(read(WHOLE))
    assert digests(read(WHOLE.replace("Sort mail", "Sort it"))) == (asked, scored)
    assert digests(read(WHOLE.replace("you have won", "you lost")))[0] == asked
    assert digests(read(WHOLE.replace("You label", "Label")))[0] == asked
    assert digests(read(WHOLE.replace("free money", "cash")))[0] == asked
    assert digests(read(WHOLE.replace("Label: ", "Tag: ")))[0] != asked
    for change in (
        ("words: 1", "words: 2"),
        ("weight 2", "weight 3"),
        ("noon? => ham", "noon? => x"),
    ):
        assert digests(read(WHOLE.replace(*change)))[0] == asked
        assert digests(read(WHOLE.replace(*change)))[1] != scored
    assert read(WHOLE).digests("other", 0.7)[-1] != asked != read(WHOLE).digests("m", 0.8)[-1]


def test_records_of_the_version_that_counted_in_the_inputs_belong_to_the_series(read):
    text = minimal(rows(60), "- judge: Right?")
    whole = read(text)
    assert whole.set_aside and whole.pool
    as_before = dataclasses.replace(
        read(text + "## Held-out inputs: none"), inputs=whole.rows, pool=(), rows=whole.rows
    )
    assert whole.digests("m", 0.7)[0] == as_before.digests("m", 0.7)[0]


def test_the_source_of_a_python_criterion_is_part_of_how_it_was_scored(read, tmp_path):
    text = minimal(criteria="- python: marks.py:mark")
    with pytest.raises(
        ProgramError, match="marks.py: cannot be read: no such.*named at program.md:6"
    ):
        read(text)
    scored = []
    for source in ("a = 1", "a = 1", "a = 2"):
        (tmp_path / "marks.py").write_text(source)
        program = read(text)
        assert program.criteria[0].source == source
        scored.append(program.criteria_digest())
    assert scored[0] == scored[1] != scored[2]


@pytest.mark.parametrize("criteria", ["", "- judge: goal"])
def test_a_judged_goal_is_part_of_both_digests(read, criteria):
    one, other = read(minimal(criteria=criteria)), read("Else" + minimal(criteria=criteria))
    assert digests(one)[0] != digests(other)[0] and digests(one)[1] != digests(other)[1]


def test_an_answer_that_a_judge_is_shown_is_part_of_what_was_asked(read):
    one, other = (read(minimal(f"- a => {x}", "- judge: Right?")) for x in "bc")
    assert one.digests("m", 0.7)[-1] not in other.digests("m", 0.7)
    more = read(minimal("- a => b\n- d\n- e => f", "- judge: Right?"))
    assert one.digests("m", 0.7)[-1] in more.digests("m", 0.7)  # rows were added


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
        assert len(program.digests("m", 0.7)[-1]) == len(program.criteria_digest()) == 12


@settings(deadline=None)
@drawn(st.binary(max_size=200), st.sampled_from(["csv", "jsonl", "json"]))
def test_any_file_of_inputs_is_read_or_refused(tmp_path_factory, content, ending):
    folder = tmp_path_factory.getbasetemp()
    (folder / f"any.{ending}").write_bytes(b"input,expected\n" * (ending == "csv") + content)
    (folder / "files.md").write_text(minimal(f"- file: any.{ending}"))
    try:
        assert load_program(folder / "files.md").inputs
    except ProgramError as error:
        assert f"any.{ending}" in str(error)
