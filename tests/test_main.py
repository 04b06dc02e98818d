"""The command from end to end, against the simulator: what is recorded, said and survived.

    pytest tests/test_main.py
    KILLS=200 OUTAGE=60 pytest tests/test_main.py -k "killed or outage"     the long form

`command` runs main in this process, `Night` the real main.py in one of its own, for what signals,
locks and kill -9 do. Both look for the key in all that was printed and written.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

import main
from autoresearch.api.exchange import APIError, Interrupted
from autoresearch.files.program import load_program
from autoresearch.files.record import Experiment
from autoresearch.files.results import Results, load
from autoresearch.night import Night as Nights
from autoresearch.options import parse_arguments
from autoresearch.report.reports import Reports
from autoresearch.report.terminal import Display
from autoresearch.search.confirmation import Step
from autoresearch.search.history import History
from autoresearch.search.series import open_history
from autoresearch.simulator.server import Connection, Reply
from tests.benchmarks.landscapes import LANDSCAPES
from tests.benchmarks.search import WorldClient
from tests.servers import Simulator
from tests.test_criteria import SHIPPED

KILLS = int(os.environ.get("KILLS", "12"))
OUTAGE = float(os.environ.get("OUTAGE", "2"))  # seconds

KEY = "sk-recognisable-0123456789abcdef"
MODEL = "simulated/model"
PROGRAM = """# Goal

Find the prompt that explains the tides best.

## Task

Explain the tides. Respond in under 60 words.

## Criteria

- words: 20-59
- mentions: moon, gravity | pull, ocean | sea
"""
HAIKU = """# Goal

Find the prompt that writes the best haiku about the sea.

## Task

Write a haiku about the sea.

## Criteria

- words: up to 19
- mentions: sea | ocean
- avoids: I
"""


@dataclass
class Printed:
    out: str
    err: str


Command = Callable[..., Printed]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of our own with a small program.md; the handlers that main sets are taken back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEBIUS_API_KEY", KEY)
    monkeypatch.setenv("NEBIUS_MODEL", MODEL)
    Path("program.md").write_text(PROGRAM, encoding="utf-8")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def brief_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LONGEST_BACKOFF", "AFTER_REFUSAL"):
        monkeypatch.setattr(f"autoresearch.api.pace.{name}", 0.002)


@pytest.fixture
def command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    def run(*arguments: str, server: Simulator | None = None, code: int = 0) -> Printed:
        if server is not None:
            monkeypatch.setenv("NEBIUS_BASE_URL", server.url)
        try:
            ended = main.main(arguments)
        except SystemExit as error:  # of argparse
            ended = int(error.code or 0)
        printed = Printed(*capsys.readouterr())
        assert ended == code, printed.err
        keeps_the_key(folder, printed.out, printed.err)
        return printed

    return run


def keeps_the_key(folder: Path, *printed: str) -> None:
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not [text for text in printed if KEY in text or "Traceback" in text]
    assert not [text for text in written if KEY.encode() in text]


class Night:
    """The real main.py in a process of its own; its lines are read as they are printed."""

    def __init__(self, server: Simulator, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, main.__file__, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what is read here beyond a line would be lost to `communicate`
            env={**os.environ, "NEBIUS_BASE_URL": server.url},
        )
        self.lines: list[str] = []

    def until(self, pattern: str) -> None:
        """Reads up to a line of stdout that matches."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.decode())
            if re.search(pattern, self.lines[-1]):
                return
        raise AssertionError(f"ended before {pattern!r}: {self.end(None)}")

    def warned(self, pattern: str) -> None:
        """Reads up to a line of stderr that matches; the rest is left to `end`."""
        assert self.process.stderr
        while not re.search(pattern, line := self.process.stderr.readline().decode()):
            assert line, f"ended before {pattern!r}"

    def end(self, code: int | None) -> Printed:
        out, err = self.process.communicate(timeout=60 + OUTAGE)
        printed = Printed("".join(self.lines) + (out or b"").decode(), err.decode())
        assert code is None or self.process.returncode == code, printed.err
        keeps_the_key(Path.cwd(), printed.out, printed.err)
        return printed

    def __enter__(self) -> Night:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


