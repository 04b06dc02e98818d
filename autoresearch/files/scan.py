"""results.json as it is read: in pieces by msgspec, and what is odd or torn record by record."""

import codecs
import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from autoresearch.files.record import Experiment, from_json
from autoresearch.text import mended

CHUNK = 1 << 20  # bytes of the file in memory at a time; a longer record takes as many as it needs


class ResultsError(Exception):
    """The file cannot be read, written or locked; it stands as it was before. Ends the run."""


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} is no number that JSON has")
    return number


DECODER = json.JSONDecoder(parse_constant=_finite, parse_float=_finite)
_RECORDS = msgspec.json.Decoder(list[Experiment])
_HEAD, _CUT = b"[\n  {", b"\n  },"  # no string holds a bare line feed
_FIRST = re.compile(r"[ \t\r\n]*\[[ \t\r\n]*")
_NEXT = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
_LAST = re.compile(rb"[ \t\r\n]*\][ \t\r\n]*")
_NONE = re.compile(rb"[ \t\r\n]*(\[[ \t\r\n]*\][ \t\r\n]*)?")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]..", re.DOTALL)  # of a surrogate pair
_UTF8 = codecs.getincrementaldecoder("utf-8")
_MALFORMED = re.compile(r"JSON is malformed: (.*) \(byte (\d+)\)")
_WRONG = re.compile(r"(.*?) - at \$(?:\[\d+\])?\.?(.*)")


def said(error: Exception) -> str:
    """msgspec's words in ours: "trials[0].score: expected float, got str"."""
    what = str(error).replace("`", "").replace("[...]", "")
    if found := _WRONG.fullmatch(what):
        what = f"{found[2]}: {found[1][0].lower()}{found[1][1:]}".removeprefix(": ")
    return what


class Scan:
    """An open file's records in pieces: our layout a piece at once, all else record by record.

    Afterwards `at` is where the last whole one of `count` ends; a `torn` file has a tail behind it.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._end = file.seek(0, os.SEEK_END)  # fixed now: another process may be appending
        file.seek(0)
        head = file.read(len(_HEAD))
        self.ours = head == _HEAD  # our layout, as far as that can be seen
        self.count, self.at = 0, len(codecs.BOM_UTF8) * head.startswith(codecs.BOM_UTF8)
        file.seek(self.at)
        self._rest = b""  # what has been read and follows `at`

    def __iter__(self) -> Iterator[Experiment]:
        # Twice as much each time, or a long record would be decoded over and over again.
        while chunk := self._file.read(min(CHUNK + len(self._rest), self._end - self._file.tell())):
            self._rest += chunk
            while found := self._at_once() or self._one_by_one():
                yield from found
        self._finish()

    def _at_once(self) -> list[Experiment]:
        """The whole records at hand, unless msgspec finds anything odd about them."""
        rest = self._rest
        end = rest.rfind(_CUT) + 4
        if end < 4 or rest[:1] != (b"," if self.count else b"["):
            return []
        try:
            found = _RECORDS.decode(b"[" + rest[1:end] + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []
        return self._taken(found, end)

    def _one_by_one(self) -> list[Experiment]:
        try:
            text, end = _UTF8().decode(self._rest), 0  # as far as it has whole characters
        except UnicodeDecodeError as error:
            raise self._broken("invalid UTF-8", self.at + error.start) from error
        found: list[Experiment] = []
        while gap := (_NEXT if self.count + len(found) else _FIRST).match(text, end):
            if not text.startswith("{", gap.end()):
                break
            try:
                data, stop = DECODER.raw_decode(text, gap.end())
            except (ValueError, RecursionError):  # cut off or broken: asked when all is read
                break
            if "\\u" in text[gap.end() : stop]:
                data = json.loads(mended(json.dumps(data, ensure_ascii=False)))
            try:
                found.append(from_json(data))
            except ValueError as error:
                problem = f"record {self.count + len(found) + 1}: {said(error)}"
                place = self.at + len(text[: gap.end()].encode())
                raise self._broken(problem, place) from error
            end = stop
        return self._taken(found, len(text[:end].encode()))

    def _taken(self, found: list[Experiment], length: int) -> list[Experiment]:
        self.count += len(found)
        self.at += length
        self._rest = self._rest[length:]
        return found

    def _finish(self) -> None:
        """Judge what follows the last whole record: an end, a torn tail, or broken text.

        It is torn if more text could have made the file a list of records, else a ResultsError.
        """
        rest = self._rest.rstrip(b"\0")  # which a power cut leaves at the end of a file
        whole = (_LAST if self.count else _NONE).fullmatch(rest)
        self.torn = not whole or rest != self._rest
        self.mendable = self.ours or not self.count  # by cutting the tail off
        self.ours = self._rest == (b"\n]\n" if self.count else b"[]\n")
        if whole:
            return
        text, before = _UTF8().decode(rest), b"[{}" * bool(self.count)  # stands for the records
        # A number or a half of a surrogate pair may have been cut.
        asked = before + _HALF.sub(rb"\\ufffd", text.encode()).rstrip(b"+-.eE")
        gap = (_NEXT if self.count else _FIRST).match(text)
        place = len(before) + (gap.end() if gap else 0)
        problem = "must be an object, { ... }" if gap else "the file must hold a list"
        try:
            msgspec.json.decode(asked)
        except RecursionError:
            problem = "nested too deeply"
        except msgspec.DecodeError as error:
            problem = said(error)
            if found := _MALFORMED.fullmatch(problem):
                problem, place = found[1], int(found[2]) - (found[1] == "trailing characters")
        if problem == "Input data was truncated":
            return
        at = self.at + max(place - len(before), 0)
        raise self._broken(f"record {self.count + 1}: {problem}" if gap else problem, at)

    def _broken(self, problem: str, offset: int) -> ResultsError:
        self._file.seek(0)
        before = self._file.read(offset).removeprefix(codecs.BOM_UTF8)
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        return ResultsError(
            f"{self._path}:{line}:{column}: {problem}; nothing was changed: "
            f"correct line {line}, column {column}, or move the file away to start afresh"
        )
