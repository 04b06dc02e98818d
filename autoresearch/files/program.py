"""Reads program.md, the only file a person edits, into a `Program`; every error names the line.

What a criterion means is not known here: kinds and arguments are checked in scorer.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from autoresearch.files.inputs import (
    Input,
    Line,
    ProgramError,
    fill,
    read_file,
    read_text,
    refuse_repeats,
    split_input,
)
from autoresearch.text import nearest, short, unknown

SECTIONS = ("Goal", "Task", "Inputs", "Held-out inputs", "Criteria", "Baseline")
HEADING = re.compile(r"(#{1,2})\s+(.*?)[\s#:]*$")
FENCE = re.compile(r"\s*(?:(?:[-*+]|\d+[.)])\s+)?(`{3,}(?=[^`]*$)|~{3,})")
ITEM = re.compile(r"(\s*)(?:[-*+]|\d+[.)])(?:\s+|$)(.*)")
CRITERION = re.compile(r"([\w-]+)\s*(?:\((.*?)\)\s*)?:\s*(.*)", re.DOTALL)
BRACED = re.compile(r"(?<!\{)\{\s*(\w+)\s*\}(?!\})")
WEIGHT = re.compile(r"weight\s*[=:]?\s*(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Criterion:
    """One line of ## Criteria, its argument still unread; `where` is "program.md:12"."""

    kind: str
    argument: str
    weight: float = 1.0
    where: str = ""

    @property
    def label(self) -> str:
        """One line that names the criterion in records and reports: "words: 60-120"."""
        return f"{self.kind}: {' '.join(self.argument.split())}"


@dataclass(frozen=True)
class Program:
    """What the person wants; without ## Inputs there is one empty input."""

    goal: str
    task: str
    inputs: tuple[Input, ...]
    held_out: tuple[Input, ...]
    criteria: tuple[Criterion, ...]
    baseline: str
    text: str
    name: str
    pool: tuple[Input, ...] = ()  # examples for prompts, never scored

    @property
    def judged_by_goal(self) -> bool:
        """Whether a judge scores against the goal: no criteria at all, or `judge: goal`."""
        return not self.criteria or any(c.label.casefold() == "judge: goal" for c in self.criteria)

    def question(self, given: Input) -> str:
        """The user message for one input, which follows the task where `{input}` does not stand."""
        if "{input}" in self.task or not given.text:
            return fill(self.task, given)
        return f"{self.task}\n\n{given.text}"

    def digest(self, model: str, temperature: float) -> str:
        """12 hex digits over what was asked: task, input texts, model and temperature.

        With a judge also over what it is shown, for its old marks hold for nothing else.
        """
        judge = not self.criteria or any(c.kind == "judge" for c in self.criteria)
        shown = [self.goal * self.judged_by_goal, self._answers() if judge else {}]
        return fingerprint([self.task, [i.text for i in self.inputs], model, temperature, shown])

    def criteria_digest(self) -> str:
        """12 hex digits over how it was scored: criteria, expected answers, a judged goal."""
        criteria = sorted((c.kind, c.argument, c.weight) for c in self.criteria)
        return fingerprint([criteria, self._answers(), self.goal * self.judged_by_goal])

    def _answers(self) -> dict[str, str]:
        given = self.inputs + self.held_out
        return {i.text: i.expected for i in given if i.expected is not None}


class Section(NamedTuple):
    where: str
    lines: list[Line]


def load_program(path: Path) -> Program:
    """Reads and checks everything but the criteria's arguments; raises ProgramError."""
    text = read_text(path)
    sections = split_sections(str(path), text)
    inputs = read_inputs("Inputs", sections, path.parent)
    held_out = read_inputs("Held-out inputs", sections, path.parent)
    refuse_repeats([*inputs, *held_out])
    program = Program(
        goal=prose(sections.get("Goal")),
        task=unfenced(prose(sections.get("Task"))),
        inputs=tuple(given for _, given in inputs) or (Input(""),),
        held_out=tuple(given for _, given in held_out),
        criteria=read_criteria(sections),
        baseline=unfenced(prose(sections.get("Baseline"))),
        text=text,
        name=path.name,
    )
    check_whole(program, str(path), sections)
    return program


