"""report.html as a file and as Chromium shows it: `pytest tests/test_page.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from autoresearch.files.inputs import Input
from autoresearch.files.program import Program
from autoresearch.files.record import Experiment, Trial
from autoresearch.files.results import write_whole
from autoresearch.options import parse_arguments
from autoresearch.report import page as module
from autoresearch.report.page import differences, page
from autoresearch.report.terminal import Display
from autoresearch.search.history import History
from tests.benchmarks.page import chromium, night, no_browser, open_page, requests_made

EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'><!-- "


def write(
    path: Path,
    history: History,
    program: Program | None = None,
    running: bool = False,
    simulated: bool = False,
) -> str:
    shown = Display(parse_arguments([]), program, simulated)
    write_whole(path, page(history, shown, running))
    return path.read_text(encoding="utf-8")


EVIL_PROGRAM = Program(EVIL, EVIL, (Input("", EVIL), Input(EVIL)), (), (), EVIL, EVIL, EVIL)


def planted() -> History:
    """A short night whose every text is an attack."""
    history = night(60)
    trial = Trial("", EVIL, 9.9, {EVIL: 0.9}, EVIL)
    texts: dict[str, Any] = {"prompt": EVIL, "thought": EVIL, "response": EVIL, "timestamp": EVIL}
    for number in range(61, 65):
        e = Experiment(
            number, strategy=3 * EVIL, score=9.9, trials=(trial,) * 4, models={EVIL: EVIL}
        )
        history.add(replace(e, **texts))
    history.add(Experiment(65, strategy="explore", error=EVIL))
    hidden = "lone \ud800 half, nul \0, bidi \u202e"
    history.add(replace(e, iteration=66, prompt=hidden, strategy=""))
    return history


def labelled() -> History:
    """A baseline and a leader over three inputs: one wrong, one wavering, one right."""
    right = {"sky": (0, 0, 0, 0), "sea": (10, 0, 10, 10), "sun": (10, 10, 10, 10)}

    def trial(text: str, score: float) -> Trial:
        reply = f"{'right' if score else 'wrong'} about the {text}"
        return Trial(text, reply, score, {"equals: {expected}": score / 10}, "")

    def made(number: int, kind: str, passes: list[dict[str, float]], strategy: str = ""):
        trials = [trial(text, score) for each in passes for text, score in each.items()]
        return Experiment(number, kind, strategy, prompt=f"p{number}").scored(trials)

    plain = dict.fromkeys(right, 0.0)
    history = History([made(0, "baseline", [plain] * 4)])
    each = [{text: float(scores[i]) for text, scores in right.items()} for i in range(4)]
    history.add(made(1, "proposal", each, strategy="refine"))
    return history


# --- the file ---


def test_it_loads_nothing_from_elsewhere_and_tells_when_it_was_written(tmp_path: Path) -> None:
    shown = write(tmp_path / "report.html", night(30), simulated=True)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", shown)
    assert re.search(r"written \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", shown) and ">simulated<" in shown
    assert len(write(tmp_path / "empty.html", History())) < 50_000  # of 0.5 MB without its data


def test_every_record_stands_in_it(tmp_path: Path) -> None:
    history = night(30)
    shown = write(tmp_path / "report.html", history)
    assert re.findall(r'data-score="([^"]+)"', shown) == [str(e.score) for e in history.experiments]
    assert history.experiments[3].trials[0].response in shown.replace("&#39;", "'")


def test_long_texts_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_TEXT", 100_000)
    shown = write(tmp_path / "report.html", night(60, words=20))
    assert "more characters in the results file]" in shown
    assert len(shown) < 250_000


def test_the_last_page_does_not_refresh(tmp_path: Path) -> None:
    shown = write(tmp_path / "report.html", night(5))
    assert "setTimeout(refresh, 30000)" not in shown and "refreshes every" not in shown


def test_every_strategy_has_a_colour(tmp_path: Path) -> None:
    shown = write(tmp_path / "report.html", History())
    assert all(f"--{name}: #" in shown for name in (*module.COLOURS, "other"))


def test_a_page_of_nothing_is_written(tmp_path: Path) -> None:
    assert "No experiment has a score yet" in write(tmp_path / "report.html", History())


def test_the_ten_best_do_not_contradict_the_headline(tmp_path: Path) -> None:
    """What was confirmed stands first with its fresh score, whatever the search took it for."""
    shown = write(tmp_path / "report.html", night(60))
    headline = re.search(r"The best prompt scores\s*<b>(\d\.\d\d)</b>", shown)
    first = re.search(r'"score"><div>\s*<b class="confirmed">(\d\.\d\d) confirmed<', shown)
    assert headline and first and headline[1] == first[1]
    assert shown.index(first[0]) == shown.index('"score"><div>')


def test_a_gain_is_no_good_news_where_a_criterion_is_never_met(tmp_path: Path) -> None:
    history = night(40)
    assert '<section class="good">' in write(tmp_path / "report.html", history)
    unmet = History()
    for e in history.experiments:
        never = [replace(t, criteria={"equals: {expected}": 0.0}) for t in e.trials]
        unmet.add(replace(e, trials=tuple(never)))
    assert '<section class="good">' not in write(tmp_path / "report.html", unmet)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("be brief and kind", "be very brief and kind", "span:be |ins:very |span:brief and kind"),
        ("be brief", "be long", "span:be |del:brief|ins:long"),
        ("one two three", "eins zwei drei", "span:eins zwei drei"),
        ("用中文回答", "用英文回答", "span:用|del:中|ins:英|span:文回答"),
        ("", "anything", "span:anything"),
        ("same", "same", "span:same"),
    ],
)
def test_differences_are_by_word(old: str, new: str, parts: str) -> None:
    assert "|".join(f"{op}:{text}" for op, text in differences(old, new)) == parts


# --- in Chromium ---

needs_browser = pytest.mark.skipif(bool(no_browser()), reason=no_browser() or "Chromium is here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The browser with the page of a night of 60, opened once for the tests that only look."""
    path = tmp_path_factory.mktemp("night") / "report.html"
    write(path, night(60))
    open_page(browser, path)
    return browser


