"""results.json: the experiments on disk, so that nothing recorded is ever lost.

The file is always one JSON list. An append overwrites its closing bracket in place, at the same
cost for any length. A torn tail heals on opening; a file broken in any other way is refused and
never written. What the experiments mean is no concern of this module (see history.py).
"""

from __future__ import annotations

import codecs
import gc
import itertools
import json
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from autoresearch.files.record import Experiment, Trial

if TYPE_CHECKING:
    from filelock import BaseFileLock

CHUNK = 1 << 20  # bytes of the file in memory at a time; a longer record takes as many as it needs


class ResultsError(Exception):
    """The file cannot be read, written or locked; it stands as it was before. Ends the run."""


# ---- one record: JSON object <-> Experiment


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {_shown(value)}")
    return value


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be a whole number or null, not {_shown(value)}")
    return value


def _number(value: object) -> float:
    if type(value) is float and abs(value) < math.inf:  # the usual case, first for speed
        return value
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"must be a number, not {_shown(value)}")
    if not abs(value) <= sys.float_info.max:  # also false for NaN; 1e999 is read as infinity
        raise ValueError("must be a finite number")
    return float(value)


def _texts(value: object) -> dict[str, str]:
    return {name: _text(each) for name, each in _object(value).items()}


def _numbers(value: object) -> dict[str, float]:
    return {name: _number(each) for name, each in _object(value).items()}


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {_shown(value)}")
    return value


def _trials(value: object) -> tuple[Trial, ...]:
    if not isinstance(value, list):
        raise ValueError(f"must be a list of objects, not {_shown(value)}")
    trials = []
    for number, each in enumerate(value, 1):
        try:
            trials.append(_trial(_object(each)))
        except ValueError as error:
            raise ValueError(f"number {number}: {error}") from error
    return tuple(trials)


def _trial(data: dict[str, Any]) -> Trial:
    known: dict[str, Any] = {"input": "", "response": "", "criteria": {}, "reason": ""}
    _sort(_TRIAL, data, known)
    if "score" not in known:
        raise ValueError("score is missing")  # unknown is not zero
    return _made(Trial, _TRIAL_SLOTS, known)


_Check = Callable[[object], Any]
_CHECKS: dict[str, _Check] = {
    "str": _text,
    "int": _whole,
    "float": _number,
    "dict[str, str]": _texts,
    "dict[str, float]": _numbers,
    "tuple[Trial, ...]": _trials,
}
_TRIAL, _EXPERIMENT = (
    {f.name: _CHECKS[str(f.type).removesuffix(" | None")] for f in fields(c) if f.name != "extra"}
    for c in (Trial, Experiment)
)


_Made = TypeVar("_Made")
_Slots = list[tuple[str, Callable[[Any, Any], None], Any]]  # name, setter, default


def _slots(kind: type[Trial] | type[Experiment]) -> _Slots:
    return [(f.name, getattr(kind, f.name).__set__, f.default) for f in fields(kind)]


_TRIAL_SLOTS, _EXPERIMENT_SLOTS = _slots(Trial), _slots(Experiment)


def _made(kind: type[_Made], slots: _Slots, known: dict[str, Any]) -> _Made:
    """`kind(**known)`; a frozen class's own __init__ would take a seventh of all loading."""
    made = object.__new__(kind)
    for name, put, default in slots:
        put(made, known.get(name, default))
    return made