class Turning(Simulator):
    """Answers so many chat requests, then gives each `reply` instead."""

    def __init__(self, reply: Reply, after: int = 0) -> None:
        super().__init__()
        self.reply, self.after, self.chats = reply, after, 0

    def __enter__(self) -> Turning:
        super().__enter__()
        return self

    def respond(self, request: Connection) -> Reply:
        self.chats += request.command == "POST"
        return self.reply if self.chats > self.after else super().respond(request)


class Metered(Simulator):
    """Keeps what each answer was billed; the first is the check before the run."""

    def respond(self, request: Connection) -> Reply:
        reply = super().respond(request)
        if request.command == "POST" and reply.status == 200:
            self.billed.append(reply.body["usage"]["total_tokens"])
        return reply

    def __enter__(self) -> Metered:
        self.billed: list[int] = []
        super().__enter__()
        return self

    def lost(self) -> int:
        return sum(self.billed[1:]) - sum(e.tokens or 0 for e in records())


def records(path: str = "results.json") -> list[Experiment]:
    json.loads(Path(path).read_bytes())  # valid, not only healed
    return load(Path(path))


def proposals(path: str = "results.json") -> list[Experiment]:
    return [e for e in records(path) if e.kind == "proposal" and e.score is not None]


def numbers(experiments: list[Experiment]) -> list[int]:
    return sorted(e.iteration or 0 for e in experiments)


def printed_blocks(out: str) -> Counter[str]:
    """'iteration 7 5.48' for each experiment that was printed whole."""
    found = re.findall(r"^(iteration \d+|baseline)(?:/\d+)?  .*?score (\d+\.\d\d) .*\n", out, re.M)
    return Counter(" ".join(block) for block in found)


def recorded_blocks() -> Counter[str]:
    blocks = (
        (f"iteration {e.iteration}" if e.kind == "proposal" else e.kind, e.score)
        for e in load(Path("results.json"))
    )
    return Counter(f"{name} {score:.2f}" for name, score in blocks if score is not None)


# --- the demo ---


def test_the_demo_finds_a_better_prompt_the_same_each_time_and_says_that_it_is_simulated(command):
    Path("results.json").write_text("[]\n")
    first = command("--demo", "--iterations", "60")
    lines = first.out.strip().splitlines()
    assert "simulated" in lines[0] and "simulated" in lines[-1]
    said = dict(re.findall(r"^(\w+): (.*)$", first.out, re.M))
    assert float(said["difference_low"]) > 0 and said["completed"] == "60"
    experiments = timeless("demo-results.json")
    command("--demo", "--iterations", "60", "--quiet")
    assert timeless("demo-results.json") == experiments
    assert Path("results.json").read_text() == "[]\n"
    assert Path("demo-report.html").exists() and Path("demo-best-prompt.txt").exists()


def timeless(path: str) -> list[dict[str, object]]:
    found = json.loads(Path(path).read_bytes())
    return [{k: v for k, v in e.items() if k not in ("seconds", "timestamp")} for e in found]


# --- one night after the other ---


def test_goes_on_to_more_iterations_and_needs_no_server_when_all_are_done(command):
    with Simulator() as server:
        first = command("--iterations", "3", "--report-every", "2", server=server)
        assert "begins, 3 in all" in first.out and "== after 2 of 3 experiments" in first.out
        assert "report, 3 of 3 experiments, simulated" in first.out
        assert "going on after experiment 3, 5 in all" in command("--iterations", "5").out
        assert numbers(proposals()) == [1, 2, 3, 4, 5]
        before = Path("results.json").read_bytes()
    done = command("--iterations", "5").out
    assert "all 5 iterations are done; --iterations N goes on" in done and "verdict" in done
    command("--report", "--quiet")
    assert Path("results.json").read_bytes() == before
    for name in "report.html", "best-prompt.txt":
        assert Path(name).exists()


def test_a_new_program_is_a_new_series_that_begins_with_the_best_of_the_old(command):
    run = ("--iterations", "3", "--no-confirm")
    with Simulator() as server:
        command(*run, server=server)
        Path("program.md").write_text(HAIKU, encoding="utf-8")
        printed = command(*run).out
        assert "a new series begins" in printed and "report.html is now report-" in printed
    old, new = proposals()[:3], proposals()[3:]
    assert numbers(new) == [1, 2, 3]
    (first,) = (e for e in new if e.iteration == 1)
    assert first.strategy == "carry over" and first.prompt in [e.prompt for e in records()[:4]]
    assert set(new[0].trials[0].criteria) != set(old[0].trials[0].criteria)
    assert all("sea" in e.response.lower() for e in new if e.score == 10)