def fingerprint(facts: Any) -> str:
    written = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()[:12]


def split_sections(name: str, text: str) -> dict[str, Section]:
    """Section name -> its lines. Text above the first heading, a title too, belongs to the goal."""
    known = {heading_key(section): section for section in SECTIONS}
    sections: dict[str, Section] = {}
    preamble: list[Line] = []
    lines = preamble
    for line in visible_lines(name, text):
        heading = None if line.fenced else HEADING.match(line.text)
        section = known.get(heading_key(heading[2])) if heading else None
        if heading is None or (section is None and is_title(heading, preamble, sections)):
            lines.append(line)
        elif section is None:
            raise ProgramError(f"{line.where}: unknown section {unknown(heading[2], SECTIONS)}")
        elif section in sections:
            first = sections[section].where
            raise ProgramError(f"{line.where}: section '{section}' stands already at {first}")
        else:
            sections[section] = Section(line.where, lines := [])
    goal = sections.get("Goal", Section(f"{name}:1", []))
    return sections | {"Goal": Section(goal.where, preamble + goal.lines)}


def is_title(heading: re.Match[str], preamble: list[Line], sections: dict[str, Section]) -> bool:
    """Whether an unknown heading is the file's title rather than a misspelt section."""
    first = not sections and not any(line.text.strip() for line in preamble)
    return first and len(heading[1]) == 1 and not nearest(heading[2], SECTIONS)


def heading_key(title: str) -> str:
    return " ".join(title.casefold().replace("-", " ").split())


def visible_lines(name: str, text: str) -> Iterator[Line]:
    """The lines without HTML comments; a comment inside a code block is text."""
    fence, commented, opened = "", False, ""
    for number, raw in enumerate(text.split("\n"), 1):
        where = f"{name}:{number}"
        if fence:
            yield Line(where, raw, fenced=True)
            fence = "" if closes(raw.strip(), fence) else fence
            continue
        shown, commented = without_comments(raw, commented)
        if commented and "<!--" in raw:
            opened = where
        if found := FENCE.match(shown):
            fence, opened = found[1], where
        if shown.strip() or not raw.strip() and not commented:
            yield Line(where, shown)
    if fence or commented:
        raise ProgramError(f"{opened}: {fence or '<!--'} is opened here and never closed")


def closes(stripped: str, fence: str) -> bool:
    return len(stripped) >= len(fence) and set(stripped) == {fence[0]}


def without_comments(line: str, commented: bool) -> tuple[str, bool]:
    """The line outside <!-- -->, and whether a comment is still open at its end."""
    shown = ""
    while line:
        head, mark, line = line.partition("-->" if commented else "<!--")
        shown += "" if commented else head
        commented ^= bool(mark)
    return shown, commented


def prose(section: Section | None) -> str:
    return "\n".join(line.text for line in section.lines).strip() if section else ""


def unfenced(text: str) -> str:
    """The inside of a text that is one code block: there a prompt may have headings of its own."""
    lines = text.split("\n")
    fence = FENCE.match(lines[0])
    inside = lines[1:-1]
    if not fence or not closes(lines[-1].strip(), fence[1]) or len(lines) < 2:
        return text
    return text if any(closes(line.strip(), fence[1]) for line in inside) else "\n".join(inside)


def list_items(section: Section) -> list[Line]:
    """The section's list items, each under the address of its first line, never empty."""
    items: list[list[Line]] = []
    margin = -1
    for line in section.lines:
        found = None if line.fenced else ITEM.match(line.text)
        if found and (not items or len(found[1]) <= margin):
            margin = len(found[1])
            items.append([Line(line.where, found[2])])
        elif items and (line.fenced or not line.text.strip() or line.text[0].isspace()):
            items[-1].append(line)
        elif line.text.strip():
            raise ProgramError(
                f"{line.where}: expected a list item such as '- text', found '{short(line.text)}'"
                " (indent a line that continues the item above)"
            )
    return [whole_item(lines) for lines in items]