def count(browser: Any, selector: str) -> int:
    return int(browser.execute_script(f"return document.querySelectorAll({selector!r}).length"))


def rows(browser: Any, column: int) -> list[str]:
    script = (
        "return [...document.querySelectorAll('#rows > details:not([hidden])')]"
        ".map(r => r.querySelectorAll('summary > span')[%d].textContent.trim())"
    )
    return [str(text) for text in browser.execute_script(script % column)]


def choose(browser: Any, name: str, value: str) -> None:
    browser.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event('input'))",
        name,
        value,
    )


@needs_browser
def test_it_opens_without_an_error_or_a_request(opened: Any) -> None:
    assert opened.get_log("browser") == []
    schemes = [url.split(":")[0] for url in requests_made(opened)]
    assert schemes.count("file") == 1 and set(schemes) <= {"file", "data"}


@needs_browser
def test_the_chart_is_drawn_with_a_line_that_never_runs_backwards(opened: Any) -> None:
    assert count(opened, "#chart circle[data-row]") >= 60
    assert count(opened, "#chart .whisker") == 2  # winner and baseline, confirmed
    path = str(opened.execute_script("return document.getElementById('line').getAttribute('d')"))
    places = [float(x) for x in re.findall(r"[MH]([\d.]+)", path)]
    levels = [float(y) for y in re.findall(r"[,V]([\d.]+)", path)]
    assert len(places) > 3 and places == sorted(places) and places[-1] == 96
    assert any(below > above for above, below in zip(levels, levels[1:], strict=False))  # it falls


@needs_browser
def test_a_dot_tells_number_score_and_prompt(opened: Any) -> None:
    from selenium.webdriver import ActionChains

    dot = opened.find_element("css selector", "#chart circle[data-row=e18]")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", dot)
    ActionChains(opened).move_to_element(dot).perform()
    e = night(60).experiments[17]
    shown = opened.find_element("id", "tip").text
    assert shown.startswith(f"#{e.iteration} · {e.strategy} · {e.score:.2f}")
    assert e.prompt[:60] in shown
    dot.click()
    assert opened.execute_script("return document.getElementById('e18').open")
    opened.execute_script("document.getElementById('e18').open = false")


@needs_browser
def test_a_filter_leaves_the_right_rows(opened: Any) -> None:
    choose(opened, "filter", "#17")
    assert rows(opened, 0) == ["17"]
    choose(opened, "filter", "DICTIONARY hype")
    history = night(60)
    right = [e for e in history.experiments if "dictionary" in e.prompt and "hype" in e.prompt]
    shown = opened.find_element("id", "shown").text
    assert shown == f"{len(right)} of {len(history.experiments)}"
    assert rows(opened, 0) == [str(e.iteration) for e in right]
    choose(opened, "filter", "")
    choose(opened, "kind", "refine")
    assert set(rows(opened, 1)) == {"refine"}
    choose(opened, "kind", "")


