"""What a person sees on the terminal and in a log: `pytest tests/test_terminal.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from autoresearch.options import parse_arguments
from autoresearch.report.terminal import Display
from autoresearch.search.ablation import Ablation
from autoresearch.search.history import History
from autoresearch.search.intervals import Interval
from autoresearch.text import HIDDEN, duration, money, short, visible
from tests.test_findings import evening, experiment, morning

ROOT = Path(__file__).parents[1]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def shown_by(
    target: int, quiet: bool = False, verbose: bool = False, simulated: bool = False
) -> Display:
    shown = ["--quiet"] * quiet + ["--verbose"] * verbose
    return Display(parse_arguments(["--iterations", f"{target}", *shown]), simulated=simulated)


# --- the plain form ---


def test_a_block_tells_number_prompt_response_and_score(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display, history = shown_by(target=250), evening()
    for e, lead in zip(history.experiments, (True, False, True, False), strict=True):
        display.iteration(e, history, lead)
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


def test_a_failure_without_figures_has_no_empty_brackets(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = experiment(4, [], error="no answer", tokens=None, seconds=None)
    shown_by(target=9).iteration(failed, evening(), False)
    assert capsys.readouterr().out.startswith("iteration 4/9  refine  failed: no answer\n")


def test_the_report_tells_the_best_and_the_failures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display, history = shown_by(target=12, quiet=True), evening()
    display.report(history)
    leader, baseline = history.leader, history.baseline
    assert leader is not None and baseline is not None
    gain = leader.estimate - baseline.estimate
    assert capsys.readouterr().out == textwrap.dedent(f"""
        == after 2 of 12 experiments ==
          task       series unnamed, which program.md no longer asks
          so far     Best so far 7.98, {gain:+.2f} over the baseline: not confirmed yet.
          prompt     prompt 2
          noise      0.41 points from pass to pass; differences below {history.tie:.2f} are ties
          failed     1: no prompt in the reply (1)
          spent      3,600 tokens, $0.0015
          strategies refine         2 experiments   mean  6.50   led 2 times

        """)


def test_the_last_report_ends_in_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    display = shown_by(target=2, simulated=True)
    display.report(morning(), final=True, files=["best-prompt.txt", "report.html"])
    text = capsys.readouterr().out
    report, verdict = text.split("== verdict, simulated ==\n")
    lines = verdict.splitlines()
    assert report.startswith("\n== report, 2 of 2 experiments, simulated ==\n  task  ")
    assert re.search(r"\n  strategies refine +2 experiments   mean  6\.50   led", report)
    assert re.search(r"what fails.*\n  80 %       words: 1-9: ; baseline 45 %", report)
    assert lines[0].startswith("The best prompt scores 7.97, the baseline 4.47: 3.50 better (95 %")
    labels = [line[2:13].strip() for line in lines if line.startswith("  ")]
    assert [*filter(None, labels)] == ["rests on", "prompt", "fails", "next", "files"]
    assert "\n  files      best-prompt.txt, report.html\n---\nsimulated: yes\n" in verdict


def test_without_a_confirmation_the_last_report_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    shown_by(target=2).report(evening(), final=True)
    out = capsys.readouterr().out
    assert "  rests on   4 passes, not confirmed: a best" in out and "\nconfirmed: " not in out


def test_an_ablation_is_a_table_and_the_shortened_prompt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sentences = [
        ("Be brief.", Interval(1.2, 0.8, 1.6), "matters"),
        ("Be kind.", Interval(0.1, -0.4, 0.6), "cannot be told"),
    ]
    loss = Interval(0.05, -0.3, 0.4)
    shown_by(target=9).ablation(Ablation(sentences, "Be brief.", loss))
    assert capsys.readouterr().out == textwrap.dedent("""
        == what each sentence is worth, with its 95 % interval ==
          +1.20      0.80 to 1.60     matters         Be brief.
          +0.10      -0.40 to 0.60    cannot be told  Be kind.
          shortened  +0.05 (95 % interval -0.30 to 0.40) by
                     Be brief.

        """)
    shown_by(target=9).ablation(Ablation(sentences, "Be brief. Be kind.", None))
    told = "shortened  nothing: no shorter prompt was shown to lose less than 0.3\n"
    assert told in capsys.readouterr().out  # not that each sentence is needed: that is not known


def test_a_report_of_nothing_does_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    shown_by(target=5).report(History(), final=True)
    out = capsys.readouterr().out
    assert "completed: 0\n" in out and "rests on" not in out and "  fails" not in out


def test_a_block_is_three_lines_unless_it_leads_or_verbose(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prompt = "first line\n" + "word " * 200
    long, history = (
        experiment(4, [5.0], prompt=prompt, thought="why", response="r " * 200),
        evening(),
    )
    shown_by(target=9).iteration(long, history, False)
    cut = capsys.readouterr().out.splitlines()
    assert len(cut) == 3 and cut[1].endswith("...") and max(map(len, cut)) <= 100
    shown_by(target=9).iteration(long, history, True)
    leads = capsys.readouterr().out
    assert leads.count("word") == 200 and "thought" not in leads
    shown_by(target=9, verbose=True).iteration(long, history, False)
    whole = capsys.readouterr().out
    assert whole.count("word") == 200 and "thought    why" in whole


def test_quiet_leaves_reports_and_waits(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_by(target=9, quiet=True) as display:
        display.tell(["begins"])
        display.iteration(evening().experiments[1], evening(), True)
        display.wait("waits 3 s")
        display.report(evening())
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
    capsys: pytest.CaptureFixture[str],
) -> None:
    evil = "\x1b]52;c;aGk=\x07\r\ud800"
    display, history = shown_by(target=9, verbose=True), evening()
    changes = {"prompt": evil, "thought": evil, "response": evil, "strategy": evil}
    display.iteration(experiment(4, [5.0], **changes), history, False)
    display.iteration(experiment(5, [], error=evil), history, False)
    display.tell([evil])
    display.wait(evil)
    history.add(experiment(6, [9.9] * 4, **changes))
    history.add(experiment(7, [], error=evil))
    display.report(history, final=True)
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
    assert "waits for the first answer" in out and "waits for answers" in out  # and it moves
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
    assert short("a  b\n\nc", 9) == "a b c" and len(short("word " * 99, 40)) <= 40
