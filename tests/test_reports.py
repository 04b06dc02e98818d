"""What lies beside the results file, and --report: `pytest tests/test_reports.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from autoresearch.api.models import TEMPERATURES
from autoresearch.files.program import Program, load_program
from autoresearch.files.results import Results, ResultsError
from autoresearch.options import parse_arguments
from autoresearch.report.reports import Reports, show_report
from autoresearch.report.terminal import Display
from autoresearch.search.history import History
from autoresearch.search.series import open_history
from tests.test_findings import experiment, morning

RESULTS = Path("results.json")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def asks(task: str) -> tuple[Program, str]:
    """The program.md that is there from now on, and its digest."""
    Path("program.md").write_text(
        f"# Goal\n{task} well.\n## Task\n{task}\n## Criteria\n- words: 1-9"
    )
    program = load_program(Path("program.md"))
    return program, program.digests("m", TEMPERATURES["task"])[-1]


def recorded(task: str) -> tuple[Program, str]:
    """A night of that task, confirmed, at the end of results.json."""
    program, digest = asks(task)
    models = dict.fromkeys(("agent", "task", "judge"), "m")
    with Results(RESULTS) as results:
        for e in morning().experiments:
            asked = {"program": digest, "criteria": program.criteria_digest(), "models": models}
            results.append(replace(e, prompt=f"{task}: {e.prompt}", **asked))
    return program, digest


def report(*arguments: str) -> int:
    return show_report(parse_arguments(["--report", *arguments]))


@pytest.mark.parametrize(
    ("results", "page"),
    [
        ("results.json", "report.html"),
        ("demo-results.json", "demo-report.html"),
        ("x.json", "x-report.html"),
    ],
)
def test_the_page_is_named_after_the_results(results: str, page: str) -> None:
    options = parse_arguments(["--quiet"])
    options.results = Path(results)
    assert Reports(Display(options), options).conclude(History()) and Path(page).exists()


# --- which series ---


def test_the_report_is_of_the_program_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Two tasks in one file, program.md of the first restored."""
    recorded("Sing")
    assert report() == 0
    recorded("Dance")
    assert report() == 0
    _, sings = asks("Sing")
    capsys.readouterr()
    assert report() == 0
    out = capsys.readouterr().out
    assert "task       program.md: Sing well." in out and "Sing: prompt 2" in out
    # the file does not know how many were asked for
    assert "== report, 2 experiments ==" in out and " of 250" not in out
    page = Path("report.html").read_text()
    assert "2 experiments, written" in page and "of 250" not in page
    assert "Sing: prompt 2" in Path("best-prompt.txt").read_text()
    assert f'content="{sings[:6]}"' in Path("report.html").read_text()


def test_a_program_without_records_is_told_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, digest = recorded("Sing")
    asks("Dance")
    with pytest.raises(ResultsError) as caught:
        report()
    held = len(morning().experiments)
    assert str(caught.value) == (
        f"results.json holds no records of program.md as it is, but {digest[:6]} ({held} records); "
        "--report NAME shows one"
    )
    assert not Path("report.html").exists()


def test_another_series_is_shown_by_its_name_in_files_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, sings = recorded("Sing")
    recorded("Dance")
    report()
    page = Path("report.html").read_text()
    assert report(sings[:6]) == 0
    assert f"series {sings[:6]}, which" in capsys.readouterr().out
    assert Path("report.html").read_text() == page
    assert "Sing: prompt 2" in Path(f"report-{sings[:6]}.html").read_text()
    assert "Sing: prompt 2" in Path(f"best-prompt-{sings[:6]}.txt").read_text()
    with pytest.raises(ResultsError, match="no records of series nosuch"):
        report("nosuch")


