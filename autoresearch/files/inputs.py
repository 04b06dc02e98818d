"""The inputs of a program: list items and files of rows; every error names the line."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from autoresearch.text import short

CODE = re.compile(r"(`+).*?\1", re.DOTALL)
ARROW = re.compile(r"(?:^|(?<=\s))=>(?=\s|$)")
PLACEHOLDER = re.compile(r"\{(input|expected)\}")


class ProgramError(Exception):
    """program.md, or a file of inputs that it names, cannot be used as it stands."""


@dataclass(frozen=True)
class Input:
    """One test input; `expected` is its right answer where program.md gives one."""

    text: str
    expected: str | None = None


class Line(NamedTuple):
    """A line, or a list item, with its address; `fenced` when it stands inside a code block."""

    where: str
    text: str
    fenced: bool = False


def fill(template: str, given: Input) -> str:
    """Puts the input and its expected answer in, in one pass: what they contain stays as it is."""
    values = {"input": given.text, "expected": given.expected or ""}
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)


def read_text(path: Path) -> str:
    """The file's text with bare newlines; raises ProgramError when there is none to read."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ProgramError(f"{path}: not found; write it, or name another file") from error
    except UnicodeDecodeError as error:
        raise ProgramError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise ProgramError(f"{path}: cannot be read: {reason}; name a file that can") from error
    if "\0" in text:
        raise ProgramError(f"{path}: holds zero bytes, so it is not UTF-8 text; save it as UTF-8")
    if not text.strip():
        raise ProgramError(f"{path}: is empty; it needs a goal and a '## Task', see README.md")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def split_input(item: Line) -> Input:
    r"""Splits at the last ` => ` outside of `code`; `\=>` is an arrow that belongs to the text."""
    masked = CODE.sub(lambda code: "x" * len(code[0]), item.text)
    arrows = list(ARROW.finditer(masked))
    if not arrows:
        return Input(item.text.replace(r"\=>", "=>"))
    text = item.text[: arrows[-1].start()].strip().replace(r"\=>", "=>")
    expected = item.text[arrows[-1].end() :].strip().replace(r"\=>", "=>")
    if not text or not expected:
        raise ProgramError(f"{item.where}: expected 'input => expected answer' on both sides of =>")
    return Input(text, expected)


def read_file(item: Line, folder: Path) -> list[tuple[str, Input]]:
    """The inputs of `file: name.csv` or `file: name.jsonl`, relative to program.md."""
    path = folder / item.text[len("file:") :].strip()
    readers = {".csv": csv_rows, ".jsonl": jsonl_rows}
    if path.suffix.lower() not in readers:
        raise ProgramError(
            f"{item.where}: expected a .csv or .jsonl file, found '{short(item.text)}'"
        )
    try:
        rows = list(readers[path.suffix.lower()](path))
    except ProgramError as error:
        raise ProgramError(f"{error} (named at {item.where})") from error
    if not rows:
        raise ProgramError(f"{path}: no inputs (named at {item.where})")
    return [(where, row_input(where, row)) for where, row in rows]


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    rows = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        names = [name.strip().casefold() for name in rows.fieldnames or []]
        if "input" not in names:
            raise ProgramError(
                f"{path}:1: expected the columns input,expected, found {short(', '.join(names))}"
            )
        rows.fieldnames = names
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if None in row:
                raise ProgramError(f"{where}: more cells than the header; quote a cell with commas")
            yield where, {**row, "expected": row.get("expected") or None}
    except csv.Error as error:
        raise ProgramError(f"{path}:{rows.line_num + 1}: not CSV: {error}") from error


def jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ProgramError(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ProgramError(f'{path}:{number}: expected {{"input": ...}}, found {short(line)}')
        yield f"{path}:{number}", row


def row_input(where: str, row: dict[str, Any]) -> Input:
    """A row as an input; numbers and objects become their JSON text."""
    text, expected = (
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in (row.get("input"), row.get("expected"))
    )
    if not text or not text.strip():
        raise ProgramError(f"{where}: no input in this row")
    return Input(text.strip(), expected.strip() if expected else None)


def refuse_repeats(inputs: list[tuple[str, Input]]) -> None:
    """A pass is one trial per distinct input, and a held-out input must not be among the others."""
    seen: dict[str, str] = {}
    for where, given in inputs:
        if given.text in seen:
            raise ProgramError(f"{where}: the same input stands already at {seen[given.text]}")
        seen[given.text] = where
