"""results.json: append, load, cut, mend, lock. Run: pytest tests/test_results.py"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from autoresearch.files.record import Experiment, Trial
from autoresearch.files.results import Results, ResultsError, load, write_whole
from autoresearch.text import mended

ROOT = Path(__file__).parent.parent
TRIAL = Trial("Où ?", 'said "so"\n\tтак 🙂', 7.5, {"words: 60-120": 0.75}, "too long")
FIRST = Experiment(0, "baseline", prompt="é", score=7.5, trials=(TRIAL, TRIAL), models={"a": "b"})
SECOND = Experiment(1, thought="t\\", score=None, error='x"', tokens=5, cost=0.5, seconds=1.5)
ODD_TEXTS = [
    "\x00\x01\x1f\x7f\x85",
    "🙂👩‍👩‍👧",
    "שלום مرحبا",
    "x" * 1_000_000,
]
ODD_TEXTS += ["\u2028\u2029", "\r\n", "\ufeff", "\\u0041", "\ufffe\uffff"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.json"


def written(path: Path, *experiments: Experiment) -> bytes:
    path.unlink(missing_ok=True)
    with Results(path) as results:
        for experiment in experiments:
            results.append(experiment)
    return path.read_bytes()


def reopened(path: Path) -> tuple[list[Experiment], list[str]]:
    with Results(path) as results:
        return results.experiments, results.notices


# ---- append and load


def test_a_missing_file_is_created_as_an_empty_list(path: Path) -> None:
    assert load(path) == []
    assert not path.exists()
    assert reopened(path) == ([], [])
    assert path.read_bytes() == b"[]\n"


@pytest.mark.parametrize("empty", [b"", b"\n", b"[]", b"[]\n", b" [ ] \r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_an_empty_file_starts_fresh_without_a_word(path: Path, empty: bytes, mark: bytes) -> None:
    empty = mark + empty
    path.write_bytes(empty)
    assert load(path) == []
    assert reopened(path) == ([], [])
    assert path.read_bytes() == b"[]\n"


def test_every_append_leaves_plain_indented_json_that_a_reader_without_a_lock_may_read(
    path: Path,
) -> None:
    with Results(path) as results:
        for count in range(1, 4):
            results.append(replace(FIRST, iteration=count))
            records = json.loads(path.read_bytes())
            assert [record["iteration"] for record in records] == list(range(1, count + 1))
            text = json.dumps(records, indent=2, ensure_ascii=False) + "\n"
            assert path.read_text(encoding="utf-8") == text
            assert load(path) == results.experiments


def test_the_fields_stand_in_the_documented_order(path: Path) -> None:
    record = json.loads(written(path, FIRST))[0]
    assert " ".join(record) == (
        "iteration kind strategy thought prompt response score trials tokens cost seconds "
        "timestamp models program criteria error"
    )
    assert list(record["trials"][0]) == "input response score criteria reason finish".split()


@pytest.mark.parametrize("text", ODD_TEXTS, ids=ascii)
def test_any_text_survives_a_round_trip(path: Path, text: str) -> None:
    trial = Trial(text, text, 1.0, {text: 1.0}, text)
    experiment = replace(SECOND, prompt=text, trials=(trial,), extra={text: text})
    written(path, experiment)
    assert load(path) == [experiment]
    assert reopened(path) == ([experiment], [])


@pytest.mark.parametrize(
    ("text", "kept"),
    [("\ud83d", "\ufffd"), ("a\udc00b", "a\ufffdb"), ("\ud83d\ude42", "🙂")],
    ids=ascii,
)
def test_half_a_surrogate_pair_is_written_and_read_as_a_replacement(
    path: Path, text: str, kept: str
) -> None:
    written(path, replace(FIRST, prompt=text, extra={text: [text]}))
    assert load(path) == [replace(FIRST, prompt=kept, extra={kept: [kept]})]
    records = [{"prompt": text, "mine": {text: text}, "plain": "\\ud83d"}]
    path.write_text(json.dumps(records, indent=2))  # as earlier versions escaped it
    (experiment,) = load(path)
    assert experiment.prompt == kept
    assert experiment.extra == {"mine": {kept: kept}, "plain": "\\ud83d"}
    assert reopened(path)[0] == [experiment]


@pytest.mark.parametrize(
    "bad",
    [
        replace(FIRST, score=float("nan")),
        replace(FIRST, extra={"x": float("inf")}),
        replace(FIRST, extra={"x": object()}),
        replace(FIRST, score="8"),
        replace(FIRST, score=True),
    ],
)
def test_a_record_that_could_not_be_read_back_is_never_written(path: Path, bad: Experiment) -> None:
    before = written(path, FIRST)
    with Results(path) as results:
        with pytest.raises(ResultsError, match="cannot be written"):
            results.append(bad)
        assert path.read_bytes() == before
        results.append(SECOND)
        assert load(path) == results.experiments == [FIRST, SECOND]


def test_appends_never_rewrite_the_file(path: Path) -> None:
    with Results(path) as results:
        inode = path.stat().st_ino
        for _ in range(20):
            before = path.read_bytes()
            results.append(FIRST)
            assert path.read_bytes().startswith(before[:-3])
        assert path.stat().st_ino == inode


def test_passes_are_means_over_the_distinct_inputs() -> None:
    trials = tuple(replace(TRIAL, input=i, score=s) for i, s in zip("abab", (1, 3, 5, 6)))  # noqa: B905
    assert replace(FIRST, trials=trials).passes() == [2.0, 5.5]
    assert replace(FIRST, trials=trials[:3]).passes() == [2.0]
    assert replace(FIRST, trials=()).passes() == [7.5]
    assert SECOND.passes() == []


# ---- what people do to it


@pytest.mark.parametrize("indent", [None, 0, 1, 4, 20, "\t"])
def test_another_layout_is_brought_to_ours_once(path: Path, indent: int | str | None) -> None:
    ours = written(path, FIRST, SECOND, FIRST)
    path.write_text(json.dumps(json.loads(ours), indent=indent), encoding="utf-8")
    experiments, notices = reopened(path)
    assert experiments == [FIRST, SECOND, FIRST]
    assert len(notices) == 1
    assert path.read_bytes() == ours
    assert reopened(path)[1] == []


def test_a_byte_order_mark_and_windows_line_ends_load(path: Path) -> None:
    ours = written(path, FIRST, SECOND)
    for foreign in (b"\xef\xbb\xbf" + ours, ours.replace(b"\n", b"\r\n")):
        path.write_bytes(foreign)
        assert load(path) == [FIRST, SECOND]
        assert reopened(path)[0] == [FIRST, SECOND]
        assert path.read_bytes() == ours


def test_the_four_fields_of_an_older_file_are_enough(path: Path) -> None:
    old = {"prompt": "p", "response": "r", "score": 8, "timestamp": "2026-01-01"}
    path.write_text(json.dumps([old]))
    (experiment,), _ = reopened(path)
    assert experiment == Experiment(None, **{**old, "score": 8.0})
    assert json.loads(path.read_bytes()) == [old]


def test_unknown_fields_stay_also_within_trials(path: Path) -> None:
    record = json.loads(written(path, FIRST))[0]
    record |= {"note": {"mine": [1, None]}, "extra": 1}
    record["trials"][0]["seen"] = True
    path.write_text(json.dumps([record]))
    (experiment,), _ = reopened(path)
    assert experiment.extra == {"note": {"mine": [1, None]}, "extra": 1}
    assert json.loads(path.read_bytes()) == [record]
    with Results(path) as results:
        results.append(experiment)
    assert json.loads(path.read_bytes())[1]["note"] == {"mine": [1, None]}


def test_records_may_be_deleted_reordered_and_have_nulls(path: Path) -> None:
    records = json.loads(written(path, FIRST, SECOND, replace(FIRST, iteration=7)))
    path.write_text(json.dumps([records[2], {**records[0], "thought": None, "trials": None}, {}]))
    assert [e.iteration for e in load(path)] == [7, 0, None]
    assert reopened(path)[0] == load(path)
    assert reopened(path)[1] == []


def test_the_file_of_another_tool_is_refused_and_left_as_it_was(path: Path) -> None:
    """Such as a list of inputs, given by mistake: nothing in it is a field of ours."""
    path.write_text(rows := '[{"input": "a", "expected": "b"}, {"input": "c"}]')
    with pytest.raises(ResultsError, match=r"holds no experiments.*--results"):
        Results(path)
    assert path.read_text() == rows


def test_rewriting_keeps_permissions_and_a_symbolic_link(tmp_path: Path, path: Path) -> None:
    target = tmp_path / "elsewhere" / "real.json"
    target.parent.mkdir()
    target.write_text("[{}, {}]")
    target.chmod(0o640)
    path.symlink_to(target)
    with Results(path) as results:
        results.append(FIRST)
    assert path.is_symlink()
    assert target.stat().st_mode & 0o777 == 0o640
    assert len(load(target)) == 3
    assert os.listdir(target.parent) == ["real.json"]


def test_an_editor_saving_over_the_file_in_mid_run_loses_nothing(path: Path) -> None:
    with Results(path) as results:
        results.append(FIRST)
        results.append(SECOND)
        edited = path.with_name("edited")
        edited.write_text('[{"prompt": "mine"}]')
        os.replace(edited, path)
        results.append(replace(FIRST, iteration=9))
        assert [e.iteration for e in load(path)] == [None, 0, 1, 9]
        assert results.experiments == load(path)
        assert "changed by another program" in results.notices[-1]
        path.unlink()
        results.append(replace(FIRST, iteration=10))
        assert [e.iteration for e in load(path)] == [None, 0, 1, 9, 10]


def test_a_checkout_of_the_empty_file_in_mid_run_loses_no_night_before(path: Path) -> None:
    with Results(path) as results:
        results.append(FIRST)
    with Results(path) as results:
        path.write_text("[]\n")
        results.append(SECOND)
        assert load(path) == [FIRST, SECOND] == results.experiments


def test_what_could_not_be_put_back_is_put_back_the_next_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Results._write
    with Results(path) as results:
        for number in range(1, 5):
            results.append(replace(FIRST, iteration=number))
        path.write_text("[]\n")
        room = iter((True, False))

        def full(self: Results, *records: bytes) -> bool:
            if records and not next(room):
                raise ResultsError("no room")
            return write(self, *records)

        monkeypatch.setattr(Results, "_write", full)
        with pytest.raises(ResultsError, match="no room"):
            results.append(replace(FIRST, iteration=5))
        monkeypatch.undo()
        results.append(replace(FIRST, iteration=6))
    assert [e.iteration for e in load(path)] == [1, 2, 3, 4, 5, 6]


def test_equal_parts_of_one_measurement_are_all_put_back(path: Path) -> None:
    part = replace(FIRST, kind="confirmation", strategy="final")
    with Results(path) as results:
        for each in (part, part, replace(part, strategy="round 1")):
            results.append(each)
        path.write_text("[]\n")
        results.append(SECOND)
    assert [e.strategy for e in load(path)][:3] == ["final", "final", "round 1"]


# ---- torn tails


def layouts() -> Iterator[tuple[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        ours = written(Path(folder, "results.json"), FIRST, SECOND)
    records = json.loads(ours)
    yield "ours", ours
    yield "compact", json.dumps(records, ensure_ascii=False, separators=(",", ":")).encode()
    yield "deeply indented", json.dumps(records, ensure_ascii=False, indent=24).encode()
    yield "escaped", json.dumps(records, indent=1).encode()
    yield "windows", b"\xef\xbb\xbf" + ours.replace(b"\n", b"\r\n")
    yield "odd", b' [ {"a":-1.5e+3,"b":[true,[],{}],"c":{"d":null},"score":null,"kind":"x"} , {} ] '


LAYOUTS = dict(layouts())


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_cut_at_any_byte_keeps_every_whole_record(name: str, tmp_path: Path) -> None:
    content = LAYOUTS[name]
    path, torn = tmp_path / "results.json", tmp_path / "results.json.torn"
    path.write_bytes(content)
    whole = load(path)
    spans = record_spans(content)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        kept = [end for _, end in spans if end <= length]
        assert load(path) == whole[: len(kept)]
        assert path.read_bytes() == content[:length]
        near_an_end = length < 8 or len(content) - length < 8
        if near_an_end or length % (len(content) // 50 + 1) == 0:  # opening calls fsync: slow
            experiments, notices = reopened(path)
            assert experiments == whole[: len(kept)] == load(path)
            if torn.exists():
                assert len(notices) == 1
                assert content[kept[-1] if kept else 0 : length] == torn.read_bytes()
                torn.unlink()
            else:
                rest = content[kept[-1] if kept else 0 : length]
                assert rest.strip() in (b"", b"]", b"\xef\xbb\xbf")
            assert reopened(path) == (experiments, [])


def record_spans(content: bytes) -> list[tuple[int, int]]:
    text = content.decode("utf-8-sig")
    mark = len(content) - len(text.encode())
    spans, at = [], 0
    while (start := text.find("{", at)) >= 0:
        _, at = json.JSONDecoder().raw_decode(text, start)
        spans.append((mark + len(text[:start].encode()), mark + len(text[:at].encode())))
    return spans


def test_an_earlier_torn_file_is_never_overwritten(path: Path) -> None:
    content = written(path, FIRST, SECOND)
    for cut in (9, 10, 11):
        path.write_bytes(content[:-cut])
        (experiment,), (notice,) = reopened(path)
        assert experiment == FIRST
        assert "results.json.torn" in notice
    tails = [path.with_name(f"results.json.torn{n}").stat().st_size for n in ("", ".1", ".2")]
    assert tails == [tails[0], tails[0] - 1, tails[0] - 2]


@pytest.mark.parametrize("kept", [0, 1, -60, -3, -1, None])
def test_a_tail_of_nul_bytes_is_torn(path: Path, kept: int | None) -> None:
    content = written(path, FIRST, SECOND)[:kept]
    path.write_bytes(content + bytes(5000))
    whole = [FIRST, SECOND][: 2 if kept is None or kept >= -3 and kept < 0 else int(kept < 0)]
    assert load(path) == whole
    experiments, notices = reopened(path)
    assert experiments == whole
    assert len(notices) == 1
    torn = path.with_name("results.json.torn").read_bytes()
    assert (content + bytes(5000)).endswith(torn)


def test_a_long_record_cut_in_a_character_heals(path: Path) -> None:
    content = written(path, FIRST, replace(FIRST, response="🙂" * 800_000))
    for nul in (b"", bytes(5000)):
        path.write_bytes(content[:2_500_001] + nul)
        assert reopened(path)[0] == [FIRST]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
text = st.text(st.characters(exclude_categories=()), max_size=30).map(mended)
number = st.floats(allow_nan=False, allow_infinity=False)
experiments = st.builds(
    Experiment,
    iteration=st.none() | st.integers(),
    kind=text,
    prompt=text,
    response=text,
    score=st.none() | number,
    trials=st.lists(
        st.builds(Trial, text, text, number, st.dictionaries(text, number), text, text), max_size=3
    ).map(tuple),
    tokens=st.none() | st.integers(),
    models=st.dictionaries(text, text, max_size=3),
    error=st.none() | text,
    extra=st.dictionaries(text.map("x".__add__), st.integers() | text, max_size=3),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(experiments, max_size=4), st.integers(0), experiments)
def test_whatever_is_appended_cut_and_reopened_is_never_lost(
    several: list[Experiment], where: int, later: Experiment
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        content = written(path, *several)
        assert load(path) == several
        cut = where % (len(content) + 1)
        path.write_bytes(content[:cut])
        kept = several[: sum(end <= cut for _, end in record_spans(content))]
        with Results(path) as results:
            assert results.experiments == kept
            results.append(later)
        assert reopened(path) == ([*kept, later], [])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(text, values, max_size=3), max_size=3), st.sampled_from([None, 3]))
def test_arbitrary_records_load_or_are_refused_and_never_change(
    records: list[dict[str, Any]], indent: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.json")
        path.write_text(json.dumps(records, indent=indent))
        try:
            reopened(path)
        except ResultsError:
            pass
        assert json.loads(path.read_bytes()) == json.loads(json.dumps(records))


# ---- broken in any other way


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        (b'[\n  {"a": 1}\n  {"b": 2}\n]\n', "3:3", "expected ',' or ']'"),
        (b'[{"a": 1}, {"a": 1 "b": 2}, {}]', "1:20", "expected ',' or '}'"),
        (b'{"a": 1}', "1:1", "must hold a list"),
        (b'"text"', "1:1", "must hold a list"),
        (b"hello", "1:1", "invalid character"),
        (b"[{}, 1, {}]", "1:6", "record 2: must be an object"),
        (b"[[]]", "1:2", "record 1: must be an object"),
        (b'[{},\n {"score": NaN}]', "2:12", "invalid character"),
        (b'[{"NaN": "-Infinity", "score": -Infinity}]', "1:33", "invalid character"),
        (b'[{"note": 1e999}]', "1:2", "record 1: number out of range"),
        (b'[{"score": 1e999}]', "1:2", "record 1: number out of range"),
        (b'[{}]\n\xc3\xa9{}', "2:1", "trailing characters"),
        ('[{"é": "'.encode() + b'\xff"}]', "1:9", "invalid UTF-8"),
        (b'[{"a": "\xed\xa0\x80"}]', "1:9", "invalid UTF-8"),
        (b"[{}] []", "1:6", "trailing characters"),
        (b'[{"a": "cut\n  {"b": 1}\n]\n', "1:12", "invalid character"),
        (b'[{"a": 1,\n  {"b": 1}\n]\n', "2:3", "object keys must be strings"),
        (b"[{}\0, {}]", "1:4", "expected ',' or ']'"),
        (b"[" * 100_000, "1:", ""),
        (b'[{"a":' + b"[" * 100_000, "1:2", "nested too deeply"),
        (b'[{},\n{"score": "8/10"}]', "2:1", "record 2: score: expected float | null, got str"),
        (b'[{"score": true}]', "1:2", "score: expected float | null, got bool"),
        (b'[{"score": ' + b"9" * 400 + b"}]", "1:2", "score: number out of range"),
        (b'[{"iteration": 1.5}]', "1:2", "iteration: expected int | null, got float"),
        (b'[{"prompt": 5}]', "1:2", "prompt: expected str, got int"),
        (b'[{"trials": {}}]', "1:2", "trials: expected array, got object"),
        (b'[{"trials": [1]}]', "1:2", "trials[0]: expected object, got int"),
        (b'[{"trials": [{"input": "x"}]}]', "1:2", "trials[0]: object missing required"),
        (b'[{"trials": [{"score": "x"}]}]', "1:2", "trials[0].score: expected float, got str"),
        (b'[{"trials": [{"score": 1, "criteria": {"a": "b"}}]}]', "1:2", "[0].criteria: expected"),
        (b'[{"models": {"a": 1}}]', "1:2", "models: expected str, got int"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_place_and_left_alone(
    path: Path, content: bytes, place: str, problem: str
) -> None:
    path.write_bytes(content)
    for read in (load, Results):
        with pytest.raises(ResultsError) as error:
            read(path)
        message = str(error.value)
        assert message.startswith(f"{path}:{place}")
        assert problem in message
        assert "nothing was changed" in message
        assert "\n" not in message
    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["results.json"]


def test_the_place_is_right_far_into_a_large_file(path: Path) -> None:
    content = written(path, *[replace(FIRST, prompt="é" * 100_000)] * 40)
    lines = content.decode().split("\n")
    number = len(lines) - 50
    lines[number] = lines[number].replace(":", "", 1)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ResultsError, match=rf":{number + 1}:\d+: record 39: expected ':'"):
        load(path)


@pytest.mark.parametrize("name", [".", "missing/results.json", "file/results.json", "pipe"])
def test_a_path_that_is_no_file_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ResultsError) as error:
        Results(tmp_path / name)
    assert "\n" not in str(error.value)
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_or_file_that_cannot_be_written_is_refused_at_once(path: Path) -> None:
    path.write_text("[]\n")
    for locked, mode in ((path, 0o444), (path.parent, 0o555)):
        locked.chmod(mode)
        with pytest.raises(ResultsError, match="permission denied"):
            Results(path)
        locked.chmod(0o755)


# ---- a full disk

FILL = """
import resource, sys
from pathlib import Path
from autoresearch.files.results import Experiment, Results, ResultsError
path = Path(sys.argv[1])
with Results(path) as results:
    if len(sys.argv) > 2:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
    for number in range(10_000):
        before = path.read_bytes()
        try:
            results.append(Experiment(number, prompt="x" * 900))
        except ResultsError as error:
            assert path.read_bytes() == before, "the file changed"
            if len(sys.argv) > 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
                results.append(Experiment(number, prompt="x" * 900))
            print(number, error)
            break
