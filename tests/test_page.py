"""report.html as a file and as Chromium shows it: `pytest tests/test_page.py`."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from autoresearch.files.record import Experiment, Trial
from autoresearch.report import page as module
from autoresearch.report.page import differences, write_page
from autoresearch.search.history import History
from tests.benchmarks.page import chromium, night, no_browser, open_page, requests_made

EVIL = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'><!-- "


def write(path: Path, history: History, **changes: Any) -> str:
    settings: dict[str, Any] = {"program_text": "# Goal\n", "target": 9}
    settings |= {"running": False, "simulated": False}
    write_page(path, history, **(settings | changes))
    return path.read_text(encoding="utf-8")


def planted() -> History:
    """A short night whose every text is an attack."""
    history = night(60)
    trial = Trial(EVIL, EVIL, 9.9, {EVIL: 1.0}, EVIL)
    texts: dict[str, Any] = {"prompt": EVIL, "thought": EVIL, "response": EVIL, "timestamp": EVIL}
    for number in range(61, 65):
        e = Experiment(number, strategy=EVIL, score=9.9, trials=(trial,) * 4, models={EVIL: EVIL})
        history.add(replace(e, **texts))
    history.add(Experiment(65, strategy="explore", error=EVIL))
    hidden = "lone \ud800 half, nul \0, bidi \u202e"
    history.add(replace(e, iteration=66, prompt=hidden, strategy=""))
    return history


# --- the file ---


def test_it_loads_nothing_from_elsewhere_and_tells_when_it_was_written(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", night(30), simulated=True)
    own = re.sub(r"<script nonce=\"[^\"]*\">/\*\*.*?</script>", "", page, count=1, flags=re.S)
    assert len(own) < 400_000  # what was taken out is plotly.js
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", own)
    assert re.search(r"written \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", own) and ">simulated<" in own


def test_the_data_are_the_records(tmp_path: Path) -> None:
    history = night(30)
    page = write(tmp_path / "report.html", history)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    data = json.loads(found[1])
    assert [e["score"] for e in data["experiments"]] == [e.score for e in history.experiments]
    assert data["experiments"][3]["trials"][0][1] == history.experiments[3].trials[0].response


def test_a_failed_write_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> Iterator[str]:
        yield "x"
        raise OSError(28, "No space left on device")

    path = tmp_path / "report.html"
    before = write(path, night(5))
    monkeypatch.setattr(module, "plotly_js", full)
    with pytest.raises(OSError, match="No space"):
        write(path, night(6))
    assert path.read_text(encoding="utf-8") == before
    assert os.listdir(tmp_path) == ["report.html"]


def test_long_texts_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_TEXT", 50_000)
    monkeypatch.setattr(module, "PAGE_TRIALS", 66)
    history = night(60, words=20)
    page = write(tmp_path / "report.html", history)
    assert "more characters in the results file]" in page
    assert re.search(r'"more":[1-9]', page)
    data = page[page.index('id="data"') : page.index("use strict")]
    assert len(data) < 100_000


def test_the_last_page_does_not_refresh(tmp_path: Path) -> None:
    page = write(tmp_path / "report.html", night(5))
    assert "const RUNNING = false;" in page and "refreshes every" not in page


def test_a_page_of_nothing_is_written(tmp_path: Path) -> None:
    assert "No experiment has a score yet" in write(tmp_path / "report.html", History())


def test_writing_imports_no_plotly(tmp_path: Path) -> None:
    write(tmp_path / "report.html", night(5))
    assert "plotly" not in sys.modules


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("be brief and kind", "be very brief and kind", "same:be |ins:very |same:brief and kind"),
        ("be brief", "be long", "same:be |del:brief|ins:long"),
        ("one two three", "eins zwei drei", "del:one two three\n|ins:eins zwei drei"),
        ("用中文回答", "用英文回答", "same:用|del:中|ins:英|same:文回答"),
        ("", "anything", ""),
        ("same", "same", "same:same"),
    ],
)
def test_differences_are_by_word(old: str, new: str, parts: str) -> None:
    assert "|".join(f"{op}:{text}" for op, text in differences(old, new)) == parts


def test_a_script_cannot_be_left_from_within_json() -> None:
    text = module.script_json({"a": EVIL + "\u2028&"})
    assert json.loads(text) == {"a": EVIL + "\u2028&"}
    assert not re.search("[<>&\u2028]", text)


# --- in Chromium ---

needs_browser = pytest.mark.skipif(bool(no_browser()), reason=no_browser() or "Chromium is here")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The browser with the page of a night of 60, opened once for the tests that only look."""
    page = tmp_path_factory.mktemp("night") / "report.html"
    write(page, night(60), target=60)
    open_page(browser, page)
    return browser


