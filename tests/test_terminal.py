"""What a person sees on the terminal and in a log: `pytest tests/test_terminal.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from autoresearch.files.record import Experiment, Trial
from autoresearch.options import parse_arguments
from autoresearch.report import terminal as report
from autoresearch.report.page import fair_cap
from autoresearch.report.terminal import Display, excerpt, summary
from autoresearch.search.ablation import Ablation
from autoresearch.search.confirmation import next_steps
from autoresearch.search.history import History
from autoresearch.search.intervals import Interval
from autoresearch.text import HIDDEN, duration, money, visible

ROOT = Path(__file__).parents[1]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def shown_by(
    target: int, quiet: bool = False, verbose: bool = False, simulated: bool = False
) -> Display:
    shown = ["--quiet"] * quiet + ["--verbose"] * verbose
    return Display(parse_arguments(["--iterations", f"{target}", *shown]), simulated=simulated)


def experiment(number: int, scores: list[float], **changes: object) -> Experiment:
    trials = tuple(Trial("", f"reply to {number}", s, {"words: 1-9": s / 10}, "") for s in scores)
    made = Experiment(
        number,
        kind="proposal" if number else "baseline",
        strategy="refine" if number else "",
        prompt=f"prompt {number}",
        response=trials[0].response if trials else "",
        score=sum(scores) / len(scores) if scores else None,
        trials=trials,
        tokens=1200,
        cost=0.0005,
        seconds=2.0,
    )
    return replace(made, **changes)


@pytest.fixture
def evening() -> History:
    """A baseline, two proposals and a failure."""
    history = History([experiment(0, [4.0, 5.0, 4.5, 4.5]), experiment(1, [5.0])])
    history.add(experiment(2, [8.0, 7.5, 8.5, 8.0]))
    history.add(experiment(3, [], error="no prompt in the reply: asked 3 times", tokens=None))
    return history


@pytest.fixture
def morning(evening: History) -> History:
    """The same, confirmed."""
    return confirm(evening, {"prompt 0": 4.5, "prompt 1": 5.0, "prompt 2": 8.0})


def confirm(
    history: History, level: dict[str, float], final: dict[str, float] | None = None
) -> History:
    at = history.completed
    while steps := next_steps(history, at):
        for step in steps:
            mean = (final if final and step.stage == "final" else level)[step.prompt]
            scores = [mean + (0.5 if i % 2 else -0.5) for i in range(step.passes)]
            history.add(
                experiment(at, scores, kind="confirmation", strategy=step.stage, prompt=step.prompt)
            )
    return history


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The report's clock; a test that moves it sets `now`."""
    made = SimpleNamespace(now=100.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(report, "time", made)
    yield made


# --- the plain form ---


def test_a_block_tells_number_prompt_response_and_score(
    evening: History, capsys: pytest.CaptureFixture[str]
) -> None:
    display = shown_by(target=250)
    for e, lead in zip(evening.experiments, (True, False, True, False), strict=True):
        display.iteration(e, evening, lead)
    assert capsys.readouterr().out == textwrap.dedent("""\
        baseline  score 4.50  (4 passes, 1,200 tokens, 2.0 s)
          prompt     prompt 0
          response   reply to 0
        iteration 1/250  refine  score 5.00  (1 pass, 1,200 tokens, 2.0 s)
          prompt     prompt 1
          response   reply to 1
        iteration 2/250  refine  score 8.00  takes the lead at 7.98  (4 passes, 1,200 tokens, 2.0 s)
          prompt     prompt 2
          response   reply to 2
        iteration 3/250  refine  failed: no prompt in the reply: asked 3 times  (2.0 s)
          prompt     prompt 3
        """)


def test_the_report_tells_the_best_the_failures_and_the_time_left(
    evening: History, capsys: pytest.CaptureFixture[str], clock: SimpleNamespace
) -> None:
    display = shown_by(target=12, quiet=True)
    for e in evening.experiments:
        clock.now += 10
        display.iteration(e, evening, False)
    display.report(evening)
    best = evening.leader
    assert best is not None and evening.baseline is not None
    gain = best.estimate - evening.baseline.estimate
    assert capsys.readouterr().out == textwrap.dedent(f"""
        == after 2 of 12 experiments ==
          best       {report.estimate(best)}, first tried in iteration 2
          baseline   {report.estimate(evening.baseline)}
          gain       {gain:+.2f} over the baseline
          prompt     prompt 2
          noise      0.41 points from pass to pass; differences below {evening.tie:.2f} are ties
          failed     1: no prompt in the reply (1)
          repeats    0 of 2 (0 %)
          spent      3,600 tokens, $0.0015
          pace       7.3 s per experiment, about 73 s left

        """)


def test_the_last_report_begins_with_what_was_confirmed(
    morning: History, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_by(target=2, simulated=True).report(morning, final=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "== report, 2 of 2 experiments, simulated =="
    assert re.fullmatch(
        r"The best prompt scores 7\.97, the baseline 4\.47: 3\.50 better \(95 % interval "
        r"\d\.\d\d to \d\.\d\d\)\.",
        lines[2],
    )
    assert any(
        re.match(r"  strategies refine +2 experiments   mean  6\.50   led", s) for s in lines
    )
    assert "---" in lines and "simulated: yes" in lines and "improved: yes" in lines


def test_no_improvement_is_said_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    history = History([experiment(0, [5.0, 5.5, 4.5, 5.0]), experiment(1, [5.0, 5.1, 5.2, 4.9])])
    while steps := next_steps(history, 1):
        for step in steps:
            scores = [
                5.0 + step.prompt.endswith("1") / 50 + (i % 3 - 1) for i in range(step.passes)
            ]
            history.add(
                experiment(1, scores, kind="confirmation", strategy=step.stage, prompt=step.prompt)
            )
    shown_by(target=1).report(history, final=True)
    out = capsys.readouterr().out
    assert "No improvement over the baseline was shown" in out and "improved: no" in out


def test_without_a_confirmation_the_last_report_says_so(
    evening: History, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_by(target=2).report(evening, final=True)
    out = capsys.readouterr().out
    assert "  caution    not confirmed" in out and "\nconfirmed: " not in out


def test_an_ablation_is_a_table_and_the_shortened_prompt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sentences = [
        ("Be brief.", Interval(1.2, 0.8, 1.6, 8), "matters"),
        ("Be kind.", Interval(0.1, -0.4, 0.6, 8), "cannot be told"),
    ]
    loss = Interval(0.05, -0.3, 0.4, 15)
    shown_by(target=9).ablation(Ablation(sentences, "Be brief.", loss))
    assert capsys.readouterr().out == textwrap.dedent("""
        == what each sentence is worth, with its 95 % interval ==
          +1.20      0.80 to 1.60     Be brief.
          +0.10      -0.40 to 0.60    Be kind.
          shortened  loses +0.05 (95 % interval -0.30 to 0.40), nothing measurable
                     Be brief.

        """)
    shown_by(target=9).ablation(Ablation(sentences, "Be brief. Be kind.", None))
    assert "shortened  nothing: no sentence can go" in capsys.readouterr().out


def test_a_report_of_nothing_does_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    shown_by(target=5).report(History(), final=True)
    assert "completed: 0\n" in capsys.readouterr().out


def test_every_summary_value_is_one_line_and_prompts_are_json(morning: History) -> None:
    nasty = replace(morning.experiments[2], prompt='two\nlines "quoted" \x1b[2J \x9b \u202e')
    values = dict(summary(History([nasty]), 2, simulated=False))
    assert json.loads(values["best_prompt"]) == nasty.prompt
    assert not HIDDEN.search("".join(values.values()))
    assert all("\n" not in value for value in values.values())


def test_an_unknown_price_is_not_zero(evening: History) -> None:
    evening.add(experiment(4, [5.0], cost=None))
    values = dict(summary(evening, 9, simulated=False))
    assert values["tokens"] == "4800" and "cost_usd" not in values


def test_the_pace_is_that_of_this_run(evening: History, clock: SimpleNamespace) -> None:
    display = shown_by(target=102, quiet=True)
    assert display._pace(evening) == 2.0  # no run: what the records tell
    clock.now += 500  # a baseline, a slow start
    display.iteration(evening.experiments[1], evening, False)
    display.iteration(evening.experiments[2], evening, False)
    clock.now += 12
    assert display._pace(evening) == 7.0 and display._left(evening) == 700.0


def test_long_texts_are_shortened_unless_verbose(
    evening: History, capsys: pytest.CaptureFixture[str]
) -> None:
    long = experiment(4, [5.0], prompt="first line\n" + "word " * 200, thought="why", response="r")
    shown_by(target=9).iteration(long, evening, False)
    short = capsys.readouterr().out.splitlines()
    shown_by(target=9, verbose=True).iteration(long, evening, False)
    whole = capsys.readouterr().out
    assert len(short) == 3 and short[1].endswith("...") and len(short[1]) <= 313
    assert whole.count("word") == 200 and "thought    why" in whole


def test_quiet_leaves_reports_and_waits(
    evening: History, capsys: pytest.CaptureFixture[str]
) -> None:
    with shown_by(target=9, quiet=True) as display:
        display.say("begins")
        display.iteration(evening.experiments[1], evening, True)
        display.wait("waits 3 s")
        display.report(evening)
    shown = capsys.readouterr()
    assert shown.out.startswith("\n== after 2 of 9 experiments ==") and shown.err == "waits 3 s\n"


# --- untrusted text ---


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m"),
        ("\x1b]0;title\x07", r"\u001b]0;title\u0007"),
        ("over\rwritten", r"over\rwritten"),
        ("dos\r\nline", "dos\nline"),
        ("back\x08space \x00 \x7f", r"back\bspace \u0000 \u007f"),
        ("\x9b2J", r"\u009b2J"),
        ("abc\u202efdp.exe", r"abc\u202efdp.exe"),
        ("\u2066isolate\u2069 \u200f \u061c", r"\u2066isolate\u2069 \u200f \u061c"),
        ("line\u2028sep", r"line\u2028sep"),
        ("lone \ud800 half", r"lone \ud800 half"),
        ("\U000e0041tag", r"\udb40\udc41tag"),
        ("tab\tbed", "tab    bed"),
        ("[bold]kept[/] :smile:", "[bold]kept[/] :smile:"),
        ("👩‍👩‍👧 日本語 é می‌خواهم", "👩‍👩‍👧 日本語 é می‌خواهم"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    visible(text).encode("utf-8")


def test_no_field_of_an_experiment_reaches_the_terminal_raw(
    evening: History, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]52;c;aGk=\x07\r\ud800"
    display = shown_by(target=9, verbose=True)
    changes = {"prompt": evil, "thought": evil, "response": evil, "strategy": evil}
    display.iteration(experiment(4, [5.0], **changes), evening, False)
    display.iteration(experiment(5, [], error=evil), evening, False)
    display.say(evil)
    display.wait(evil)
    evening.add(experiment(6, [9.9] * 4, **changes))
    evening.add(experiment(7, [], error=evil))
    display.report(evening, final=True)
    shown = capsys.readouterr()
    assert not HIDDEN.search(shown.out + shown.err)


def run_on(encoding: str) -> str:
    code = (
        "from autoresearch.options import parse_arguments\n"
        "from autoresearch.report.terminal import Display\n"
        "from autoresearch.files.results import Experiment\n"
        "from autoresearch.search.history import History\n"
        "e = Experiment(1, prompt='日本語 \\ud800', response='±👩', score=5.0)\n"
        "Display(parse_arguments(['--iterations', '9'])).iteration(e, History(), False)"
    )
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(encoding)


def test_an_output_that_is_not_utf8_does_not_end_the_run() -> None:
    assert r"\u65e5\u672c\u8a9e \ud800" in run_on("ascii")
    assert "日本語" in run_on("utf-8")


# --- the terminal ---

SCRIPT = """
import sys
from autoresearch.search.history import History
from autoresearch.options import parse_arguments
from autoresearch.report.terminal import Display
from autoresearch.files.results import Experiment
nasty = "[bold]no markup[/] \\x1b[31m " + "日本語の長い文章 👩‍👩‍👧 :smile: " * 30
history = History()
with Display(parse_arguments(['--iterations', '9'])) as display:
    for n in (1, 2):
        e = Experiment(n, strategy="refine", prompt=nasty, response="r", score=5.0, tokens=9)
        display.iteration(e, history, history.add(e))
        display.wait("waits 3 s")
    display.report(history, final=True)
"""


def on_terminal(columns: int, **env: str) -> str:
    """What the script sends to a terminal of that width."""
    pty = pytest.importorskip("pty", reason="no pseudo-terminal on this platform")
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    kept |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | env
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=kept, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    out = b""
    try:
        while part := os.read(ours, 65536):
            out += part
    except OSError:  # Linux reports the end of a pseudo-terminal as an error
        pass
    os.close(ours)
    assert process.wait() == 0
    return out.decode()


@pytest.mark.parametrize("columns", [80, 200])
def test_no_line_is_wider_than_the_terminal(columns: int) -> None:
    from rich.cells import cell_len

    out = on_terminal(columns)
    lines = [line for line in ESCAPE.sub("\n", out).split("\n")]
    assert max(cell_len(line) for line in lines) <= columns
    assert "\x1b[31m " not in out and r"\u001b[31m" in out
    assert "[bold]no markup[/]" in out and ":smile:" in out
    assert "waits 3 s" in out and "best 5.00" in out
    assert "best_prompt: " not in out  # the block for grep is for logs


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_terminal_without_colour_gets_the_plain_form(env: dict[str, str]) -> None:
    out = on_terminal(80, **env)
    assert "\x1b" not in out and "best_prompt: " in out


# --- numbers ---


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.011, "11 ms"),
        (2.04, "2.0 s"),
        (9.96, "10 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5400, "1 h 30 min"),
    ],
)
def test_durations_read_well(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(0.0, "$0.00"), (0.00012, "$0.00012"), (0.5, "$0.50"), (1234.5, "$1,234.50")],
)
def test_small_sums_are_not_rounded_to_nothing(cost: float, shown: str) -> None:
    assert money(cost) == shown


def test_an_excerpt_keeps_its_length() -> None:
    assert excerpt("a  b\n\nc", 9) == "a b c" and len(excerpt("word " * 99, 40)) <= 40


def test_the_fair_cap_spends_the_budget_on_the_long_texts() -> None:
    assert fair_cap([10, 20, 1000, 2000], 430) == 200
    assert fair_cap([10, 20], 100) == 20 and fair_cap([], 5) == 0


def test_a_baseline_that_was_shown_to_be_better_is_the_best(
    evening: History, capsys: pytest.CaptureFixture[str]
) -> None:
    """The search's winner fell below it on the samples that nothing was selected on."""
    level = {"prompt 0": 4.5, "prompt 1": 3.0, "prompt 2": 8.0}
    confirm(evening, level, final=level | {"prompt 2": 3.5})
    shown_by(target=2).report(evening, final=True)
    out = capsys.readouterr().out
    assert "The baseline is the best prompt: what the search found scores " in out
    assert 'best_prompt: "prompt 0"' in out and "improved: no" in out


def test_an_empty_prompt_that_does_as_well_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    history = History([experiment(0, [4.0, 5.0, 4.5, 4.5], prompt="")])
    history.add(experiment(1, [5.0]))
    confirm(history, {"": 5.0, "prompt 1": 5.0})
    shown_by(target=1).report(history, final=True)
    out = capsys.readouterr().out
    assert "best_prompt: " in out and "(empty)" in out