"""


def fill(path: Path, *limit: str) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, "-c", FILL, str(path), *limit],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    number, _, message = run.stdout.partition(" ")
    return int(number), message


def test_a_file_size_limit_leaves_the_file_as_it_was(path: Path) -> None:
    number, message = fill(path, "10000")
    assert 0 < number < 10
    assert "file too large; make room for at least" in message
    assert f"all {number} earlier experiments are safe" in message
    assert len(load(path)) == number + 1  # room was made, and the run went on
    assert reopened(path)[1] == []


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    try:
        number, message = fill(disk / "results.json")
        assert "no space left on device; make room for at least" in message
        assert f"all {number} earlier experiments are safe" in message
        assert [e.iteration for e in load(disk / "results.json")] == list(range(number))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# ---- one at a time

HOLD = """
import sys, time
from pathlib import Path
from autoresearch.files.results import Experiment, Results
results = Results(Path(sys.argv[1]))
results.append(Experiment(1))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_while_the_file_is_held(
    path: Path, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with pytest.raises(ResultsError) as error:
        Results(Path("results.json"))
    assert str(error.value).startswith("results.json is in use by another run; ")
    Path("link.json").symlink_to("results.json")
    with pytest.raises(ResultsError, match="^link.json is in use by another run"):
        Results(Path("link.json"))
    assert [e.iteration for e in load(path)] == [1]


def test_a_lock_left_by_a_killed_process_does_not_block(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = path.with_name("results.json.lock")
    assert lock.exists()
    with Results(path) as results:
        assert [e.iteration for e in results.experiments] == [1]
        with pytest.raises(ResultsError, match="in use by another run"):
            Results(path)
    assert os.listdir(path.parent) == ["results.json"]


def test_a_refused_file_and_a_closed_one_release_the_lock(path: Path) -> None:
    path.write_text("broken")
    for _ in range(2):
        with pytest.raises(ResultsError, match="invalid character"):
            Results(path)
    path.write_text("[]")
    results = Results(path)
    results.close()
    results.close()
    Results(path).close()


def test_only_one_of_many_at_once_gets_the_file(path: Path) -> None:
    code = HOLD.replace("time.sleep(60)", "time.sleep(0.02); results.close()")
    commands = [[sys.executable, "-c", code, str(path)]] * 6
    runs = [
        subprocess.Popen(c, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    outputs = [run.communicate(timeout=60) for run in runs]
    held = sum(out == "held\n" for out, _ in outputs)
    assert held >= 1
    assert all("in use by" in err for out, err in outputs if not out)
    assert len(load(path)) == held


# ---- other programs' hands in it, in mid-run


def numbers(path: Path) -> list[int | None]:
    return [e.iteration for e in load(path)]


def test_a_broken_file_put_in_its_place_is_left_alone_and_all_is_rescued(path: Path) -> None:
    broken = b'[\n  {"prompt": "mine"},\n]\n'
    with Results(path) as results:
        results.append(FIRST)
    with pytest.raises(ResultsError, match="the night ends"), Results(path) as results:
        results.append(SECOND)
        path.write_bytes(broken)
        for number in (2, 3):  # the second one ended while the first failed
            with pytest.raises(ResultsError, match="all [34] experiments up to now are in"):
                results.append(replace(FIRST, iteration=number))
        raise ResultsError("the night ends")
    assert path.read_bytes() == broken
    assert numbers(path.with_name("results.json.rescued")) == [0, 1, 2, 3]
    assert sorted(os.listdir(path.parent)) == ["results.json", "results.json.rescued"]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_any_more_is_left_alone_and_all_is_rescued(path: Path, kind: str) -> None:
    results = Results(path)
    results.append(FIRST)
    path.unlink()
    os.mkdir(path) if kind == "folder" else os.mkfifo(path)
    with pytest.raises(ResultsError, match="all 2 experiments up to now are in"):
        results.append(SECOND)
    results.close()
    assert numbers(path.with_name("results.json.rescued")) == [0, 1]


def test_what_was_broken_and_is_mended_gets_back_what_it_lacks(path: Path) -> None:
    with Results(path) as results:
        results.append(FIRST)
        path.write_text("[{},]")
        with pytest.raises(ResultsError, match=":1:5: record 2: trailing comma in array; noth"):
            results.append(SECOND)
        path.write_text("[{}]")
        results.append(replace(FIRST, iteration=2))
    assert numbers(path) == [None, 0, 1, 2]


@pytest.mark.parametrize("length", [0, 1, 100, 1_000_000])
@pytest.mark.parametrize("when", ["before", "after", "at the end"])
def test_a_file_cut_or_grown_by_another_program_gets_everything_back(
    path: Path, when: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before our write but after we looked, right after it, and after the last one."""
    import autoresearch.files.results as module

    overwrite = module._overwrite
    with Results(path) as results:
        results.append(FIRST)
        results.append(SECOND)
        cuts = [when] * (when != "at the end")

        def meddled(file: Any, offset: int, data: bytes) -> None:
            now = cuts.pop() if cuts else ""
            if now == "before":
                os.truncate(path, length)
            overwrite(file, offset, data)
            if now == "after":
                os.truncate(path, length)

        monkeypatch.setattr(module, "_overwrite", meddled)
        results.append(replace(FIRST, iteration=2))
        if when == "at the end":
            os.truncate(path, length)
    assert numbers(path) == [0, 1, 2]
    assert "put back" in "".join(results.notices) or length > 100


def test_a_file_replaced_while_we_write_gets_everything_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import autoresearch.files.results as module

    overwrite = module._overwrite
    with Results(path) as results:
        results.append(FIRST)

        def meddled(file: Any, offset: int, data: bytes) -> None:
            monkeypatch.undo()
            path.with_name("edited").write_text('[{"prompt": "mine"}]')
            os.replace(path.with_name("edited"), path)
            overwrite(file, offset, data)

        monkeypatch.setattr(module, "_overwrite", meddled)
        results.append(SECOND)
        assert numbers(path) == [None, 0, 1]


TRUNCATE = """
import os, random, sys, time
for _ in range(int(sys.argv[2])):
    time.sleep(random.random() / 30)
    os.truncate(sys.argv[1], random.choice((0, 0, 1, 500, 3000)))
"""


def test_another_process_that_empties_the_file_again_and_again_loses_nothing(path: Path) -> None:
    with Results(path) as results:
        results.append(FIRST)
        command = [sys.executable, "-c", TRUNCATE, str(path), "25"]
        with subprocess.Popen(command) as process:
            count = 1
            while process.poll() is None:
                results.append(replace(FIRST, iteration=count))
                count += 1
    assert numbers(path) == list(range(count))


# ---- any file put in place whole


def test_a_file_is_replaced_whole_or_not_at_all_and_keeps_its_permissions(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    write_whole(page, ["old"])
    page.chmod(0o640)
    with pytest.raises(OSError, match="mid"):
        write_whole(page, (part for part in ["a", OSError("mid")] if not raised(part)))
    assert page.read_text() == "old"
    write_whole(page, ["half \ud83d, ", b"whole \xc3\xa9"])
    assert page.read_text("utf-8") == "half \ufffd, whole é"
    assert page.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["report.html"]


def raised(part: object) -> bool:
    if isinstance(part, OSError):
        raise part
    return False


def test_no_planted_link_is_followed_and_no_partial_file_stays_for_ever(path: Path) -> None:
    victim = path.with_name("victim")
    victim.write_text("precious")
    for name in ("report.html", "results.json"):
        link, killed = (path.with_name(f".{name}.{n}.partial") for n in (1, 2))
        link.symlink_to(victim)
        killed.write_text("half")
        for each in (link, killed):
            os.utime(each, (0, 0), follow_symlinks=False)
    write_whole(path.with_name("report.html"), ["page"])
    path.write_text("[{}]")
    reopened(path)
    assert victim.read_text() == "precious"
    assert sorted(os.listdir(path.parent)) == ["report.html", "results.json", "victim"]