def test_new_words_for_the_goal_keep_the_history_and_new_criteria_score_it_again(command):
    run = ("--iterations", "3", "--no-confirm")
    with Simulator() as server:
        command(*run, server=server)
    before = Path("results.json").read_bytes()
    Path("program.md").write_text(PROGRAM.replace("explains", "teaches"), encoding="utf-8")
    assert "all 3 iterations are done" in command(*run).out
    Path("program.md").write_text(PROGRAM + "- avoids: water\n", encoding="utf-8")
    again = command(*run).out
    assert "4 stored experiments were scored again at no cost" in again
    assert "all 3 iterations are done" in again
    assert Path("results.json").read_bytes() == before


def test_many_rows_are_raced_over_in_blocks_and_rows_that_are_added_go_on(command):
    rows = [f"the {n} was charged twice,billing\nthe {n} crashes,bug" for n in range(150)]
    Path("rows.csv").write_text("input,expected\n" + "\n".join(rows[:140]), encoding="utf-8")
    task = "Classify this message as billing or bug: {input}"
    program = f"# Goal\nSort.\n## Task\n{task}\n## Inputs\n- file: rows.csv\n"
    Path("program.md").write_text(f"{program}## Criteria\n- equals: {{expected}}", encoding="utf-8")
    with Simulator() as server:
        command("--iterations", "6", "--quiet", "--no-confirm", server=server)
        searched = {given.text for given in load_program(Path("program.md")).inputs}
        baseline, *tried = records()
        assert len(baseline.trials) == len({t.input for t in baseline.trials}) <= 64
        assert {len(e.trials) for e in tried} <= {8 * blocks for blocks in range(1, 9)}
        assert sum(len(e.trials) for e in tried) < 6 * len(searched) / 2
        assert {t.input for e in records() for t in e.trials} <= searched
        assert {e.strategy for e in tried} >= {"format", "examples"}
        Path("rows.csv").write_text("input,expected\n" + "\n".join(rows), encoding="utf-8")
        command("--iterations", "8", "--quiet", server=server)
    assert sorted(e.iteration or 0 for e in records() if e.kind == "proposal") == [*range(1, 9)]
    finals = [e for e in records() if e.strategy == "final"]
    held_out = {given.text for given in load_program(Path("program.md")).held_out}
    assert finals and {t.input for e in finals for t in e.trials} <= held_out


def test_the_report_of_a_program_that_has_moved_on_says_so(command):
    with Simulator() as server:
        command("--iterations", "2", "--no-confirm", server=server)
    Path("program.md").write_text(PROGRAM.replace("tides", "glaciers"), encoding="utf-8")
    told = command("--report", code=1).err
    assert "results.json holds no records of program.md as it is, but " in told
    name = told.split(" but ")[1].split()[0]
    assert "completed: 2" in command("--report", name).out


def test_a_report_whose_page_cannot_be_written_fails(command):
    with Simulator() as server:
        command("--iterations", "1", "--no-confirm", server=server)
    Path("report.html").unlink()
    Path("report.html").mkdir()
    printed = command("--report", code=1)
    assert "== report" in printed.out
    assert printed.err.startswith("warning: report.html was not written: ")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_what_ships_runs(command, path):
    with Simulator() as server:
        command(
            "--program", str(path), "--iterations", "2", "--no-confirm", "--quiet", server=server
        )
    assert numbers(proposals()) == [1, 2]
    given = len(load_program(path).inputs)
    assert all(len(e.trials) % given == 0 and e.passes() for e in proposals())


# --- kill -9, Ctrl-C, two at once, an outage ---


