"""The inputs of a program: list items and files of rows; every error names the line."""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoresearch.text import mended, short

CODE = re.compile(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", re.DOTALL)
ARROW = re.compile(r"(?:^|(?<=\s))=>(?=\s|$)")
PLACEHOLDER = re.compile(r"\{(input|expected)\}")
FILE = re.compile(r"file:\s*(\S.*?\.(?:csv|jsonl?))\s*(?:\((.*)\))?", re.IGNORECASE)
COLUMN = re.compile(r"(?:^|,)\s*(input|expected)\s*:\s*([^\s,][^,]*?)\s*(?=,|$)")


class ProgramError(Exception):
    """program.md, or a file of inputs that it names, cannot be used as it stands."""


@dataclass(frozen=True)
class Input:
    """One test input; `expected` is its right answer where program.md gives one."""

    text: str
    expected: str | None = None


Row = tuple[str, Input]  # with its address
Cells = dict[str, Any]  # one row of a file, by the lower-case names of its columns


def fill(template: str, given: Input) -> str:
    """Puts the input and its expected answer in, in one pass: what they contain stays as it is."""
    values = {"input": given.text, "expected": given.expected or ""}
    return PLACEHOLDER.sub(lambda found: values[found[1]], template)


def read_text(path: Path, named: str = "") -> str:
    """The text with bare newlines; ProgramError says what is wrong, and where the file is named."""
    try:  # a zero byte, which UTF-16 is full of, spoils it as an invalid one does
        text = path.read_bytes().replace(b"\0", b"\xff").decode("utf-8-sig")
        problem = "" if text.strip() else "is empty; README.md says what belongs there"
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start}; save it as UTF-8"
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        problem = f"cannot be read: {why}; name another file" + " or go to its folder" * (not named)
    if problem:
        raise ProgramError(f"{path}: {problem}" + f" (named at {named})" * bool(named))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_input(where: str, item: str, folder: Path) -> list[Row]:
    r"""The rows of `file: name.csv`, relative to `folder`; else the item, split at the last ` => `
    outside of `code`; `\=>` and `\file:` belong to the text."""
    if named := FILE.fullmatch(item):
        path, remark = folder / named[1], (named[2] or "").casefold()
        columns = {"input": "input", "expected": "expected", **dict(COLUMN.findall(remark))}
        if COLUMN.sub("", remark):
            what = f"(input: column, expected: column), found ({short(remark)})"
            raise ProgramError(f"{where}: expected {what}")
        text, table = read_text(path, where), path.suffix.lower() == ".csv"
        found = csv_rows(path, text, *columns.values()) if table else json_rows(path, text)
        if rows := [(row, row_input(row, cells, columns)) for row, cells in found]:
            return rows
        raise ProgramError(f"{path}: no inputs (named at {where})")
    text, expected = re.sub(r"(?i)^\\(?=file:)", "", item), None
    if arrows := list(ARROW.finditer(CODE.sub(lambda code: "x" * len(code[0]), text))):
        text, expected = text[: arrows[-1].start()].strip(), text[arrows[-1].end() :].strip()
        expected = expected.replace(r"\=>", "=>")
    elif item.startswith("file:"):
        raise ProgramError(f"{where}: expected a .csv, .json or .jsonl file, found '{short(text)}'")
    if "" in (text, expected):
        raise ProgramError(f"{where}: expected 'input => expected answer' on both sides of =>")
    return [(where, Input(text.replace(r"\=>", "=>"), expected))]


def csv_rows(path: Path, text: str, *wanted: str) -> Iterator[tuple[str, Cells]]:
    """The rows below the header, whatever parts its cells; a row without a word is none."""
    text = re.sub(r"(?i)^sep=.(?=\n)", "", text)  # as Excel writes it
    cell = rf'(?:^|([,;\t|]))[ "]*{re.escape(wanted[0])}[ "]*(?:([,;\t|])|$)'
    parted = re.search(cell, text.casefold(), re.MULTILINE)
    delimiter = parted and (parted[1] or parted[2]) or "\x1f"  # none, where there is one column
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader, line = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True), 1
    names: list[str] = []
    try:
        for cells in reader:
            where, line = f"{path}:{line}", reader.line_num + 1
            if not any(map(str.strip, cells)):
                continue
            if not names:
                names = [cell.strip().casefold() for cell in cells]
                if missing := [w for w in wanted if w not in (*names, "expected")]:
                    like = f"'- file: {path.name} (input: text, expected: label)'"
                    found = f"no column {missing[0]} in {short(', '.join(names))}"
                    raise ProgramError(f"{where}: {found}; name yours as in {like}")
            elif any(map(str.strip, cells[len(names) :])):
                raise ProgramError(f"{where}: more cells than the header; quote {delimiter!r}")
            else:
                yield where, dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise ProgramError(f"{path}:{line}: not CSV: {error}; close every quote") from error


def json_rows(path: Path, text: str) -> Iterator[tuple[str, Cells]]:
    """The objects of a .json list, or of the lines of a .jsonl file."""
    whole = path.suffix.lower() == ".json"
    for number, line in enumerate([text] if whole else text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            at = number + getattr(error, "lineno", 1) - 1
            raise ProgramError(f"{path}:{at}: not JSON: {error}") from error
        for count, row in enumerate(found if whole and isinstance(found, list) else [found], 1):
            where = f"{path}: row {count}" if whole else f"{path}:{number}"
            if not isinstance(row, dict):
                raise ProgramError(f"{where}: expected an object, found {short(json.dumps(row))}")
            yield where, {name.strip().casefold(): value for name, value in row.items()}


def row_input(where: str, row: Cells, columns: dict[str, str]) -> Input:
    """A row as an input, what is no text as JSON; a sample of OpenAI's evals as its user asks."""
    asked, answer = row.get(columns["input"], row.get("messages")), row.get(columns["expected"])
    if answer is None and (answer := row.get("ideal")) and isinstance(answer, list):
        answer = answer[0]
    if isinstance(asked, list) and all(isinstance(m, dict) and "content" in m for m in asked):
        turns = [m for m in asked if m.get("role") != "system"] or asked
        said = [(f"{m.get('role')}: ", as_text(m["content"])) for m in turns]
        asked = "\n\n".join(role * (len(said) > 1) + content for role, content in said)
    text, expected = mended(as_text(asked)).strip(), mended(as_text(answer)).strip()
    if not text:
        raise ProgramError(f"{where}: no input in this row")
    return Input(text, expected or None)


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