def _sort(checks: dict[str, _Check], data: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Put the fields that `checks` names into `known`, checked; return the others.

    null counts as missing.
    """
    unknown = {}
    name = ""
    try:
        for name, value in data.items():
            check = checks.get(name)
            if check is None:
                json.dumps(value, allow_nan=False)  # 1e999 must not come back as Infinity
                unknown[name] = value
            elif check is _text and type(value) is str:  # two thirds of all: spare the call
                known[name] = value
            elif value is not None:
                known[name] = check(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    return unknown


def _experiment(data: dict[str, Any]) -> Experiment:
    known: dict[str, Any] = {"iteration": None, "models": {}}
    extra = _sort(_EXPERIMENT, data, known)
    known["extra"] = extra
    return _made(Experiment, _EXPERIMENT_SLOTS, known)


def _record(experiment: Experiment) -> dict[str, Any]:
    known = {name: getattr(experiment, name) for name in _EXPERIMENT}
    known["trials"] = [{name: getattr(t, name) for name in _TRIAL} for t in experiment.trials]
    return {**known, **experiment.extra, **known}  # ours first, and ours wins


def _encoded(record: dict[str, Any]) -> bytes:
    """The record in our layout. A lone surrogate becomes the escape that JSON has for it."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    return text.replace("\n", "\n  ").encode("utf-8", "backslashreplace")


# ---- the whole file, read record by record


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
_FIRST = re.compile(r"[ \t\r\n]*\[[ \t\r\n]*")
_NEXT = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_LAST = re.compile(r"[ \t\r\n]*\][ \t\r\n]*")
_NONE = re.compile(r"[ \t\r\n]*(\[[ \t\r\n]*\][ \t\r\n]*)?")
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"?'
_BRACKET = re.compile(rf"{_STRING}|([\[\]{{}}])", re.DOTALL)
_CONSTANT = re.compile(rf"{_STRING}|(NaN|-?Infinity)", re.DOTALL)
# What may be missing where JSON text is cut, closing brackets apart: the rest of a string, of an
# escape, of a key and its value, of a number or a literal.
_QUOTES = ('"', '\\"', '0"', '00"', '000"', '0000"')
_ENDINGS = (
    *("", "0", ":0", '"":0', "{}", *_QUOTES, *(quote + ":0" for quote in _QUOTES)),
    *("rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l"),
)


def _is_beginning(text: str) -> bool:
    """Whether some ending turns `text` into a list of objects: it was cut, not broken."""
    closing: list[str] = []
    for match in _BRACKET.finditer(text):
        if match[1] in ("[", "{"):
            closing.append("]" if match[1] == "[" else "}")
        elif match[1] and not (closing and closing.pop() == match[1]):
            return False
    rest = "".join(reversed(closing))
    return any(_is_list_of_objects(text + ending + rest) for ending in _ENDINGS)


def _is_list_of_objects(text: str) -> bool:
    try:
        data = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(data, list) and all(isinstance(item, dict) for item in data)


class _Scan:
    """One pass over an open file. The attributes hold when the iteration has ended.

    The text is decoded a chunk at a time, so memory does not grow with the file.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.count = 0  # whole records
        self.whole = 0  # bytes up to the end of the last one
        self.torn = False  # what follows it is the beginning of more
        self.ours = True  # all of it stands in our layout
        self.tidy = True  # the present record does
        self._file, self._path = file, path
        size = file.seek(0, os.SEEK_END)  # fixed now: another process may be appending
        self._size = self._without_padding(size)
        self._padded = self._size < size
        file.seek(0)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        # The decoded text at hand, where its present record begins, and where what is left begins.
        self._text, self._start, self._at = "", 0, 0

    def _without_padding(self, size: int) -> int:
        """Where the NUL bytes begin that a power cut leaves at the end of a file."""
        while size:
            start = max(size - CHUNK, 0)
            self._file.seek(start)
            if block := self._file.read(size - start).rstrip(b"\0"):
                return start + len(block)
            size = start
        return 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            record = self._next()
            if record is not None:
                yield record
            elif not self._more():
                break
        self._finish()

    def _next(self) -> dict[str, Any] | None:
        """The next record, or None when the text at hand does not hold it whole."""
        gap = (_NEXT if self.count else _FIRST).match(self._text, self._at)
        if gap is None or not self._text.startswith("{", gap.end()):
            return None
        try:
            record: dict[str, Any]
            record, end = _DECODER.raw_decode(self._text, gap.end())
        except json.JSONDecodeError:
            return None
        except RecursionError as error:
            raise self._broken("nested too deeply", gap.end()) from error
        except ValueError as error:  # NaN, or a number of thousands of digits
            raise self._broken(str(error), self._constant(gap.end())) from error
        self._take(gap, end)
        return record

    def _take(self, gap: re.Match[str], end: int) -> None:
        self.tidy = self._text.startswith(('{\n    "', "{}"), gap.end())
        self.ours &= self.tidy and gap[0] == (",\n  " if self.count else "[\n  ")
        self.count += 1
        self._start, self._at = gap.end(), end

    def _constant(self, at: int) -> int:
        found = (match.start() for match in _CONSTANT.finditer(self._text, at) if match[1])
        return next(found, at)

    def _more(self) -> bool:
        # Twice as much each time, or a long record would be decoded over and over again.
        wanted = min(max(CHUNK, len(self._text) - self._at), self._size - self._file.tell())
        chunk = self._file.read(wanted)
        if chunk.startswith(codecs.BOM_UTF8) and self._file.tell() == len(chunk):
            self.ours = False
        try:
            self._text, self._at = self._text[self._at :] + self._decoder.decode(chunk), 0
        except UnicodeDecodeError as error:
            offset = self._file.tell() - len(error.object) + error.start
            raise self._broken_at(offset, "invalid UTF-8") from error
        return bool(chunk)

    def _finish(self) -> None:
        """Judge what follows the last whole record: an end, a torn tail, or broken text."""
        rest, cut = self._text[self._at :], self._decoder.getstate()[0]
        if cut and (rest or self.count or not codecs.BOM_UTF8.startswith(cut)):
            rest += "\ufffd"  # stands for the character that was cut; good only within a string
        end = _LAST if self.count else _NONE
        self.torn = self._padded or bool(cut) or not end.fullmatch(rest)
        self.ours &= not self.torn and rest == ("\n]\n" if self.count else "[]\n")
        self.whole = self._offset(self._at) if self.count else 0
        if not end.fullmatch(rest):
            self._check_torn(rest)

    def _check_torn(self, rest: str) -> None:
        head = "[{}" if self.count else ""  # stands for the records before
        try:
            _DECODER.decode(head + rest)
        except json.JSONDecodeError as error:
            # All errors but an open string show within a few characters of their place.
            near_end = error.pos > len((head + rest).rstrip()) - 16
            near_end |= error.msg.startswith("Unterminated")
            if near_end and _is_beginning(head + rest):
                return
            at = self._at + max(error.pos - len(head), 0)
            raise self._broken(error.msg[0].lower() + error.msg[1:], at) from error
        except (ValueError, RecursionError) as error:
            raise self._broken(str(error), self._constant(self._at)) from error
        raise self._misshapen()

    def _misshapen(self) -> ResultsError:
        """Good JSON, but no list, or a list in which something is no object."""
        gap = (_NEXT if self.count else _FIRST).match(self._text, self._at)
        if gap is None:
            return self._broken("the file must hold a list, [ ... ]", self._at)
        return self._broken(f"record {self.count + 1} must be an object, {{ ... }}", gap.end())

    def raw(self) -> bytes:
        """The present record as it stands in the file."""
        return self._text[self._start : self._at].encode()

    def wrong(self, problem: str) -> ResultsError:
        """The error for the present record."""
        return self._broken(f"record {self.count}: {problem}", self._start)

    def _offset(self, at: int) -> int:
        """The place in the file, in bytes, of a place in the decoded text."""
        undecoded = len(self._decoder.getstate()[0])
        return self._file.tell() - undecoded - len(self._text[at:].encode())

    def _broken(self, problem: str, at: int) -> ResultsError:
        return self._broken_at(self._offset(at), problem)

    def _broken_at(self, offset: int, problem: str) -> ResultsError:
        self._file.seek(0)
        before = self._file.read(offset).removeprefix(codecs.BOM_UTF8)
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        return ResultsError(
            f"{self._path}:{line}:{column}: {problem}; nothing was changed: "
            f"correct line {line}, column {column}, or move the file away to start afresh"
        )


def _experiments(scan: _Scan) -> list[Experiment]:
    found = []
    collecting = gc.isenabled()
    gc.disable()  # nothing here is garbage, and looking for it takes a third of the time
    try:
        for record in scan:
            found.append(_experiment(record))
    except ValueError as error:
        raise scan.wrong(str(error)) from error
    finally:
        if collecting:
            gc.enable()
    return found


def _laid_out(scan: _Scan) -> Iterator[bytes]:
    """The whole file in our layout, a record at a time; unknown fields stay wherever they are."""
    for record in scan:
        yield b"[\n  " if scan.count == 1 else b",\n  "
        try:
            yield scan.raw() if scan.tidy else _encoded(record)
        except ValueError as error:
            raise scan.wrong(str(error)) from error
    yield b"\n]\n" if scan.count else b"[]\n"


def reason(error: OSError) -> str:
    """What the system says, in the words of our own errors."""
    return (error.strerror or str(error)).lower()


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResultsError(
            f"cannot {doing} {path}: {reason(error)}; "
            "check the path, its permissions and the room on disk"
        ) from error


def begin_afresh(path: Path) -> None:
    """Remove the file of an earlier demo."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsError(
            f"{path} of an earlier demo cannot be removed: {reason(error)}; "
            "run the demo in a folder that you can write to"
        ) from error