def test_loses_nothing_that_was_printed_when_killed_again_and_again():
    rng = Random(3)
    target = 6 * KILLS
    run = ("--iterations", str(target), "--no-confirm", "--workers", "2")
    printed: Counter[str] = Counter()
    with Simulator(latency=0.002) as server:
        for _ in range(KILLS):
            with Night(server, *run) as night:
                if rng.random() < 0.8:  # else at any moment, before the first request too
                    night.until(rf"^(iteration|{rng.choice(['baseline', 'iteration'])}) ")
                time.sleep(rng.uniform(0, 0.06))
                night.process.kill()
                out = night.end(-signal.SIGKILL).out
            assert "are done" not in out
            printed += printed_blocks(out)
            assert not printed - recorded_blocks()
        Night(server, *run).end(0)
    assert numbers(proposals()) == list(range(1, target + 1))
    assert not printed - recorded_blocks()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_what_runs_end_and_reports(number):
    with Metered(latency=0.15) as server, Night(server, "--workers", "2") as night:
        night.until("^iteration 1/")
        with Night(server) as second:
            error = second.end(1).err
        assert error.startswith("error: results.json is in use by another run")
        with Night(server, "--report") as reader:
            assert "== report, " in reader.end(0).out
        night.process.send_signal(number)
        printed = night.end(128 + number)
        assert server.lost() == 0
    assert "recorded first; calls under way may take until NEBIUS_TIMEOUT" in printed.err
    assert "== report, " in printed.out
    assert printed_blocks(printed.out) == recorded_blocks()
    assert numbers(records()) == list(range(len(records())))


def test_after_a_signal_calls_that_only_keep_the_pace_go_on():
    with (
        Metered(latency=0.02, rate_limit=180) as server,
        Night(server, "--workers", "4") as night,
    ):
        night.until("^iteration 8/")
        night.process.send_signal(signal.SIGINT)
        night.end(130)
        assert server.lost() == 0


def test_a_second_ctrl_c_drops_what_runs():
    with Simulator(latency=0.05) as server, Night(server) as night:
        night.until("^iteration 1/")
        server.latency = 30.0
        time.sleep(0.2)
        night.process.send_signal(signal.SIGINT)
        night.warned("stopping")
        night.process.send_signal(signal.SIGINT)
        assert "dropped what was running" in night.end(130).err
    assert not printed_blocks("".join(night.lines)) - recorded_blocks()


@pytest.mark.parametrize("at", ["^baseline", "begins"])
def test_ctrl_c_ends_a_wait_for_the_server_at_once(at):
    faults = {"429": 1.0} if at == "begins" else {}
    with Simulator(faults=faults, retry_after=100) as server, Night(server) as night:
        if at != "begins":
            night.until(at)
            server.faults["429"] = 1.0
        night.warned("waiting 100.0 s")
        began = time.monotonic()
        night.process.send_signal(signal.SIGTERM)
        night.end(143)
        assert time.monotonic() - began < 2
    assert not [e for e in records() if e.score is None]


def test_an_outage_costs_no_experiment():
    with Simulator(latency=0.02) as server:
        port = int(server.url.split(":")[2].split("/")[0])
        night = Night(server, "--iterations", "100", "--no-confirm")
        night.until("^iteration 3/")
    time.sleep(OUTAGE)
    night.warned("no connection to 127.0.0.1")  # felt, however the random waits fell
    with Simulator(port=port), night:
        night.end(0)
    assert numbers(records()) == list(range(101)) and len(proposals()) == 100


# --- failures ---


def test_no_fault_of_the_server_becomes_a_score_or_a_text(command, brief_waits):
    faults = dict.fromkeys(("429", "500", "reset", "truncated", "empty"), 0.05)
    run = ("--iterations", "250", "--workers", "8", "--no-confirm")
    with Simulator(faults=faults, retry_after=0.001) as server:
        command(*run, server=server)
        assert all(server.counts[fault] > 10 for fault in faults)
    assert numbers(proposals()) == list(range(1, 251))
    for e in records():
        assert (e.score is None) == (e.error is not None) == (not e.trials)
        assert all(t.response.strip() and "simulated fault" not in t.response for t in e.trials)
        assert "simulated fault" not in e.prompt


def test_twenty_failed_experiments_in_a_row_end_the_run(command):
    refused = Reply(400, {"detail": f"the key {KEY} is not to be seen"})
    with Turning(refused, after=12) as server:
        printed = command("--workers", "1", server=server, code=1)
        assert re.search(r"^error: 20 experiments in a row failed: 400 bad req", printed.err, re.M)
        assert "== report" in printed.out and "failed: 400 bad request" in printed.out
        spoilt = records()[-20:]
        assert all(e.score is None and not e.trials and "400" in str(e.error) for e in spoilt)
        assert len({e.iteration for e in spoilt}) == 1  # tried again, never counted
        server.after = 10_000
        command("--iterations", "6", "--no-confirm")
    assert numbers(proposals()) == [1, 2, 3, 4, 5, 6]


