"""Reads program.md, the only file a person edits, into a `Program`; every error names the line."""

import hashlib
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path

from autoresearch.files.inputs import CODE, Input, ProgramError, Row, read_input, read_text
from autoresearch.text import nearest, short, unknown

SECTIONS = ("Goal", "Task", "Inputs", "Held-out inputs", "Criteria", "Baseline")
HEADING = re.compile(r" {0,3}(#{1,2})(\s*)(.*)")
ITEM = re.compile(r"(\s*)(?:[-*+]|\d+[.)])(?:\s+|$)(.*)")
BLOCK = re.compile(
    r"^[^\S\n]*(?:(?:[-*+]|\d+[.)])[^\S\n]+)?(?P<fence>`{3,}(?=[^`\n]*$)|~{3,}(?!~))"
    r"(?s:.*?)(?:\n[^\S\n]*(?P=fence)[`~]*[^\S\n]*$|(?P<never>\Z))",
    re.MULTILINE,
)
OPAQUE = rf"{CODE.pattern}|:[^\S\n]*/(?:\\.|[^/\\\n])*/|{BLOCK.pattern}"  # no comment begins there
APART = re.compile(rf"{OPAQUE}|(?P<comment><!--)(?s:.*?)(?:-->|(?P<open>\Z))", re.MULTILINE)
CRITERION = re.compile(r"([\w-]+)\s*(?:\((.*?)\)\s*)?:\s*(.*)", re.DOTALL)
MARK = (  # a placeholder, elsewhere
    r"(?:\{\{\{?|\$\{|\[\[|%\(|[{<$%[])\s*(\w+)\s*(?:\}\}\}?|\]\]|\)s|\}|>"
    r"|(?i:(?<=\$input)\b|(?<=%input)%|(?<=\[input)\]))"
)
ASKED = re.compile(rf"\\({MARK})|\{{input\}}")


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
    pool: tuple[Input, ...] = ()  # labelled, to show as examples, never scored
    set_aside: int = 0  # how many of the inputs are held out although program.md does not say so
    notices: tuple[str, ...] = ()  # what the person should know, a line each
    rows: tuple[Input, ...] = ()  # all, as they are listed, those under ## Held-out inputs first

    @property
    def judged_by_goal(self) -> bool:
        """Whether a judge scores against the goal: no criteria at all, or `judge: goal`."""
        return not self.criteria or any(c.label.casefold() == "judge: goal" for c in self.criteria)

    def question(self, given: Input) -> str:
        r"""The user message for one input, at `{input}` or after the task; `\{a}` gives {a}."""
        asked = ASKED.sub(lambda found: found[1] or given.text, self.task)
        return asked if self.asks_in_place or not given.text else f"{asked}\n\n{given.text}"

    @property
    def asks_in_place(self) -> bool:
        return any(not found[1] for found in ASKED.finditer(self.task))

    def digests(self, model: str, temperature: float) -> list[str]:
        """The digests of this series, 12 hex digits each, the last one for new records.

        Of task, model, temperature, a judged goal, with a judge also of the answers that it is
        shown, one after the other, so that rows added at the end go on. Of inputs, which stand in
        the trials, only the first, for the records of versions that counted them in."""
        judge = not self.criteria or any(c.kind == "judge" for c in self.criteria)
        goal, answers = self.goal * self.judged_by_goal, self._answers() if judge else {}
        held_out = set() if self.set_aside else set(self.held_out)
        texts = [i.text for i in self.rows if i not in held_out] or [""]
        before = fingerprint(self.task, texts, model, temperature, [goal, answers])
        now = fingerprint(self.task, model, temperature, goal)
        return [before, *accumulate(answers.items(), fingerprint, initial=now)]

    def criteria_digest(self) -> str:
        """12 hex digits over how it was scored: criteria, expected answers, a judged goal."""
        facts = [(c.kind, c.argument, c.weight, *filter(None, [c.source])) for c in self.criteria]
        return fingerprint(sorted(facts), self._answers(), self.goal * self.judged_by_goal)

    def _answers(self) -> dict[str, str]:
        return {i.text: i.expected for i in self.rows if i.expected is not None}


Inputs = list[Input]
Line = tuple[str, str]  # its address, "program.md:12", and its text
Sections = dict[str, list[Line]]  # name -> its lines, the first one that of the heading


