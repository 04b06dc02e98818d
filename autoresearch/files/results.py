"""results.json: the experiments on disk, so that nothing recorded is ever lost.

The file is always one JSON list. An append overwrites its closing bracket in place, at the same
cost for any length. A torn tail heals on opening; a file broken in any other way is refused and
never written.
"""

import glob
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

from autoresearch.files.record import Experiment, as_json, from_json
from autoresearch.files.scan import DECODER, Scan, said
from autoresearch.files.scan import ResultsError as ResultsError
from autoresearch.text import mended

STALE = 1.0  # seconds without a write after which a partial file is one that a kill left
TRIES = 20  # at catching up with a program that keeps changing the file
UNKNOWN = (0, 0, 0, b"")  # no file looks so: what it lacks is put back before the next append


def load(path: Path) -> list[Experiment]:
    """Every whole experiment in the file; without a lock, so that it may run beside a run."""
    with _explained(path, "read"), suppress(FileNotFoundError), open(path, "rb") as file:
        return list(Scan(file, path))
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


def _encoded(record: dict[str, Any]) -> bytes:
    """The record in our layout; half a surrogate pair becomes U+FFFD."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
    return mended(text).replace("\n", "\n  ").encode()


def _in_list(before: bytes, records: Iterable[bytes]) -> bytes:
    return before + b"\n  " + b",\n  ".join(records) + b"\n]\n"


class Results(AbstractContextManager["Results"]):
    """results.json held under its lock, for one thread; a context manager.

    `experiments` is what the file holds. `notices` tells in one line each what was healed or
    rewritten, on opening and, when another program changes the file in mid-run, later.
    """

    def __init__(self, path: Path) -> None:
        """Lock, read and if need be mend or create the file; ResultsError when that fails."""
        from filelock import FileLock, Timeout  # takes 15 ms, which --help does not need

        self.experiments: list[Experiment] = []
        self.notices: list[str] = []
        self._path = path  # as given, for messages
        self._rescue: Path | None = None
        # How we left the file, computed and not read back: device, inode, size and last bytes.
        self._left = UNKNOWN
        with _explained(path, "open"):
            self._file = Path(os.path.realpath(path))  # so that a symbolic link stays a link
            if not self._file.parent.is_dir():
                raise ResultsError(f"cannot open {path}: folder {self._file.parent} does not exist")
            # It ends with the process, so that one left by a killed process is no bar.
            self._lock = FileLock(f"{self._file}.lock", thread_local=False)
            try:
                self._lock.acquire(blocking=False)
                _sweep(self._file, 0)  # what a killed run left; we hold the lock
                self.experiments = self._load()
            except Timeout as error:  # also where the folder has no room for the lock
                there = os.path.exists(self._lock.lock_file)
                held = "in use by another run" if there else "in a folder that takes no file"
                raise ResultsError(f"{path} is {held}; name another file by --results") from error
            except BaseException:
                self.close()
                raise

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.catch_up()
        except ResultsError:
            if error is None:
                raise
        finally:
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
            from_json(DECODER.decode(record.decode()))
        except (TypeError, ValueError, RecursionError) as error:
            what = f"experiment {experiment.iteration} cannot be written to {self._path}"
            raise ResultsError(f"{what}: {said(error)}") from error
        return record

    def _load(self) -> list[Experiment]:
        """What the file holds, brought to our layout, and its end where we remember it."""
        if not self._file.exists():
            write_whole(self._file, [b"[]\n"])
        with open(self._file, "r+b", buffering=0) as file:
            scan = Scan(file, self._path)
            experiments = list(scan)
            foreign = (e.extra and e == Experiment(None, extra=e.extra) for e in experiments)
            if experiments and all(foreign):
                raise ResultsError(f"{self._path} holds no experiments; name another by --results")
            end, whole = (b"\n]\n", scan.at) if experiments else (b"[]\n", 0)
            if scan.torn:
                file.seek(whole)
                kept = f"whole experiments kept: {len(experiments)}"
                if cut := file.read():
                    aside = self._unused(".torn")
                    write_whole(aside, [cut], like=self._file)
                    kept += f"; the {len(cut)} bytes after them are in {aside}"
                self.notices.append(f"{self._path} was cut off and is mended; {kept}")
            if scan.mendable and not scan.ours:
                file.truncate(whole)
                _overwrite(file, whole, end)
            status, tail = os.fstat(file.fileno()), b"}" * bool(experiments) + end
        self._left = status.st_dev, status.st_ino, whole + len(end), tail
        if scan.mendable:
            return experiments
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
        """Another program changed the file: take its version, and add what that lacks of ours.

        A checkout that puts `[]` back must not cost the nights before this one either. A file that
        is not ours to touch is left alone, once what we hold is safe beside it.
        """
        what = f"{self._path} was changed by another program"
        try:
            for _ in range(TRIES):
                there = self._load()
                lost = _lacking(self.experiments, there)
                if self._write(*map(self._checked, lost)):
                    self.experiments = there + lost
                    back = f", {len(lost)} experiments that it lacked were put back"
                    self.notices.append(f"{what}; read again{back * bool(lost)}")
                    return
            raise ResultsError(f"{what} again and again; stop that one")
        except Exception as error:
            self._left = UNKNOWN
            self._rescue = self._rescue or self._unused(".rescued")
            safe = f"are in {self._rescue}"
            try:
                records = _in_list(b"[", map(self._checked, self.experiments))
                write_whole(self._rescue, [records], like=self._file)
            except OSError as another:
                safe = f"could not be saved in {self._rescue}: {reason(another)}"
            why = f"{self._file}: {reason(error)}" if isinstance(error, OSError) else error
            count = f"all {len(self.experiments)} experiments up to now"
            raise ResultsError(f"{why}; {what} in mid-run, and {count} {safe}") from error

    def _write(self, *records: bytes) -> bool:
        """Append these, or none; False if another program changed the file before or meanwhile."""
        if not self._file.is_file():
            return False
        with _explained(self._path, "append to"), open(self._file, "r+b", buffering=0) as file:
            status, (device, inode, size, tail) = os.fstat(file.fileno()), self._left
            file.seek(max(size - len(tail), 0))
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
    """Replace a file at once by a new one, safe on the disk; OSError leaves what was there.

    It keeps the permissions of the one before, or of `like`; what killed tries left is removed.
    """
    _sweep(path, STALE)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with open(partial, "xb") as file:  # never through a link that somebody planted
        try:
            with suppress(FileNotFoundError):
                os.chmod(partial, (like or path).stat().st_mode & 0o7777)
            file.writelines(p if isinstance(p, bytes) else mended(p).encode() for p in parts)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    if os.name != "nt":  # make the name itself last; Windows has no such call and needs none
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)


def _sweep(path: Path, age: float) -> None:
    """Remove partial files of this one into which nothing was written for `age` seconds."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError):
            if time.time() - partial.lstat().st_mtime >= age:
                partial.unlink()