class Squeamish(Simulator):
    """Refuses whatever speaks of a theft."""

    def chat(self, asked):
        if "stolen" in asked["messages"][-1]["content"]:
            return Reply(400, {"detail": "content_filter"})
        return super().chat(asked)


def test_one_input_that_spoils_everything_is_named_as_that(command):
    text = PROGRAM.replace("## Task", "## Inputs\n\n- It was stolen.\n\n## Task")
    Path("program.md").write_text(text, encoding="utf-8")
    with Squeamish() as server:
        error = command("--workers", "1", server=server, code=1).err.splitlines()[-1]
    assert error.startswith("error: one input spoils every experiment") and "stolen" in error


def test_a_held_out_input_that_is_always_refused_does_not_keep_the_winner(command):
    program = (Path(main.__file__).parent / "examples/classify-tickets.md").read_text("utf-8")
    held_out = "## Held-out inputs\n\n- My phone was stolen. => account"
    Path("program.md").write_text(program.replace("## Held-out inputs\n", held_out), "utf-8")
    with Squeamish() as server:
        out = command("--iterations", "4", server=server).out
    told = " ".join(out.split())
    assert "could not be asked: “My phone was stolen.”" in told and "of their kind" in told
    assert Path("best-prompt.txt").exists()
    spoilt = [e for e in records() if e.error]
    assert len(spoilt) >= 2
    assert all('(held-out input "My phone was stolen.")' in str(e.error) for e in spoilt)


def test_a_key_that_is_refused_ends_the_run_at_once(command):
    with Turning(Reply(401, {"detail": f"unknown key {KEY}"})) as server:
        for arguments in [], ["--check"]:
            (line,) = command(*arguments, server=server, code=1).err.splitlines()
            assert line.startswith("error: 401 unauthorized") and "check NEBIUS_API_KEY" in line
        assert server.chats == 2


def test_a_key_that_is_refused_at_night_keeps_what_there_is(command):
    with Turning(Reply(403, {"detail": "expired"}), after=40) as server:
        printed = command("--workers", "3", "--patience", "0.02", server=server, code=1)
    assert printed.err.count("error: ") == 1
    assert re.search("error: no success for .* [(]last: 403 forbidden: expired", printed.err)
    assert proposals() and "== report" in printed.out


# --- limits and options ---


def test_a_limit_keeps_what_the_confirmation_takes(command):
    with Simulator() as server:
        printed = command("--max-tokens", "60000", server=server)
    assert 0 < len(proposals()) < 250
    assert "confirmed: " in printed.out and "not confirmed" not in printed.err
    assert re.search("--max-tokens 60000 is (near|reached)", printed.err.splitlines()[-1])
    assert sum(e.tokens or 0 for e in records()) < 66_000


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (("--max-tokens", "5000"), "--max-tokens 5000 is reached"),
        (("--max-cost", "0.002"), "--max-cost 0.002 is reached"),
        (("--max-hours", "0.00005"), "--max-hours 5e-05 is reached"),
    ],
    ids=lambda value: value[0],
)
def test_a_limit_ends_the_start_with_a_report_and_its_name(command, limit, said):
    with Simulator(latency=0.005) as server:
        printed = command(*limit, server=server)
    assert said in printed.err and "the same command goes on" in printed.err
    assert ("--iterations" in printed.err.splitlines()[-1]) == bool(proposals())
    assert "== report" in printed.out
    assert 0 < len(records()) < 250


def test_the_command_that_confirms_names_the_files_of_this_one(command):
    example = str(Path(main.__file__).parent / "examples/classify-tickets.md")
    with Simulator() as server:
        told = command("--max-tokens", "5000", "--program", example, server=server).err
    assert f"python main.py --program {example} --iterations " in told.splitlines()[-1]


def test_a_limit_of_money_needs_a_price(command):
    class Free(Simulator):
        def respond(self, request: Connection) -> Reply:
            reply = super().respond(request)
            return Reply(200, {"data": []}) if request.command == "GET" else reply

    with Free() as server:
        error = command("--max-cost", "1", server=server, code=1).err
        assert f"error: --max-cost needs prices, and the server gives none for {MODEL}" in error
        assert not records()
        printed = command("--iterations", "1", "--no-confirm")
        assert "$" not in printed.out and "cost_usd" not in printed.out


