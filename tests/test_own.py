"""The kind `python`: what a file of one's own may do, and what it may not do to the night.

pytest tests/test_own.py
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autoresearch.criteria import by_rule, check_criteria, own
from autoresearch.criteria.kind import ScoreError
from autoresearch.files.inputs import Input, ProgramError
from autoresearch.files.program import Criterion, Program, load_program
from tests.test_criteria import HERE

GIVEN = Input("q", "a")


def criterion(folder, source, name="check"):
    return Criterion("python", f"own.py:{name}", 1, f"{folder / 'program.md'}:7", source)


def mark(folder, source, response="yes", given=GIVEN):
    return by_rule(criterion(folder, source), given, response)


def test_a_function_gets_response_expected_and_input(tmp_path):
    source = (
        "def check(response, expected, input):\n    return 0.5, f'{response} {expected} {input}'"
    )
    assert mark(tmp_path, source) == (0.5, "yes a q")
    assert mark(tmp_path, source, given=Input("\u00e4\n")) == (0.5, "yes None \u00e4")


@pytest.mark.parametrize(("result", "value"), [("1", 1), ("0.25", 0.25), ("True", 1), ("False", 0)])
def test_what_it_returns_is_the_mark(tmp_path, result, value):
    assert mark(tmp_path, f"def check(*given): return {result}") == (value, "")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return 1.01", "own.py:1: ValueError: it returned 1.01, expected a number from 0 to 1"),
        ("return -0.1, 'x'", "own.py:1: ValueError: it returned "),
        ("return float('nan')", "own.py:1: ValueError: it returned nan, expected"),
        ("return '1'", "own.py:1: ValueError: it returned '1', expected"),
        ("return None", "own.py:1: ValueError: it returned None, expected"),
        ("\n x = 1\n return x / 0", "own.py:3: ZeroDivisionError: division by zero"),
        ("\n import json\n return json.loads('{')", "own.py:3: JSONDecodeError: "),
        ("raise SystemExit(3)", "own.py:1: SystemExit: 3"),
        ("return check(*given)", "own.py:1: RecursionError: "),
        ("import os; os._exit(0)", "own.py: check took over 10 s, or ended its process"),
    ],
)
def test_what_goes_wrong_is_no_mark_and_names_file_and_line(tmp_path, body, problem):
    with pytest.raises(ScoreError) as raised:
        mark(tmp_path, f"def check(*given): {body}")
    assert str(raised.value).startswith(f"'python: own.py:check': {problem}")
    assert "\n" not in str(raised.value)


FORM = "own.py:1: TypeError: expected def check(response, expected, input): "


@pytest.mark.parametrize(
    ("source", "argument", "problem"),
    [
        ("", "own.py:check", FORM + "None is not a callable"),
        ("check = 3", "own.py:check", FORM + "3 is not a callable"),
        ("def check(response): pass", "own.py:check", FORM + "too many positional"),
        ("x = 1\ndef check(:", "own.py:check", "own.py:2: SyntaxError: invalid syntax"),
        ("import nowhere", "own.py:check", "own.py:1: ModuleNotFoundError: No module named 'nowh"),
        ("raise SystemExit", "own.py:check", "own.py:1: SystemExit:"),
        ("", "own.py", "expected file.py:function, found 'own.py'"),
        ("", "own.txt:check", "expected file.py:function"),
    ],
)
def test_what_cannot_be_called_is_named_before_the_run(tmp_path, source, argument, problem):
    one = Criterion("python", argument, 1, f"{tmp_path / 'program.md'}:7", source)
    with pytest.raises(ProgramError) as raised:
        check_criteria(Program("g", "t", (Input(""),), (), (one,), "", "", "program.md"))
    assert str(raised.value).startswith(f"{tmp_path / 'program.md'}:7: python: ")
    assert problem in str(raised.value)


def test_a_function_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(own, "SECONDS", 0.5)
    source = (
        "import os, subprocess, sys, time\n"
        "def check(response, expected, input):\n"
        "    if response != 'hang': return 1\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"    open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "    if os.fork() == 0: time.sleep(60)\n"
        "    while True: pass\n"
    )
    assert mark(tmp_path, source) == (1, "")
    began = time.monotonic()
    with pytest.raises(ScoreError, match=r"own\.py: check took over 0\.5 s"):
        mark(tmp_path, source, "hang")
    assert time.monotonic() - began < 5
    for pid in (tmp_path / "pids").read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        while stat.exists() and stat.read_text().split()[2] != "Z":  # a signal takes a moment
            assert time.monotonic() - began < 5
    assert mark(tmp_path, source) == (1, "")  # the next one has a process again


def test_what_it_prints_and_reads_is_not_between_the_lines(tmp_path, capfd):
    source = (
        "import os, subprocess, sys\n"
        "print('{}')\n"
        "def check(*given):\n"
        "    print('{\"mark\": 0}', flush=True); os.write(1, b'x'); sys.stderr.write('y')\n"
        "    subprocess.run([sys.executable, '-c', 'print(1)'])\n"
        "    return float(sys.stdin.read() == '')\n"
    )
    assert mark(tmp_path, source) == mark(tmp_path, source) == (1, "")
    assert capfd.readouterr() == ("", "")


def test_it_never_sees_the_key_and_imports_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NEBIUS_API_KEY", "secret")
    (tmp_path / "beside.py").write_text("ANSWER = 'no'", encoding="utf-8")
    source = (
        "import os, beside\n"
        "def check(*given):\n"
        "    return 'secret' not in ' '.join(os.environ.values()), beside.ANSWER\n"
    )
    assert mark(tmp_path, source) == (1, "no")


def test_it_keeps_what_it_has_loaded_and_an_edit_is_loaded_anew(tmp_path):
    source = "seen = []\ndef check(*given):\n    seen.append(1)\n    return 1 / len(seen)"
    assert [mark(tmp_path, source)[0] for _ in range(2)] == [1, 0.5]
    assert mark(tmp_path, source + "\n")[0] == 1


def test_an_interrupted_call_leaves_its_mark_to_no_other(tmp_path, monkeypatch):
    source = "def check(response, *given): return float(response)"
    assert mark(tmp_path, source, "1") == (1, "")

    def interrupted(*question, **where):
        print(*question, **where)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(own, "print", interrupted, raising=False)
        mark(tmp_path, source, "0")
    assert mark(tmp_path, source, "0.5") == (0.5, "")


@pytest.mark.skipif(os.cpu_count() == 1, reason="one processor")
def test_calls_run_side_by_side(tmp_path):
    met = tmp_path / "met"
    met.mkdir()
    source = (
        "import os, time\n"
        "def check(response, *given):\n"
        f"    open(os.path.join({str(met)!r}, response), 'w').close()\n"
        f"    while len(os.listdir({str(met)!r})) < 2: time.sleep(0.01)\n"
        "    return 1\n"
    )
    with ThreadPoolExecutor(2) as pool:
        one = criterion(tmp_path, source)
        assert list(pool.map(lambda text: by_rule(one, GIVEN, text)[0], "ab")) == [1, 1]


def test_any_text_goes_there_and_back(tmp_path):
    text = "\ud83d\0\x1b[0m\u2028\r\n" + "x" * 2_000_000
    assert mark(tmp_path, "def check(r, e, i): return len(r) / 2_000_009", text) == (1, "")


@pytest.mark.parametrize(
    ("response", "mark"),
    [
        ("SELECT count(id) FROM customer;", 1),
        ("```sql\nselect count(1) from customer\n```", 1),
        ("SELECT 3", 0.3),
        ("The query is SELECT count(*) FROM customer", 0),
        ("", 0),
        ("DROP TABLE customer", 0),
        ("ATTACH DATABASE '/tmp/x' AS x", 0),
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT count(i) FROM n", 0),
    ],
)
def test_the_example_runs_the_query(response, mark):
    program = load_program(HERE / "examples" / "write-sql.md")
    assert by_rule(program.criteria[0], program.inputs[0], response)[0] == mark


def test_the_example_is_solved_by_its_own_answers():
    program = load_program(HERE / "examples" / "write-sql.md")
    for given in program.inputs + program.held_out:
        assert by_rule(program.criteria[0], given, given.expected or "") == (1, "")
