"""Reads program.md, the only file a person edits, into a `Program`; every error names the line.

What a criterion means is not known here: kinds and arguments are checked in scorer.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.files.inputs import (
    CODE,
    Input,
    Line,
    ProgramError,
    Row,
    read_input,
    read_text,
    set_apart,
    without_repeats,
)
from autoresearch.text import nearest, short, unknown

SECTIONS = ("Goal", "Task", "Inputs", "Held-out inputs", "Criteria", "Baseline")
HEADING = re.compile(r" {0,3}(#{1,2})(\s*)(.*)")
FENCE = re.compile(r"\s*(?:(?:[-*+]|\d+[.)])\s+)?(`{3,}(?=[^`]*$)|~{3,})")
ITEM = re.compile(r"(\s*)(?:[-*+]|\d+[.)])(?:\s+|$)(.*)")
OPAQUE = re.compile(rf"{CODE.pattern}|:\s*/(?:\\.|[^/\\])*/")  # code, a pattern: no comment there
CRITERION = re.compile(r"([\w-]+)\s*(?:\((.*?)\)\s*)?:\s*(.*)", re.DOTALL)
WEIGHT = re.compile(r"weight\s*[=:]?\s*(\d+\.?\d*|\.\d+)", re.IGNORECASE)
MARK = r"(?:\{\{|\$\{|\[\[|%\(|\{|<)\s*(\w+)\s*(?:\}\}|\]\]|\)s|\}|>)"  # a placeholder, elsewhere
SPELLED = re.compile(rf"(?<![\\{{$\[]){MARK}")
ASKED = re.compile(rf"\\({MARK})|\{{input\}}")

HOLD_OUT = 12  # labelled inputs, from which a third is set aside
EXAMPLES = 20  # labelled inputs for the search, from which a tenth, at least 5, is a pool


@dataclass(frozen=True)
class Criterion:
    """One line of ## Criteria, its argument still unread; `where` is "program.md:12"."""

    kind: str
    argument: str
    weight: float = 1.0
    where: str = ""
    source: str = ""  # of a `python` criterion: the text of its file

    @property
    def label(self) -> str:
        """One line that names the criterion in records and reports: "words: 60-120"."""
        return f"{self.kind}: {' '.join(self.argument.split())}"


@dataclass(frozen=True)
class Program:
    """What the person wants; without ## Inputs there is one empty input."""

    goal: str
    task: str
    inputs: tuple[Input, ...]  # for the search
    held_out: tuple[Input, ...]  # for the last confirmation alone
    criteria: tuple[Criterion, ...]
    baseline: str
    text: str
    name: str
    folder: Path = Path()
    pool: tuple[Input, ...] = ()  # labelled, to show as examples, never scored
    set_aside: int = 0  # how many of the inputs are held out although program.md does not say so
    notices: tuple[str, ...] = ()  # what the person should know, a line each
    rows: tuple[Input, ...] = ()  # all, as they are listed, those under ## Held-out inputs first

    @property
    def judged_by_goal(self) -> bool:
        """Whether a judge scores against the goal: no criteria at all, or `judge: goal`."""
        return not self.criteria or any(c.label.casefold() == "judge: goal" for c in self.criteria)

    def question(self, given: Input) -> str:
        r"""The user message for one input, which follows the task where `{input}` does not stand.

        `\{word}` in the task is {word} as it stands.
        """
        asked = ASKED.sub(lambda found: found[1] or given.text, self.task)
        return asked if self.asks_in_place or not given.text else f"{asked}\n\n{given.text}"

    @property
    def asks_in_place(self) -> bool:
        return any(not found[1] for found in ASKED.finditer(self.task))

    def digest(self, model: str, temperature: float) -> str:
        """12 hex digits over what is asked, for new records; see `digests`."""
        return self.digests(model, temperature)[-1]

    def digests(self, model: str, temperature: float) -> list[str]:
        """The digests of this series: of task, model, temperature, a judged goal; not of inputs,
        which stand in the trials.

        With a judge also of the answers that it is shown, one after the other, so that rows added
        at the end go on. The first is that of versions which counted in the inputs.
        """
        judge = not self.criteria or any(c.kind == "judge" for c in self.criteria)
        goal, answers = self.goal * self.judged_by_goal, self._answers() if judge else {}
        held_out = set() if self.set_aside else set(self.held_out)
        texts = [i.text for i in self.rows if i not in held_out] or [i.text for i in self.inputs]
        before = fingerprint([self.task, texts, model, temperature, [goal, answers]])
        digests = [before, fingerprint([self.task, model, temperature, goal])]
        for answer in answers.items():
            digests.append(fingerprint([digests[-1], answer]))
        return digests

    def criteria_digest(self) -> str:
        """12 hex digits over how it was scored: criteria, expected answers, a judged goal."""
        criteria = sorted(
            (c.kind, c.argument, c.weight, *[c.source] * bool(c.source)) for c in self.criteria
        )
        return fingerprint([criteria, self._answers(), self.goal * self.judged_by_goal])

    def _answers(self) -> dict[str, str]:
        given = self.rows or self.held_out + self.inputs + self.pool
        return {i.text: i.expected for i in given if i.expected is not None}