def load_program(path: Path) -> Program:
    """Reads and checks everything but the criteria's arguments; raises ProgramError."""
    text = read_text(path)
    sections = split_sections(str(path), text)
    listed = (items_under(heading, sections) for heading in ("Inputs", "Held-out inputs"))
    parts = [[row for item in items for row in read_input(*item, path.parent)] for items in listed]
    asked = [f"at {where}" for where, given in chain(*parts) if given.expected is None]
    unanswered = "without inputs" if not any(parts) else asked[0] if asked else ""
    (inputs, held_out), repeats = without_repeats(*parts)
    rows = (*held_out, *inputs)
    if by_us := "Held-out inputs" not in sections:
        inputs, held_out = set_apart(inputs, 12, 1 / 3, 2, "held out")
    inputs, pool = set_apart(inputs, 20, 1 / 10, 5, "pool")
    program = Program(
        goal=prose(sections["Goal"]),
        task=unfenced(prose(sections.get("Task", []))),
        inputs=tuple(inputs) or (Input(""),),
        held_out=tuple(held_out),
        criteria=tuple(read_criterion(*i, path.parent) for i in items_under("Criteria", sections)),
        baseline=unfenced(prose(sections.get("Baseline", []))),
        text=text,
        name=path.name,
        pool=tuple(pool),
        set_aside=len(held_out) * by_us,
        rows=rows,
    )
    return replace(
        program, notices=(*repeats, *look_over(program, str(path), sections, unanswered))
    )


def without_repeats(*parts: list[Row]) -> tuple[list[Inputs], list[str]]:
    """Each input once, where it stands first, so that a pass is one trial of each; and a line about
    those that were left out."""
    seen: dict[str, Row] = {}
    repeats = []
    for where, given in chain(*parts):
        first, twin = seen.setdefault(given.text, (where, given))
        if twin.expected != given.expected:
            raise ProgramError(f"{where}: the same input has another answer at {first}")
        if twin is not given:
            repeats.append(f"{where} repeats {first}")
    kept = [[given for _, given in part if seen[given.text][1] is given] for part in parts]
    left_out = f"repeated inputs count once: {len(repeats)} left out"
    return kept, [f"{left_out}; {repeat}" for repeat in repeats[:1]]


def set_apart(inputs: Inputs, enough: int, share: float, least: int, salt: str) -> list[Inputs]:
    """[the others, a share of the labelled inputs if they are enough], by a hash of each: rows that
    are added move none of those that were among the others before."""
    labelled = [i for i in inputs if i.expected is not None]
    hashes = [hashlib.sha256(f"{salt}{i.text}".encode()).hexdigest() for i in labelled]
    order = enumerate(sorted(zip(hashes, labelled, strict=True)))
    chosen = {i for n, (h, i) in order if n < least or int(h[:16], 16) / 2**64 < share}
    if len(labelled) < enough:
        return [inputs, []]
    return [[i for i in inputs if i not in chosen], [i for i in inputs if i in chosen]]