@needs_browser
def test_it_sorts_with_failures_last(opened: Any) -> None:
    for order, falling in ("-1", True), ("1", False):
        choose(opened, "order", order)
        scores = rows(opened, 2)
        values = [float(s) for s in scores if s != "failed"]
        assert values == sorted(values, reverse=falling) and scores[-1] == "failed"
    choose(opened, "order", "")
    assert rows(opened, 0)[:3] == ["0", "1", "2"]


@needs_browser
def test_a_row_unfolds(opened: Any) -> None:
    opened.find_element("css selector", "#e2 summary").click()
    shown = opened.find_element("id", "e2").text
    assert "thought" in shown and "A vector database stores embeddings" in shown
    assert "missed" in shown and "tokens" in shown


@needs_browser
def test_the_worst_answers_stand_first(browser: Any, tmp_path: Path) -> None:
    given = tuple(Input(text, "right") for text in ("sky", "sea", "sun"))
    program = Program("g", "t", given, (), (), "", "", "program.md")
    write(tmp_path / "report.html", labelled(), program)
    open_page(browser, tmp_path / "report.html")
    answers = [
        [cell.text for cell in row.find_elements("tag name", "td")]
        for row in browser.find_elements("css selector", "#fails table:first-of-type tr")[1:]
    ]
    assert answers == [
        ["sky", "right", "wrong about the sky", "0 of 4", "0 of 4"],
        ["sea", "right", "wrong about the sea", "3 of 4", "0 of 4"],
        ["sun", "right", "right about the sun", "4 of 4", "0 of 4"],
    ]
    assert "1 of 3 inputs fail: “sky”" in browser.find_element("id", "fails").text


@needs_browser
def test_the_winner_is_copied(opened: Any) -> None:
    opened.execute_script(
        "window.copied = []; navigator.clipboard.writeText = async t => { window.copied.push(t) };"
        "document.querySelector('[data-copy]').click()"
    )
    shown = opened.find_element("css selector", ".prompt").text
    assert opened.execute_script("return window.copied") == [shown]


@needs_browser
def test_it_fits_a_phone(opened: Any) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        until(opened, "return document.documentElement.scrollWidth <= 390")
        outside = (
            "const box = document.querySelector('main').getBoundingClientRect();"
            "return [...document.querySelectorAll('#chart text')].filter(e => {"
            "  const r = e.getBoundingClientRect();"
            "  return r.left < box.left || r.right > box.right }).length"
        )
        assert opened.execute_script(outside) == 0  # no label leaves the chart
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_what_a_model_wrote_never_runs(browser: Any, tmp_path: Path) -> None:
    browser.get_log("browser")
    requests_made(browser)
    write(tmp_path / "report.html", planted(), EVIL_PROGRAM)
    open_page(browser, tmp_path / "report.html")
    choose(browser, "filter", "onerror")
    browser.execute_script("document.querySelectorAll('details').forEach(r => { r.open = true })")
    browser.execute_script(
        "[...document.querySelectorAll('[data-row]')].at(-1).dispatchEvent("
        "new PointerEvent('pointermove', {bubbles: true}))"
    )
    assert browser.execute_script("return window.broken === undefined")
    assert count(browser, "main img") == 0
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert rows(browser, 0) == ["61", "62", "63", "64", "65", "66"]
    assert EVIL.strip() in browser.find_element("css selector", "#rows details[data-n='61']").text
    assert EVIL.strip() in browser.find_element("id", "program").text
    assert browser.get_log("browser") == []
    assert {url.split(":")[0] for url in requests_made(browser)} <= {"file", "data"}


@needs_browser
def test_it_refreshes_while_the_run_goes_on_and_keeps_the_filter(
    browser: Any, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    shown = write(path, night(5, confirmed=False), running=True)
    assert "refreshes every 30 s" in shown and shown.count("setTimeout(refresh, 30000)") == 1
    path.write_text(shown.replace("30000", "2000"), "utf-8", "backslashreplace")
    open_page(browser, path)
    choose(browser, "filter", "#3")
    browser.execute_script("window.old = true")
    until(browser, "return !window.old && document.documentElement.dataset.ready")
    assert rows(browser, 0) == ["3"]


def until(browser: Any, script: str) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 30).until(lambda b: b.execute_script(script))