Sections = dict[str, list[Line]]  # name -> its lines, the first one that of the heading


def load_program(path: Path) -> Program:
    """Reads and checks everything but the criteria's arguments; raises ProgramError."""
    text = read_text(path)
    sections = split_sections(str(path), text)
    listed = [read_inputs(heading, sections, path.parent) for heading in SECTIONS[2:4]]
    (inputs, held_out), repeats = without_repeats(*listed)
    rows = (*held_out, *inputs)
    if by_us := "Held-out inputs" not in sections:
        inputs, held_out = set_apart(inputs, HOLD_OUT, 1 / 3, 2, "held out")
    inputs, pool = set_apart(inputs, EXAMPLES, 1 / 10, 5, "pool")
    program = Program(
        goal=prose(sections.get("Goal")),
        task=unfenced(prose(sections.get("Task"))),
        inputs=tuple(inputs) or (Input(""),),
        held_out=tuple(held_out),
        criteria=read_criteria(sections, path.parent),
        baseline=unfenced(prose(sections.get("Baseline"))),
        text=text,
        name=path.name,
        folder=path.parent,
        pool=tuple(pool),
        set_aside=len(held_out) * by_us,
        rows=rows,
    )
    check_whole(program, str(path), sections)
    return replace(program, notices=(*repeats, *worth_knowing(program)))


def worth_knowing(program: Program) -> Iterator[str]:
    if program.set_aside:
        yield (
            f"{program.set_aside} of the {len(program.rows)} inputs are held out for the last "
            "confirmation, the same ones every time ('## Held-out inputs: none' searches with all)"
        )
    if program.pool:
        yield f"{len(program.pool)} inputs are never scored: prompts may show them as examples"
    for c in program.criteria:
        if c.argument.casefold() == "expected":
            yield f"{c.where}: '{c.label}' asks for that word; '{c.kind}: {{expected}}' was meant?"


def fingerprint(facts: Any) -> str:
    written = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(written.encode()).hexdigest()[:12]


def split_sections(name: str, text: str) -> Sections:
    """Text above the first heading, a title too, belongs to the goal."""
    known = {heading_key(section): section for section in SECTIONS}
    sections: Sections = {}
    preamble: list[Line] = []
    lines = preamble
    for line in visible_lines(name, text):
        heading = None if line.fenced else HEADING.match(line.text)
        said = heading[3].rstrip(" \t#:") if heading else ""
        title, _, word = said.partition(":")
        section = known.get(heading_key(title))
        if heading is None or not (heading[2] or section):
            lines.append(line)
        elif not heading[2]:
            raise ProgramError(f"{line.where}: a blank is missing: write '{heading[1]} {title}'")
        elif section is None and is_title(heading[1], said, preamble, sections):
            lines.append(line)
        elif section is None or word.strip() not in ("", "none"):
            raise ProgramError(f"{line.where}: unknown section {unknown(said, SECTIONS)}")
        elif section in sections:
            first = sections[section][0].where
            raise ProgramError(f"{line.where}: section '{section}' stands already at {first}")
        else:
            sections[section] = lines = [Line(line.where, word)]
    return sections | {"Goal": preamble + sections.get("Goal", [])[1:]}


def is_title(marks: str, said: str, above: list[Line], sections: Sections) -> bool:
    """Whether an unknown heading is the file's title rather than a misspelt section."""
    first = not sections and not any(line.text.strip() for line in above)
    return first and len(marks) == 1 and not nearest(said, SECTIONS)


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
    shown, at, masked = "", 0, OPAQUE.sub(lambda found: "x" * len(found[0]), line)
    while True:
        end = line.find("-->", at) if commented else masked.find("<!--", at)
        if not commented:
            shown += line[at : end if end >= 0 else None]
        if end < 0:
            return shown, commented
        at, commented = end + (3 if commented else 4), not commented


def prose(section: list[Line] | None) -> str:
    return "\n".join(line.text for line in section or ()).strip()


def unfenced(text: str) -> str:
    """The inside of a text that is one code block: there a prompt may have headings of its own."""
    lines = text.split("\n")
    fence = FENCE.match(lines[0])
    inside = lines[1:-1]
    if not fence or not closes(lines[-1].strip(), fence[1]) or len(lines) < 2:
        return text
    return text if any(closes(line.strip(), fence[1]) for line in inside) else "\n".join(inside)