def load(path: Path) -> list[Experiment]:
    """Every whole experiment in the file, [] when there is none; a torn tail is ignored.

    Needs no lock and never writes, so it may run beside a run that appends.
    """
    with _explained(path, "read"):
        _check_regular(path)
        try:
            file = open(path, "rb")
        except FileNotFoundError:
            return []
        with file:
            return _experiments(_Scan(file, path))


def _check_regular(path: Path) -> None:
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "no regular file"
        raise ResultsError(f"{path} is {kind}; name a file for the results")


# ---- the file held open


class Results:
    """results.json held under its lock, for one thread; a context manager.

    `experiments` is what the file holds. `notices` tells in one line each what was healed or
    rewritten, on opening and, when another program changes the file in mid-run, later.
    """

    def __init__(self, path: Path) -> None:
        """Lock, read and if need be mend or create the file; ResultsError when that fails."""
        self.experiments: list[Experiment] = []
        self.notices: list[str] = []
        self._path = path  # as given, for messages
        with _explained(path, "open"):
            _check_regular(path)
            self._file = Path(os.path.realpath(path))  # so that a symbolic link stays a link
            if not self._file.parent.is_dir():
                raise ResultsError(f"cannot open {path}: folder {self._file.parent} does not exist")
            self._lock = _locked(path, self._file.with_name(self._file.name + ".lock"))
            try:
                self._load()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock. Harmless when closed before."""
        if self._lock.is_locked:
            # Safe before the release alone: a process that has it open sees that it has no name
            # any more. Windows refuses, and there the release deletes it.
            with suppress(OSError):
                os.unlink(self._lock.lock_file)
            self._lock.release()

    def append(self, experiment: Experiment) -> None:
        """Record one experiment; it is on the disk when this returns.

        ResultsError when it cannot be written; the file then stands as it was.
        """
        record = self._checked(experiment)
        with _explained(self._path, "append to"):
            if self._standing() != self._left:
                self._catch_up()
            self._write(record)
        self.experiments.append(experiment)

    def _checked(self, experiment: Experiment) -> bytes:
        """The record as bytes; refused now if it could not be read back."""
        try:
            record = _encoded(_record(experiment))
            _experiment(_DECODER.decode(record.decode()))
        except (TypeError, ValueError, RecursionError) as error:
            raise ResultsError(
                f"experiment {experiment.iteration} cannot be written to {self._path}: {error}"
            ) from error
        return record

    def _load(self) -> None:
        if not self._file.exists():
            _write_new(self._file, [b"[]\n"])
        with open(self._file, "rb") as file:
            scan = _Scan(file, self._path)
            self.experiments = _experiments(scan)
            if scan.torn:
                self._set_aside(file, scan)
        if not scan.ours:
            self._rewrite()
            if self.experiments and not scan.torn:
                count = len(self.experiments)
                self.notices.append(f"{self._path} was laid out anew; experiments kept: {count}")
        self._left = self._standing()

    def _set_aside(self, file: BinaryIO, scan: _Scan) -> None:
        """Keep the bytes after the last whole record before the file is mended."""
        said = f"{self._path} was cut off and is mended; whole experiments kept: {scan.count}"
        file.seek(scan.whole)
        if tail := file.read():
            for number in itertools.count():
                suffix = f".torn.{number}" if number else ".torn"
                aside = self._file.with_name(self._file.name + suffix)
                with suppress(FileExistsError):
                    _write_new(aside, [tail], like=self._file)
                    break
            said += f"; the {len(tail)} bytes after them are in {aside}"
        self.notices.append(said)

    def _rewrite(self) -> None:
        """Bring the file to our layout, all at once: a crash leaves the old one or the new one."""
        temporary = self._file.with_name(self._file.name + ".tmp")
        temporary.unlink(missing_ok=True)  # of a run that was killed; we hold the lock
        with open(self._file, "rb") as file:
            _write_new(temporary, _laid_out(_Scan(file, self._path)), like=self._file)
        os.replace(temporary, self._file)
        _sync_folder(self._file)

    def _standing(self) -> tuple[int, int, int, bytes] | None:
        """What shows whether the file is still as we left it, and can be written."""
        try:
            with open(self._file, "r+b", buffering=0) as file:
                status = os.fstat(file.fileno())
                file.seek(max(status.st_size - 3, 0))
                return status.st_dev, status.st_ino, status.st_size, file.read(3)
        except FileNotFoundError:
            return None

    def _catch_up(self) -> None:
        """Another program changed the file: take its version, and add what that lacks of before.

        A checkout that puts `[]` back must not cost the nights before this one either.
        """
        before = self.experiments
        self._load()
        there = Counter(map(_identity, self.experiments))
        lost = []
        for each in before:
            there[_identity(each)] -= 1
            if there[_identity(each)] < 0:
                lost.append(each)
        try:
            for experiment in lost:
                self._write(self._checked(experiment))
                self.experiments.append(experiment)
        except ResultsError:
            self.experiments, self._left = before, None  # what is missing is put back next time
            raise
        self.notices.append(
            f"{self._path} was changed by another program; it was read again"
            + (f" and {len(lost)} experiments that it lacked were put back" if lost else "")
        )

    def _write(self, record: bytes) -> None:
        *_, size, tail = self._left or (0, b"")
        if tail not in (b"[]\n", b"\n]\n"):  # changed between our reading it and now
            raise ResultsError(f"{self._path} is being changed by another program; start again")
        added = (b"[" if tail == b"[]\n" else b",") + b"\n  " + record + b"\n]\n"
        with open(self._file, "r+b", buffering=0) as file:
            try:
                _overwrite(file, size - len(tail), added)
            except BaseException as error:
                restored = _restore(file, size, tail)
                if not isinstance(error, OSError):
                    raise
                raise self._failed(error, len(added), restored) from error
        self._left = self._standing()

    def _failed(self, error: OSError, room: int, restored: bool) -> ResultsError:
        return ResultsError(
            f"cannot record an experiment in {self._path}: {reason(error)}"
            f"; make room for at least {room} bytes and start again: "
            f"all {len(self.experiments)} earlier experiments are safe"
            + ("" if restored else ", and the torn end of the file will be mended then")
        )


def _identity(experiment: Experiment) -> tuple[object, ...]:
    e = experiment
    return e.iteration, e.kind, e.strategy, e.timestamp, e.prompt, e.response


def _overwrite(file: BinaryIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    rest = memoryview(data)
    while rest:  # one write, unless the disk is nearly full: then the next one says why
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())


def _restore(file: BinaryIO, size: int, tail: bytes) -> bool:
    try:
        file.truncate(size)
        _overwrite(file, size - len(tail), tail)
    except OSError:
        return False
    return True


def _write_new(path: Path, parts: Iterable[bytes], like: Path | None = None) -> None:
    """A new file, safely on the disk, with the permissions of `like`; nothing when that fails."""
    with open(path, "xb") as file:
        try:
            if like is not None:
                os.chmod(path, like.stat().st_mode & 0o7777)
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()
            raise
    _sync_folder(path)


def _sync_folder(path: Path) -> None:
    """Make the name itself last; Windows has no such call and needs none."""
    if os.name != "nt":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# ---- one process at a time


def _locked(path: Path, lock_path: Path) -> BaseFileLock:
    """The lock, held; it ends with the process, so one left by a killed process is no bar."""
    from filelock import FileLock, Timeout  # takes 15 ms, which --help does not need

    lock = FileLock(lock_path, thread_local=False, on_acquired=_write_pid)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        if not lock_path.exists():  # filelock takes a folder without room for one for a wait
            raise ResultsError(
                f"{path} cannot be written: its folder takes no new file; name another by --results"
            ) from error
        raise ResultsError(f"{path} is in use by {_holder(lock_path)}") from error
    return lock


def _write_pid(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)  # filelock leaves what an earlier process wrote
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b" %d\n" % os.getpid())


def _holder(lock_path: Path) -> str:
    # Windows bars others from the locked first byte, so the number begins after it.
    with suppress(OSError, ValueError), open(lock_path, "rb", buffering=0) as file:
        file.seek(1)
        return f"process {int(file.read(20))}"
    return "another process"