def test_a_digest_that_is_none_of_ours_names_no_file_elsewhere(tmp_path: Path) -> None:
    recorded("Sing")
    text = Path(RESULTS).read_text()
    Path(RESULTS).write_text(re.sub('"program": "[0-9a-f]+"', '"program": "../../x"', text))
    assert report("../") == 0
    assert Path("report-______.html").exists() and not list(tmp_path.parent.glob("*.html"))


def test_a_broken_program_does_not_hide_a_series_that_is_named() -> None:
    _, sings = recorded("Sing")
    Path("program.md").write_text("# Nonsense\n")
    assert report(sings) == 0


# --- what an earlier series left ---


def test_a_new_series_renames_what_the_one_before_left(capsys: pytest.CaptureFixture[str]) -> None:
    _, sings = recorded("Sing")
    report()
    program, dances = asks("Dance")
    options = parse_arguments([])
    reports = Reports(Display(options, program), options)
    with Results(RESULTS) as results:
        capsys.readouterr()
        history = History(series=dances)
        reports.begin(history, results.experiments)
    assert capsys.readouterr().out == (
        f"from before the change: best-prompt.txt is now best-prompt-{sings[:6]}.txt, "
        f"report.html is now report-{sings[:6]}.html\n"
    )
    assert not Path("best-prompt.txt").exists() and not Path("report.html").exists()
    assert "Sing: prompt 2" in Path(f"best-prompt-{sings[:6]}.txt").read_text()
    reports.conclude(history)  # stopped early: nothing of the old task is left as if it were new
    assert not Path("best-prompt.txt").exists()
    assert f'content="{dances[:6]}"' in Path("report.html").read_text()


def test_other_criteria_rename_the_best_prompt_by_those_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped early, nothing chosen by the old criteria is left as if it were new."""
    _, sings = recorded("Sing")
    report()
    Path("program.md").write_text(Path("program.md").read_text().replace("1-9", "50-90"))
    program, options = load_program(Path("program.md")), parse_arguments(["--quiet"])
    reports = Reports(Display(options, program), options)
    with Results(RESULTS) as results:
        models = results.experiments[0].models
        history, _ = open_history(results.experiments, program, models, TEMPERATURES["task"])
        reports.begin(history, results.experiments)
    assert not Path("best-prompt.txt").exists() and Path("report.html").exists()
    assert "Sing: prompt 2" in Path(f"best-prompt-{sings[:6]}.txt").read_text()


def test_files_that_do_not_say_whose_they_are_belong_to_the_last_record() -> None:
    program, dances = asks("Dance")
    Path("best-prompt.txt").write_text("old")
    options = parse_arguments([])
    reports = Reports(Display(options, program), options)
    last = experiment(1, [5.0], program=dances)
    reports.begin(History(series=dances), [last])
    assert Path("best-prompt.txt").exists()
    reports.begin(History(series="other"), [last])
    assert Path(f"best-prompt-{dances[:6]}.txt").read_text() == "old"


def test_the_same_series_goes_on_in_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    recorded("Sing")
    report()
    capsys.readouterr()
    report()
    assert "is now" not in capsys.readouterr().out
    assert sorted(p.name for p in Path().glob("*-*")) == ["best-prompt.txt"]


def test_a_page_that_cannot_be_written_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    recorded("Sing")
    Path("report.html").mkdir()
    assert report() == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: report.html was not written: ")
    assert "files      best-prompt.txt\n" in printed.out


def test_the_best_prompt_is_there_to_paste() -> None:
    recorded("Sing")
    report()
    assert Path("best-prompt.txt").read_text() == "Sing: prompt 2\n"


def test_no_page_is_drawn_more_often_than_it_may_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = recorded("Sing")
    options = parse_arguments(["--quiet"])
    reports = Reports(Display(options, program), options)
    reports.progress(History([experiment(0, [5.0])]))
    assert not Path("report.html").exists()
    reports.next_page = 0.0
    reports.progress(History([experiment(0, [5.0])]))
    assert "refreshes every 30 s" in Path("report.html").read_text()
