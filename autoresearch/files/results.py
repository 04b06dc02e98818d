"""results.json: the experiments on disk, so that nothing recorded is ever lost.

The file is always one JSON list. An append overwrites its closing bracket in place, at the same
cost for any length. A torn tail heals on opening; a file broken in any other way is refused and
never written.
"""

import codecs
import glob
import itertools
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from autoresearch.files.record import Experiment, as_json, from_json
from autoresearch.text import mended

CHUNK = 1 << 20  # bytes of the file in memory at a time; a longer record takes as many as it needs
RECORDS = msgspec.json.Decoder(list[Experiment])
DECODER = json.JSONDecoder(parse_float=msgspec.json.decode, parse_constant=msgspec.json.decode)
HEAD, CUT = b"[\n  {", b"\n  },"  # no string holds a bare line feed
GAPS = [re.compile(rf"[ \t\r\n]*{mark}[ \t\r\n]*") for mark in (r"\[", ",")]  # the first, others
HALF = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")  # of a surrogate pair
MALFORMED = re.compile(r"json is malformed: (.*) \(byte (\d+)\)")


class ResultsError(Exception):
    """The file cannot be read, written or locked; it stands as it was before. Ends the run."""


def load(path: Path) -> list[Experiment]:
    """Every whole experiment in the file; without a lock, so that it may run beside a run."""
    with _explained(path, "read"), suppress(FileNotFoundError), open(path, "rb") as file:
        return _Scan(file, path).found
    return []


def reason(error: OSError) -> str:
    """What the system says, in the words of our own errors."""
    return (error.strerror or str(error)).lower()


@contextmanager
def _explained(path: Path, doing: str) -> Iterator[None]:
    try:
        yield
    except RecursionError as error:
        raise ResultsError(f"{path}: a record is nested too deeply; take it out") from error
    except OSError as error:
        raise ResultsError(
            f"cannot {doing} {path}: {reason(error)}; check the path, its permissions and the room "
            "on disk, or name another file by --results"
        ) from error