def test_quiet_prints_reports_alone_and_verbose_everything(command):
    run = ("--iterations", "2", "--no-confirm")
    with Simulator() as server:
        quiet = command(*run, "--quiet", "--results", "quiet.json", server=server).out
        verbose = command(*run, "--verbose", "--results", "verbose.json").out
    assert quiet.startswith("\n== report, 2 of 2 experiments")
    assert "  thought" in verbose and "thought" not in quiet
    spoken = " ".join(verbose.split())
    assert all(" ".join(e.response.split()) in spoken for e in proposals("verbose.json"))


def test_check_forecasts_the_run_and_changes_no_file(command, folder):
    with Simulator(models=["a/one", MODEL, "simulated/modem"]) as server:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        out = command("--check", "--iterations", "100", server=server).out
        assert server.counts == {"200": 3}  # the first call, the example, a proposal
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "program.md: the task is asked alone, without inputs; 2 criteria" in out
    assert f"{MODEL} (agent, task, judge); $0.2 in, $0.6 out per million tokens; context" in out
    for name in "calls ", "tokens ", "cost      \\$", "duration  ":
        assert re.search(rf"^  {name}", out, re.M)
    assert re.search(r"^ +\d+\.\d\d  the keywords as a list$", out, re.M)


def test_an_unknown_model_is_told_with_the_nearest_that_are_served(command, monkeypatch):
    monkeypatch.setenv("NEBIUS_MODEL", "simulated/modle")
    with Simulator(models=["a/one", MODEL, "simulated/modem"]) as server:
        for arguments in [], ["--check"]:
            error = command(*arguments, server=server, code=1).err
            assert error.startswith("error: 404 ") and "NEBIUS_MODEL; nearest served: sim" in error
            assert MODEL in error and "a/one" in error


def test_ablation_weighs_each_sentence_and_goes_on_where_it_was_stopped(command):
    with Simulator() as server:
        refused = command("--ablate", server=server, code=1).err
        assert "no winner yet" in refused
        command("--iterations", "8", "--no-confirm")
        stopped = command("--iterations", "8", "--ablate", "--max-tokens", "2000")
        assert "--max-tokens 2000 is reached" in stopped.err
        begun = [e for e in records() if e.kind == "ablation"]
        table = command("--iterations", "8", "--ablate").out
        ended = [e for e in records() if e.kind == "ablation"]
    assert "== what each sentence is worth" in table and "shortened" in table
    assert "results.json: measures each sentence of the best prompt" in stopped.out
    assert "in all" not in stopped.out
    assert begun and ended[: len(begun)] == begun
    assert max(Counter((e.strategy, e.prompt) for e in ended).values()) == 1


# --- threads ---


class Faulty(WorldClient):
    """The simulated model in this process, with some refusals, and a signal at one call."""

    signal_at = 0

    def generate_response(self, *arguments, **named):
        with self.dice_lock:
            chance = self.dice.random()
            if self.signal_at and self.total.calls >= self.signal_at:
                self.signal_at = 0
                os.kill(os.getpid(), signal.SIGINT)
        if chance < 0.01:
            raise APIError("400 bad request: simulated")
        time.sleep(chance / 1000)
        return super().generate_response(*arguments, **named)

    dice, dice_lock = Random(5), threading.Lock()


def test_32_workers_and_a_ctrl_c_leave_every_record_whole(folder, monkeypatch):
    Path("program.md").write_text(LANDSCAPES["quiet"].program, encoding="utf-8")
    begun: list[int] = []
    carry_out = main.carry_out

    def noted(run: main.Run, step: Step) -> Experiment:
        begun.extend([step.iteration] * (step.kind == "proposal"))
        return carry_out(run, step)

    monkeypatch.setattr(main, "carry_out", noted)
    client = Faulty(LANDSCAPES["quiet"], 0)
    client.signal_at = 500
    assert searched(client, workers=32, iterations=1000) == signal.SIGINT
    stopped = records()
    assert numbers([e for e in stopped if e.kind == "proposal"]) == sorted(begun)
    assert searched(client, workers=32, iterations=1000) == 0
    assert numbers(proposals()) == list(range(1, 1001))
    assert records()[: len(stopped)] == stopped
    assert all((e.score is None) == bool(e.error) == (not e.trials) for e in records())