def count(browser: Any, selector: str) -> int:
    return int(browser.execute_script(f"return document.querySelectorAll({selector!r}).length"))


def rows(browser: Any, column: int) -> list[str]:
    script = "return [...document.querySelectorAll('#rows tr.row')].map(r => r.cells[%d].innerText)"
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
def test_the_chart_is_drawn(opened: Any) -> None:
    assert count(opened, "#chart .scatterlayer .point") >= 60
    assert count(opened, "#chart .errorbar") == 2  # winner and baseline, confirmed
    assert count(opened, "svg.spark polyline") == 3


@needs_browser
def test_a_filter_leaves_the_right_rows(opened: Any) -> None:
    choose(opened, "filter", "#17")
    assert rows(opened, 0) == ["17"]
    choose(opened, "filter", "DICTIONARY hype")
    history = night(60)
    right = [e for e in history.experiments if "dictionary" in e.prompt and "hype" in e.prompt]
    shown = opened.find_element("id", "shown").text
    assert shown == f"{len(right)} of {len(history.experiments)} records"
    assert rows(opened, 0)[:20] == [str(e.iteration) for e in right[:20]]
    choose(opened, "filter", "")
    choose(opened, "kind", "refine")
    assert set(rows(opened, 1)) == {"refine"}
    choose(opened, "kind", "")


@needs_browser
def test_it_sorts_with_failures_last(opened: Any) -> None:
    button = opened.find_element("css selector", "[data-sort=score]")
    for falling in (True, False):
        opened.execute_script("arguments[0].click()", button)
        opened.execute_script("while (!$('more').hidden) $('more').click()")
        scores = rows(opened, 2)
        values = [float(s) for s in scores if s != "failed"]
        assert values == sorted(values, reverse=falling) and scores[-1] == "failed"


@needs_browser
def test_a_row_unfolds_and_folds(opened: Any) -> None:
    fold = "document.querySelectorAll('#rows tr.row')[1].click()"
    opened.execute_script(fold)
    shown = opened.find_element("css selector", "#rows tr.open").text
    assert "thought" in shown and "A vector database stores embeddings" in shown
    assert "words: 60-120" in shown and "tokens" in shown
    opened.execute_script(fold)
    assert count(opened, "#rows tr.open") == 0


@needs_browser
def test_the_winner_is_copied(opened: Any) -> None:
    opened.execute_script(
        "window.copied = []; copy = async text => { window.copied.push(text) };"
        "document.querySelector('[data-copy=best]').click()"
    )
    shown = opened.find_element("id", "best").text
    assert opened.execute_script("return window.copied") == [shown]


@needs_browser
def test_it_fits_a_phone(opened: Any) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        until(opened, "return document.documentElement.scrollWidth <= 390")
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@needs_browser
def test_what_a_model_wrote_never_runs(browser: Any, tmp_path: Path) -> None:
    browser.get_log("browser")
    requests_made(browser)
    write(tmp_path / "report.html", planted(), program_text=EVIL)
    open_page(browser, tmp_path / "report.html")
    choose(browser, "filter", "onerror")
    browser.execute_script("document.querySelectorAll('#rows tr.row').forEach(r => r.click())")
    browser.execute_script("Plotly.Fx.hover('chart', [{curveNumber: 0, pointNumber: 0}])")
    assert browser.execute_script("return window.broken === undefined")
    assert count(browser, "main img") == 0
    assert rows(browser, 0) == ["61", "62", "63", "64", "65", "66"]
    assert EVIL.strip() in browser.find_element("css selector", "#rows tr.open").text
    assert browser.get_log("browser") == []
    assert {url.split(":")[0] for url in requests_made(browser)} <= {"file", "data"}


@needs_browser
def test_it_refreshes_while_the_run_goes_on_and_keeps_the_filter(
    browser: Any, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    page = write(path, night(5, confirmed=False), running=True)
    assert "refreshes every 30 s" in page and page.count("setTimeout(refresh, 30000)") == 1
    path.write_text(page.replace("30000", "2000"), "utf-8", "backslashreplace")
    open_page(browser, path)
    choose(browser, "filter", "#3")
    browser.execute_script("window.old = true")
    until(browser, "return !window.old && document.documentElement.dataset.ready")
    assert rows(browser, 0) == ["3"]


def until(browser: Any, script: str) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 30).until(lambda b: b.execute_script(script))