class Results(AbstractContextManager["Results"]):
    """results.json held under its lock, for one thread; a context manager.

    `experiments` is what the file holds, `notices` what was healed or rewritten, a line each.
    """

    def __init__(self, path: Path) -> None:
        """Lock, read and if need be mend or create the file; ResultsError when that fails."""
        from filelock import FileLock, Timeout  # takes 15 ms, which --help does not need

        self.experiments: list[Experiment] = []
        self.notices: list[str] = []
        self._path = path  # as given, for messages
        with _explained(path, "open"):
            self._file = Path(os.path.realpath(path))  # so that a symbolic link stays a link
            if not self._file.parent.is_dir():
                raise ResultsError(f"cannot open {path}: folder {self._file.parent} does not exist")
            # It ends with the process, so that one left by a killed process is no bar.
            self._lock = FileLock(f"{self._file}.lock", thread_local=False)
            try:
                self._lock.acquire(blocking=False)
                _sweep(self._file)
                self._rescue = self._unused(".rescued")
                self.experiments = self._load()
            except Timeout as error:
                what = f"{path} is in use by another run"
                raise ResultsError(f"{what}; name another file by --results") from error
            except BaseException:
                self.close()
                raise

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        with closing(self), suppress(*[ResultsError] * bool(error)):  # the first one is told
            self.catch_up()

    def close(self) -> None:
        """Release the lock. Harmless when closed before."""
        if self._lock.is_locked:
            with suppress(OSError):  # Windows refuses, and there the release does it
                os.unlink(self._lock.lock_file)  # after the release it may be another's
            self._lock.release()

    def append(self, experiment: Experiment) -> None:
        """Record it, on the disk when this returns; a ResultsError leaves the file as it was."""
        unchanged = self._write(self._checked(experiment))
        self.experiments.append(experiment)
        if not unchanged:
            self._put_back()

    def catch_up(self) -> None:
        """If another program changed the file, put back what it now lacks of `experiments`."""
        if not self._write():
            self._put_back()

    def _checked(self, experiment: Experiment) -> bytes:
        """The record as it will stand there; refused now if it could not be read back."""
        try:
            record = _encoded(as_json(experiment))
            from_json(json.loads(record))
        except (TypeError, ValueError, RecursionError) as error:
            what = f"experiment {experiment.iteration} cannot be written to {self._path}"
            raise ResultsError(f"{what}: {said(error)}") from error
        return record

    def _load(self) -> list[Experiment]:
        """What the file holds, brought to our layout, and its end where we remember it."""
        if not self._file.exists():
            write_whole(self._file, [b"[]\n"])
        with open(self._file, "r+b", buffering=0) as file:
            scan = _Scan(file, self._path)
            found = scan.found
            if found and all(e.extra and e == Experiment(None, extra=e.extra) for e in found):
                raise ResultsError(f"{self._path} holds no experiments; name another by --results")
            end, whole = (b"\n]\n", scan.at) if found else (b"[]\n", 0)
            if scan.torn:
                file.seek(whole)
                kept = f"whole experiments kept: {len(found)}"
                if cut := file.read():
                    aside = self._unused(".torn")
                    write_whole(aside, [cut], like=self._file)
                    kept += f"; the {len(cut)} bytes after them are in {aside}"
                self.notices.append(f"{self._path} was cut off and is mended; {kept}")
            if scan.mendable and (scan.at, scan.rest) != (whole, end):
                file.truncate(whole)
                _overwrite(file, whole, end)
            status, tail = os.fstat(file.fileno()), b"}" * bool(found) + end
        # How we left the file, computed and not read back: device, inode, size and last bytes.
        self._left = status.st_dev, status.st_ino, whole + len(end), tail
        if scan.mendable:
            return found
        # All at once: a crash leaves the old layout or ours.
        records = json.loads(self._file.read_bytes()[:whole].decode("utf-8-sig") + "]")
        write_whole(self._file, [_in_list(b"[", map(_encoded, records))])
        if not scan.torn:
            self.notices.append(f"{self._path} was laid out anew; experiments kept: {len(records)}")
        return self._load()

    def _unused(self, suffix: str) -> Path:
        names = (self._file.name + suffix + f".{n}" * bool(n) for n in itertools.count())
        return next(p for p in map(self._file.with_name, names) if not os.path.lexists(p))

    def _put_back(self) -> None:
        """Take another program's version, and add what it lacks; or rescue all that we hold."""
        what = f"{self._path} was changed by another program"
        try:
            for _ in range(20):  # the other program may go on
                there = self._load()
                lost = _lacking(self.experiments, there)
                if self._write(*map(self._checked, lost)):
                    self.experiments = there + lost
                    back = f", {len(lost)} experiments that it lacked were put back"
                    self.notices.append(f"{what}; read again{back * bool(lost)}")
                    return
            raise ResultsError(f"{what} again and again; stop that one")
        except Exception as error:
            self._left = 0, 0, 0, b""  # no file looks so: the next append puts back what it lacks
            safe = f"all {len(self.experiments)} experiments up to now are in {self._rescue}"
            try:
                records = _in_list(b"[", map(self._checked, self.experiments))
                write_whole(self._rescue, [records], like=self._file)
            except OSError as another:
                safe = f"{self._rescue} cannot be written: {reason(another)}"
            why = f"{self._file}: {reason(error)}" if isinstance(error, OSError) else error
            raise ResultsError(f"{why}; {what} in mid-run, and {safe}") from error

    def _write(self, *records: bytes) -> bool:
        """Append these, or none; False if another program changed the file before or meanwhile."""
        if not self._file.is_file():
            return False
        with _explained(self._path, "append to"), open(self._file, "r+b", buffering=0) as file:
            status, (device, inode, size, tail) = os.fstat(file.fileno()), self._left
            file.seek(size - len(tail))
            there = status.st_dev, status.st_ino, status.st_size, file.read(len(tail) + 1)
            if there != self._left or not records:
                return there == self._left
            added = _in_list(b"[" if tail == b"[]\n" else b",", records)
            try:
                _overwrite(file, size - 3, added)
            except OSError as error:
                with suppress(OSError):  # else the torn end will be mended on the next start
                    file.truncate(size)
                    _overwrite(file, size - 3, tail[-3:])
                raise ResultsError(
                    f"cannot append to {self._path}: {reason(error)}; make room for at least "
                    f"{len(added)} bytes: all {len(self.experiments)} earlier experiments are safe"
                ) from error
            self._left = device, inode, size - 3 + len(added), tail[:-3][-1:] + added
        return self._write()


def _encoded(record: dict[str, Any]) -> bytes:
    """The record in our layout; half a surrogate pair becomes U+FFFD."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    return mended(text).replace("\n", "\n  ").encode()


def _in_list(before: bytes, records: Iterable[bytes]) -> bytes:
    return before + b"\n  " + b",\n  ".join(records) + b"\n]\n"


def _lacking(ours: list[Experiment], there: list[Experiment]) -> list[Experiment]:
    """What of ours is not there; equal parts of one measurement count each."""
    identity = attrgetter("iteration", "kind", "strategy", "timestamp", "prompt", "response")
    found, lost = Counter(map(identity, there)), []
    for each in ours:
        found[identity(each)] -= 1
        if found[identity(each)] < 0:
            lost.append(each)
    return lost


def _overwrite(file: BinaryIO, offset: int, data: bytes) -> None:
    file.seek(offset)
    rest = memoryview(data)
    while rest:  # one write, unless the disk is nearly full: then the next one says why
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())
    file.seek(max(offset - 1, 0))
    if file.read(1) == b"\0":  # cut short since we looked: no hole may stay before our words
        file.truncate(offset)


def write_whole(path: Path, parts: Iterable[bytes | str], like: Path | None = None) -> None:
    """Replace a file at once, safe on the disk, with its permissions or those of `like`; an OSError
    leaves what was there. What killed tries left is removed."""
    _sweep(path)
    partial = path.with_name(f".{path.name}.{time.time_ns()}.partial")
    try:
        with open(partial, "xb") as file:  # never through a link that somebody planted
            with suppress(FileNotFoundError):
                os.chmod(partial, (like or path).stat().st_mode & 0o7777)
            file.writelines(p if isinstance(p, bytes) else mended(p).encode() for p in parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if os.name != "nt":  # make the name itself last; Windows has no such call and needs none
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _sweep(path: Path) -> None:
    """Remove partial files of this one that a kill left: no write for a second tells them."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - partial.lstat().st_mtime > 1:
                partial.unlink()