def whole_item(lines: list[Line]) -> Line:
    rest = textwrap.dedent("\n".join(line.text for line in lines[1:]))
    text = f"{lines[0].text}\n{rest}".strip()
    if not text:
        raise ProgramError(f"{lines[0].where}: expected text after the list marker, found none")
    return Line(lines[0].where, text)


def items_under(heading: str, sections: dict[str, Section]) -> list[Line]:
    """The list items under a heading, which may be absent but not empty."""
    if heading not in sections:
        return []
    items = list_items(sections[heading])
    if not items:
        where = sections[heading].where
        raise ProgramError(f"{where}: nothing under ## {heading}; add '- text' or drop the heading")
    return items


def read_inputs(
    heading: str, sections: dict[str, Section], folder: Path
) -> list[tuple[str, Input]]:
    """(address, input) of each input under a heading, those of files included."""
    inputs: list[tuple[str, Input]] = []
    for item in items_under(heading, sections):
        if item.text.lower().startswith("file:"):
            inputs += read_file(item, folder)
        else:
            inputs.append((item.where, split_input(item)))
    return inputs


def read_criteria(sections: dict[str, Section]) -> tuple[Criterion, ...]:
    seen: dict[str, Criterion] = {}
    for criterion in map(read_criterion, items_under("Criteria", sections)):
        twin = seen.setdefault(criterion.label, criterion)
        if twin is not criterion:
            raise ProgramError(
                f"{criterion.where}: the same criterion stands already at {twin.where};"
                " give it a weight instead, as in 'kind (weight 2): ...'"
            )
    return tuple(seen.values())


def read_criterion(item: Line) -> Criterion:
    """Reads `kind: argument` or `kind (weight 2): argument`."""
    found = CRITERION.fullmatch(item.text)
    if not found:
        raise ProgramError(
            f"{item.where}: expected 'kind: argument' or 'kind (weight 2): argument',"
            f" found '{short(item.text)}'"
        )
    kind, remark, argument = found[1].lower(), found[2], found[3].strip()
    if not argument:
        raise ProgramError(f"{item.where}: nothing after '{kind}:'")
    weight = 1.0 if remark is None else read_weight(item.where, remark.strip())
    return Criterion(kind, argument, weight, item.where)


def read_weight(where: str, remark: str) -> float:
    found = WEIGHT.fullmatch(remark)
    try:
        weight = float(found[1]) if found else 0.0
    except ValueError:
        weight = 0.0
    # False for NaN as well. The bounds keep sums of weights exact enough and finite.
    if not 1e-6 <= weight <= 1e6:
        raise ProgramError(
            f"{where}: expected a positive number, as in (weight 2), found ({short(remark)})"
        )
    return weight


def check_whole(program: Program, path: str, sections: dict[str, Section]) -> None:
    """What only shows once every section is read."""
    if not program.goal:
        raise ProgramError(f"{path}: no goal; say what you want under '# Goal' at the top")
    if not program.task:
        raise ProgramError(f"{path}: no task; write what the model is asked under '## Task'")
    where = sections["Task"].where
    if "{expected}" in program.task:
        raise ProgramError(f"{where}: {{expected}} in the task would give the answer away")
    if "Inputs" not in sections and ("{input}" in program.task or program.held_out):
        raise ProgramError(f"{where}: this task needs inputs; list them under '## Inputs'")
    for found in BRACED.finditer(program.task):
        word = found[1].lower().removesuffix("s")
        if word in ("input", "expected") and f"{{{word}}}" not in program.task:
            raise ProgramError(f"{where}: {found[0]} is no placeholder; did you mean {{{word}}}?")
    unanswered = [i.text for i in program.inputs + program.held_out if i.expected is None]
    for criterion in program.criteria:
        if "{expected}" in criterion.argument and "Inputs" not in sections:
            raise ProgramError(
                f"{criterion.where}: {{expected}} needs inputs with their expected answers; list"
                " them under '## Inputs' as '- input => expected'"
            )
        if "{expected}" in criterion.argument and unanswered:
            raise ProgramError(
                f"{criterion.where}: {{expected}} needs an expected answer for every input, as in"
                f" '- input => expected'; there is none for '{short(unanswered[0])}'"
            )