def fingerprint(*facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def split_sections(name: str, text: str) -> Sections:
    """Text above the first heading, a title too, belongs to the goal."""
    known = {section.casefold().replace("-", " "): section for section in SECTIONS}
    sections: Sections = {}
    preamble = lines = list[Line]()
    for where, line in visible_lines(name, text):
        heading = HEADING.match(line)
        hashes, blank, said = heading.groups() if heading else ("", "", "")
        said = said.rstrip(" \t#:")
        title, _, word = said.partition(":")
        section = known.get(" ".join(title.casefold().replace("-", " ").split()))
        if not (section or blank and (sections or hashes == "##" or nearest(said, SECTIONS))):
            lines.append((where, line))
        elif not blank:
            raise ProgramError(f"{where}: a blank is missing: write '{hashes} {title}'")
        elif section is None or word.strip() not in ("", "none"):
            raise ProgramError(f"{where}: unknown section {unknown(said, SECTIONS)}")
        elif section in sections:
            first = sections[section][0][0]
            raise ProgramError(f"{where}: section '{section}' stands already at {first}")
        else:
            sections[section] = lines = [(where, word)]
    return sections | {"Goal": preamble + sections.get("Goal", [])[1:]}


def visible_lines(name: str, text: str) -> Iterator[Line]:
    r"""The lines without HTML comments; in a code block such are text, and lines begin with \0."""

    def marked(found: re.Match[str]) -> str:
        fence, comment = found["fence"], found["comment"]
        if "" in (found["never"], found["open"]):
            line = text.count("\n", 0, found.start()) + 1
            raise ProgramError(f"{name}:{line}: {fence or comment} is opened here and never closed")
        if comment:
            return "\0\0" + "\n\0\0" * found[0].count("\n")  # which no text has
        return found[0].replace("\n", "\n\0") if fence else found[0]

    for number, line in enumerate(APART.sub(marked, text).split("\n"), 1):
        shown = line.replace("\0\0", "")
        if shown.strip() or shown == line:
            yield f"{name}:{number}", shown


def prose(section: list[Line]) -> str:
    return "\n".join(line for _, line in section).replace("\0", "").strip()


def unfenced(text: str) -> str:
    """The inside of a text that is one code block: there a prompt may have headings of its own."""
    block = BLOCK.match(text)
    whole = block and block["never"] is None and block.end() == len(text)
    return "\n".join(text.split("\n")[1:-1]) if whole else text


def items_under(heading: str, sections: Sections) -> Iterator[Line]:
    """The list items under a heading, each at its first line; none where it says `none`."""
    section = sections.get(heading, [])
    said = prose(section).casefold()
    if section and not said:
        raise ProgramError(f"{section[0][0]}: nothing under ## {heading}; write '- none'")
    items: list[list[str]] = []  # of each its address and its lines
    inner = 0  # column from which a list item is text of the one above
    for where, line in section if said not in ("none", "- none") else ():
        found = ITEM.match(line)
        if found and (not items or len(found[1]) < inner):
            inner = found.start(2)
            items.append([where, found[2]])
        elif items and re.match(r"\0|\s|$", line):
            items[-1].append(line.removeprefix("\0"))
        elif line.strip():
            raise ProgramError(
                f"{where}: expected a list item such as '- text', found '{short(line)}'"
                " (indent a line that continues the item above)"
            )
    for where, first, *more in items:
        text = (first + "\n" + textwrap.dedent("\n".join(more))).strip()
        if not text:
            raise ProgramError(f"{where}: expected text after the list marker, found none")
        yield where, text


def read_criterion(where: str, text: str, folder: Path) -> Criterion:
    """Reads `kind: argument` or `kind (weight 2): argument`."""
    found = CRITERION.fullmatch(text)
    if not found:
        raise ProgramError(
            f"{where}: expected 'kind: argument' or 'kind (weight 2): argument'; a model can"
            f" judge it: '- judge: {short(text)}'"
        )
    kind, remark, argument = found[1].lower(), *found.groups("weight 1")[1:]
    if not argument:
        raise ProgramError(f"{where}: nothing after '{kind}:'")
    given = re.fullmatch(r"weight\s*[=:]?\s*(\d+\.?\d*|\.\d+)", remark.strip(), re.IGNORECASE)
    weight = float(given[1]) if given else 0.0
    if not 1e-6 <= weight <= 1e6:  # so that sums of weights stay exact enough
        what = f"a positive number, as in (weight 2), found ({short(remark)})"
        raise ProgramError(f"{where}: expected {what}")
    file = argument.rpartition(":")[0].strip()
    own = kind == "python" and file.endswith(".py")
    return Criterion(kind, argument, weight, where, read_text(folder / file, where) if own else "")


def look_over(program: Program, path: str, sections: Sections, unanswered: str) -> Iterator[str]:
    """Refuses what only shows once every section is read, and tells what a person should know.
    `unanswered`: where the first input without an expected answer stands, if there is one."""
    if not program.goal:
        raise ProgramError(f"{path}: no goal; say what you want under '# Goal' at the top")
    if not program.task:
        raise ProgramError(f"{path}: no task; write what the model is asked under '## Task'")
    where = sections["Task"][0][0]
    if "{expected}" in ASKED.sub("", program.task):
        raise ProgramError(f"{where}: {{expected}} in the task would give the answer away")
    if "Inputs" not in sections and (program.asks_in_place or program.held_out):
        raise ProgramError(f"{where}: this task needs inputs; list them under '## Inputs'")
    refuse_other_spellings(where, program.task, "Inputs" in sections and not program.asks_in_place)
    if program.set_aside:
        yield (
            f"{program.set_aside} of the {len(program.rows)} inputs are held out for the last "
            "confirmation, the same ones every time ('## Held-out inputs: none' searches with all)"
        )
    if program.pool:
        yield f"{len(program.pool)} inputs are never scored: prompts may show them as examples"
    seen: dict[str, str] = {}
    for c in program.criteria:
        where, first = c.where, seen.setdefault(c.label, c.where)
        if first != where:
            raise ProgramError(f"{where}: the same criterion as at {first}; give that one a weight")
        refuse_other_spellings(where, c.argument)
        if re.fullmatch(r"[<$%[]?expected[]>%]?|\{(?!input|expected)\w+\}", c.argument, re.I):
            yield f"{where}: '{c.label}' asks for that word; '{c.kind}: {{expected}}' was meant?"
        if "{expected}" in c.argument and unanswered:
            raise ProgramError(
                f"{where}: {{expected}} needs '- input => answer' for each, or the column expected"
                f" of a file; there is no answer {unanswered}"
            )


def refuse_other_spellings(where: str, text: str, guess: bool = False) -> None:
    """{{input}}, ${input}, [[input]] and the like; with `guess` any {word}, <input>, $input."""
    for found in re.finditer(rf"(?<![\\{{$\[]){MARK}", text):
        spelled, word = found[0], found[1].casefold().removesuffix("s")
        ours = word in ("input", "expected")
        sure = spelled[0] == "{" or spelled[1] in "{[("
        meant = ours and sure or guess and (ours or "{" in spelled[:2])
        if meant and spelled not in ("{input}", "{expected}"):
            right = f"{{{word if ours else 'input'}}}"
            raise ProgramError(
                f"{where}: {spelled} is no placeholder: write {right}, or in the task \\{spelled}"
            )