def items_under(heading: str, sections: Sections) -> list[Line]:
    """The list items under a heading, each at its first line; it may be absent but not empty."""
    if heading not in sections:
        return []
    items: list[list[Line]] = []
    inner = 0  # column from which a list item is text of the one above
    for line in sections[heading]:
        found = None if line.fenced else ITEM.match(line.text)
        if found and (not items or len(found[1]) < inner):
            inner = found.start(2)
            items.append([Line(line.where, found[2])])
        elif items and (line.fenced or not line.text.strip() or line.text[0].isspace()):
            items[-1].append(line)
        elif line.text.strip():
            raise ProgramError(
                f"{line.where}: expected a list item such as '- text', found '{short(line.text)}'"
                " (indent a line that continues the item above)"
            )
    if not items:
        where = sections[heading][0].where
        raise ProgramError(f"{where}: nothing under ## {heading}; add '- text' or drop the heading")
    return [whole_item(lines) for lines in items]


def whole_item(lines: list[Line]) -> Line:
    rest = textwrap.dedent("\n".join(line.text for line in lines[1:]))
    text = f"{lines[0].text}\n{rest}".strip()
    if not text:
        raise ProgramError(f"{lines[0].where}: expected text after the list marker, found none")
    return Line(lines[0].where, text)


def read_inputs(heading: str, sections: Sections, folder: Path) -> list[Row]:
    """Each input under a heading with its address, those of files included; `none` is none."""
    if prose(sections.get(heading)).casefold() in ("none", "- none"):
        return []
    return [row for item in items_under(heading, sections) for row in read_input(item, folder)]


def read_criteria(sections: Sections, folder: Path) -> tuple[Criterion, ...]:
    seen: dict[str, Criterion] = {}
    for item in items_under("Criteria", sections):
        criterion = read_criterion(item, folder)
        twin = seen.setdefault(criterion.label, criterion)
        if twin is not criterion:
            raise ProgramError(
                f"{criterion.where}: the same criterion stands already at {twin.where};"
                " give it a weight instead, as in 'kind (weight 2): ...'"
            )
    return tuple(seen.values())


def read_criterion(item: Line, folder: Path) -> Criterion:
    """Reads `kind: argument` or `kind (weight 2): argument`."""
    found = CRITERION.fullmatch(item.text)
    if not found:
        raise ProgramError(
            f"{item.where}: expected 'kind: argument' or 'kind (weight 2): argument'; a model can"
            f" judge it: '- judge: {short(item.text)}'"
        )
    kind, remark, argument = found[1].lower(), found[2], found[3].strip()
    if not argument:
        raise ProgramError(f"{item.where}: nothing after '{kind}:'")
    weight = 1.0 if remark is None else read_weight(item.where, remark.strip())
    source, file = "", argument.rpartition(":")[0].strip()
    if kind == "python" and file.endswith(".py"):
        try:
            source = read_text(folder / file)
        except ProgramError as error:
            raise ProgramError(f"{error} (named at {item.where})") from error
    return Criterion(kind, argument, weight, item.where, source)


def read_weight(where: str, remark: str) -> float:
    found = WEIGHT.fullmatch(remark)
    weight = float(found[1]) if found else 0.0
    if not 1e-6 <= weight <= 1e6:  # so that sums of weights stay exact enough
        raise ProgramError(
            f"{where}: expected a positive number, as in (weight 2), found ({short(remark)})"
        )
    return weight


def check_whole(program: Program, path: str, sections: Sections) -> None:
    """What only shows once every section is read."""
    if not program.goal:
        raise ProgramError(f"{path}: no goal; say what you want under '# Goal' at the top")
    if not program.task:
        raise ProgramError(f"{path}: no task; write what the model is asked under '## Task'")
    where = sections["Task"][0].where
    if "{expected}" in ASKED.sub("", program.task):
        raise ProgramError(f"{where}: {{expected}} in the task would give the answer away")
    if "Inputs" not in sections and (program.asks_in_place or program.held_out):
        raise ProgramError(f"{where}: this task needs inputs; list them under '## Inputs'")
    guess = "Inputs" in sections and not program.asks_in_place
    refuse_other_spellings(where, program.task, guess)
    unanswered = [i.text for i in program.rows if i.expected is None]
    for criterion in program.criteria:
        refuse_other_spellings(criterion.where, criterion.argument)
        if "{expected}" in criterion.argument and (unanswered or not program.rows):
            missing = f"; there is none for '{short(unanswered[0])}'" if unanswered else ""
            raise ProgramError(
                f"{criterion.where}: {{expected}} needs an expected answer for every input, as in"
                f" '- input => expected' under '## Inputs'{missing}"
            )


def refuse_other_spellings(where: str, text: str, guess: bool = False) -> None:
    """{{input}}, ${input}, [[input]] and the like; with `guess` any {word}, and <input>."""
    for found in SPELLED.finditer(text):
        word, tag = found[1].casefold().removesuffix("s"), found[0][0] == "<"
        ours = word in ("input", "expected")
        meant = ours and not tag or guess and (ours or found[0][0] in "{$")
        if meant and found[0] not in ("{input}", "{expected}"):
            right = "{expected}" if word == "expected" else "{input}"
            raise ProgramError(
                f"{where}: {found[0]} is no placeholder: write {right}, or in the task \\{found[0]}"
                " if it is meant as it stands"
            )