def searched(client: WorldClient, workers: int, iterations: int) -> int:
    """A search as main does it; the signal that ended it."""
    options = parse_arguments(
        ["--quiet", "--workers", f"{workers}", "--iterations", f"{iterations}", "--no-confirm"]
    )
    options.report_every = iterations
    program = load_program(Path("program.md"))
    display = Display(options)
    with Results(Path("results.json")) as results:
        history, _ = open_history(results.experiments, program, client.models, 0.7)
        reports = Reports(display, options)
        night: Nights[Step, Experiment] = Nights(options, client, Interrupted)
        run = main.Run(options, program, client, results, history, display, reports, night)
        main.search(run)
        assert night.fatal is None
    return night.signal


# --- bad input: one line, and nothing is lost ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            None,
            "program.md: cannot be read: no such file or directory; name another file or go to its",
        ),
        ("", "program.md: is empty"),
        ("# Goal\n\nx\n", "program.md: no task; write what the model is asked under '## Task'"),
        ("# Goal\nx\n## Task\ny\n## Criteria\n- words: many\n", "program.md:6: words: expected"),
        ("# Goal\nx\n## Task\ny\n## Criteria\n- charm: 3\n", "program.md:6: "),
        ("# Goal\nx\n## Task\ny\n## Criteria\n- matches: /(/\n", "program.md:6: "),
        (b"# Goal\n\xff\n", "program.md"),
    ],
)
def test_a_program_that_cannot_be_read_is_one_clear_line(command, text, said):
    Path("program.md").unlink()
    if text is not None:
        Path("program.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    error = command(code=1).err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1
    assert not Path("results.json").exists()


@pytest.mark.parametrize("text", ["hello", '{"a": 1}', "[1]", '[{"score": "8"}]', "[NaN]"])
def test_records_that_cannot_be_read_are_refused_and_stay(command, text):
    Path("results.json").write_text(text)
    for arguments in [], ["--report"]:
        error = command(*arguments, code=1).err
        assert error.startswith("error: results.json:1:") and error.count("\n") == 1
        assert Path("results.json").read_text() == text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--iterations", "0"], 2, "argument --iterations: '0' is not a whole number from 1 up"),
        (["--iterations", "x"], 2, "argument --iterations: 'x' is not a whole number from 1 up"),
        (["--max-cost", "nan"], 2, "argument --max-cost: 'nan' is not a number above 0"),
        (["--surprise"], 2, "unrecognized arguments: --surprise; --help lists the options"),
        (["--demo", "--results", "x.json"], 2, "--demo writes demo-results.json; leave out"),
        (["--demo", "--check"], 2, "argument --check: not allowed with argument --demo"),
        (["--results", "no/where.json"], 1, "cannot open no/where.json: folder"),
        (["--results", "."], 1, "cannot open .: is a directory; "),
        (["--report"], 1, "results.json holds no experiments yet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_option_is_one_clear_line(command, arguments, code, said):
    error = command(*arguments, code=code).err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["program.md"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NEBIUS_API_KEY", "", "no API key: set NEBIUS_API_KEY in .env"),
        ("NEBIUS_API_KEY", f"{KEY}\u2026", "NEBIUS_API_KEY has a character"),
        ("NEBIUS_BASE_URL", "token factory", "NEBIUS_BASE_URL is not a URL"),
        ("NEBIUS_BASE_URL", "http://example.org/v1", "the key would travel unencrypted"),
        ("NEBIUS_TEMPERATURE", "hot", "NEBIUS_TEMPERATURE: 'hot' is not a number from 0 to 2"),
        ("NEBIUS_MAX_TOKENS", "0", "NEBIUS_MAX_TOKENS: '0' is not a whole number from 1"),
        ("NEBIUS_ALLOW_HTTP", "maybe", "NEBIUS_ALLOW_HTTP: 'maybe' is not 1 or 0"),
        ("NEBIUS_EXTRA_BODY", "{x", "NEBIUS_EXTRA_BODY: '{x' is not a JSON object"),
        ("NEBIUS_EXTRA_BODY", '{"x": NaN}', "NEBIUS_EXTRA_BODY: '{\"x\": NaN}' is not a JSON ob"),
        ("NEBIUS_EXTRA_BODY", '{"model": "x"}', "NEBIUS_EXTRA_BODY must not set 'model'"),
    ],
)
def test_a_wrong_variable_is_one_clear_line(command, monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    for arguments in [], ["--check"]:
        error = command(*arguments, code=1).err
        assert error.startswith(f"error: {said}") and error.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["program.md"]


def test_an_env_file_that_is_not_utf_8_is_one_clear_line(command):
    Path(".env").write_bytes(b"NEBIUS_API_KEY=\xff\xfe\n")
    error = command(code=1).err
    assert error.startswith("error: .env cannot be read: ") and "UTF-8" in error
    assert error.count("\n") == 1


def test_other_names_in_the_env_file_are_nobodys_business(command):
    Path(".env").write_text("NEBIUS_API_KEY_OLD=x\nNEBIUS_MODEL_2=y\nexport EDITOR=vi\n")
    with Simulator() as server:
        command("--iterations", "1", "--no-confirm", server=server)


def test_a_server_that_is_not_there_is_told_soon(command, monkeypatch):
    monkeypatch.setattr("autoresearch.api.pace.SETUP_PATIENCE", 0.2)
    monkeypatch.setenv("NEBIUS_BASE_URL", "http://127.0.0.1:9/v1")
    *_, error = command(code=1).err.splitlines()
    assert error.startswith("error: no connection to 127.0.0.1:9: ")
    assert error.endswith("refused: check NEBIUS_BASE_URL and the network")


def test_a_reader_that_has_gone_away_ends_the_run_quietly_when_all_is_recorded():
    with Metered(latency=0.1) as server, Night(server, "--workers", "8") as night:
        night.until("^iteration 1/")
        assert night.process.stdout
        night.process.stdout.close()
        night.process.stdout = None
        assert night.end(1).err == ""
        assert server.lost() == 0
    assert len(proposals()) < 250


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_an_output_that_takes_no_more_ends_the_run_when_all_is_recorded():
    with Metered(latency=0.05) as server, open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, main.__file__],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            env={**os.environ, "NEBIUS_BASE_URL": server.url},
        )  # fmt: skip
        assert server.lost() == 0
    assert ended.returncode == 1
    assert (
        ended.stderr
        == "error: what this command prints cannot be written: no space left on device\n"
    )