class _Scan:
    """The whole records `found` in an open file: our layout a piece at once, all else one by one.

    The last one ends `at`; the `rest` follows, which is a tail when the file is `torn`.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        end = file.seek(0, os.SEEK_END)  # fixed now: another process may be appending
        file.seek(0)
        head = file.read(len(HEAD))
        self.at = len(codecs.BOM_UTF8) * head.startswith(codecs.BOM_UTF8)
        self.rest = b""
        self.found: list[Experiment] = []
        file.seek(self.at)
        # Twice as much each time, or a long record would be decoded over and over again.
        while chunk := file.read(min(CHUNK + len(self.rest), end - file.tell())):
            self.rest += chunk
            for taken in (self._at_once, self._one_by_one):
                length = taken()
                self.at, self.rest = self.at + length, self.rest[length:]
        self.torn = self._is_torn()
        self.mendable = head == HEAD or not self.found  # by another end alone

    def _at_once(self) -> int:
        """Takes the whole records at hand, unless msgspec finds anything odd about them."""
        end = self.rest.rfind(CUT) + len(CUT) - 1
        if end >= len(CUT) and self.rest[:1] == (b"," if self.found else b"["):
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                self.found += RECORDS.decode(b"[" + self.rest[1:end] + b"]")
                return end
        return 0

    def _one_by_one(self) -> int:
        try:
            (text, _), end = codecs.utf_8_decode(self.rest.rstrip(b"\0")), 0  # whole characters
        except UnicodeDecodeError as error:
            raise self._broken("invalid UTF-8", error.start) from error
        while (gap := GAPS[bool(self.found)].match(text, end)) and text.startswith("{", gap.end()):
            try:
                data, stop = DECODER.raw_decode(text, gap.end())
            except (ValueError, RecursionError):  # cut off or broken: asked when all is read
                break
            if "\\u" in text[gap.end() : stop]:
                data = json.loads(mended(json.dumps(data, ensure_ascii=False)))
            try:
                self.found.append(from_json(data))
            except ValueError as error:
                problem = f"record {len(self.found) + 1}: {said(error)}"
                raise self._broken(problem, len(text[: gap.end()].encode())) from error
            end = stop
        return len(text[:end].encode())

    def _is_torn(self) -> bool:
        """Whether the rest is no end, but more text could make one; a ResultsError if not."""
        rest = self.rest.rstrip(b"\0")  # which a power cut leaves at the end of a file
        if b"".join(rest.split()) in ((b"]",) if self.found else (b"", b"[]")):
            return rest != self.rest
        text, before = rest.decode("utf-8", "ignore"), "[{}" * bool(self.found)  # for the records
        # A number or a half of a surrogate pair may have been cut.
        asked = (before + HALF.sub(r"\\ufffd", text)).rstrip("+-.eE")
        gap = GAPS[bool(self.found)].match(text)
        problem = "must be an object, { ... }" if gap else "the file must hold a list"
        place = gap.end() if gap else 0
        try:
            msgspec.json.decode(asked)
        except RecursionError:
            problem = "nested too deeply"
        except msgspec.DecodeError as error:
            problem = said(error)
            if problem == "input data was truncated":
                return True
            if found := MALFORMED.fullmatch(problem):
                problem, place = found[1], int(found[2]) - len(before)
                place -= problem == "trailing characters"
        raise self._broken(f"record {len(self.found) + 1}: " * bool(gap) + problem, place)

    def _broken(self, problem: str, offset: int) -> ResultsError:
        self._file.seek(0)
        lines = self._file.read(self.at + offset).removeprefix(codecs.BOM_UTF8).split(b"\n")
        line, column = len(lines), len(lines[-1].decode("utf-8", "replace")) + 1
        return ResultsError(
            f"{self._path}:{line}:{column}: {problem}; nothing was changed: "
            f"correct line {line}, column {column}, or move the file away to start afresh"
        )


def said(error: Exception) -> str:
    """msgspec's words in ours: "trials[0].score: expected float, got str"."""
    what, *where = re.split(r" - at \$(?:\[\d\])?\.?", re.sub(r"`|\[\.{3}\]", "", str(error)))
    return ": ".join([*filter(None, where), what.lower()])