def test_without_any_output_the_run_goes_on():
    with Simulator() as server:
        ended = subprocess.run(
            f"exec {sys.executable} {main.__file__} --iterations 5 --no-confirm >&- 2>&-",
            shell=True, timeout=60, env={**os.environ, "NEBIUS_BASE_URL": server.url},
        )  # fmt: skip
    assert ended.returncode == 0 and len(proposals()) == 5


def test_an_error_that_nobody_foresaw_still_records_what_runs(command, monkeypatch):
    add = History.add

    def fails(history: History, experiment: Experiment) -> bool:
        if experiment.iteration == 3:
            raise RuntimeError("a bug of ours")
        return add(history, experiment)

    monkeypatch.setattr(History, "add", fails)
    with Metered(latency=0.05) as server:
        with pytest.raises(RuntimeError):
            command("--workers", "8", server=server)
        assert server.lost() == 0


def test_what_a_server_says_reaches_the_terminal_without_commands(command, monkeypatch):
    monkeypatch.setenv("NEBIUS_MODEL", "other")
    with Simulator(models=["m\x1b]0;owned\x07\x1b[2J"]) as server:
        error = command(server=server, code=1).err
    assert "\x1b" not in error and "\\u001b" in error


@pytest.mark.parametrize(
    "line, said",
    [
        ("NEBIUS_MODLE=x", ".env: NEBIUS_MODLE is no setting; did you mean NEBIUS_MODEL?"),
        ("what is this", ".env, line 3: not NAME=value; a '#' begins a comment"),
    ],
)
def test_a_slip_in_the_env_file_is_one_clear_line(command, monkeypatch, line, said):
    monkeypatch.delenv("NEBIUS_MODEL")
    Path(".env").write_text(f"# mine\n\n{line}\n")
    assert command(code=1).err == f"error: {said}\n"


def test_a_python_without_the_requirements_is_told_in_one_line():
    command = [sys.executable, "-S", "-E", main.__file__, "--help"]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == 1 and ended.stderr.count("\n") == 1
    assert "is not installed here: see README.md" in ended.stderr


def test_the_help_stands_without_a_program(command):
    Path("program.md").unlink()
    assert "usage: python main.py" in command("--help").out
