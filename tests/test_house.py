"""What every user's file depends on, and how the house is built. Run: pytest tests/test_house.py"""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from autoresearch.files.program import load_program

ROOT = Path(__file__).parents[1]
DIGESTS = {  # another digest begins a new series in every file that people have
    "program.md": ("30135e4ef27d", "13d3e50e2148", "08b1cbdd561d"),
    "examples/classify-tickets.md": ("28724f46bacf", "17aac9e0a6dc", "3cbce9dfbef3"),
    "examples/explain-like-im-five.md": ("001b544ab46b", "543fe2953599", "417052ba6047"),
    "examples/extract-invoice.md": ("45a419d9d90f", "f27224cf2d22", "73e82813f8ea"),
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_digests_of_the_shipped_programs_are_known(name):
    program = load_program(ROOT / name)
    before, now, scored = DIGESTS[name]
    assert program.digests("m", 0.7)[0] == before  # of versions that counted in the inputs
    assert (program.digests("m", 0.7)[-1], program.criteria_digest()) == (now, scored)


# --- what stands where, and how much of it ---

TOP = set(
    "README.md LICENSE pyproject.toml requirements.txt .env.example .gitignore .ci program.md "
    "results.json main.py agent.py experiment.py scorer.py client.py autoresearch tests examples "
    "docs".split()
)
FIVE = {"main": 200, "agent": 250, "experiment": 250, "scorer": 250, "client": 250}  # lines, most
ROOMS = 12  # entries of autoresearch/
FILE = 400  # lines of a file
COLUMNS = 100
PRODUCT = 6_600  # lines of all of it: every .py outside tests/, and page.html

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*ROOT.glob("*.py"), *ROOT.glob("autoresearch/**/*.py")]
}
FILES = [*MODULES.values(), *ROOT.glob("autoresearch/**/*.html")]


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def tracked() -> set[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git checkout")
    return {Path(name) for name in listed.stdout.splitlines()}


def test_the_top_level_holds_the_five_files_and_the_package():
    assert {path.parts[0] for path in tracked()} == TOP


def test_the_package_has_few_rooms():
    rooms = {path.parts[1] for path in tracked() if path.parts[0] == "autoresearch"}
    assert len(rooms - {"__init__.py"}) <= ROOMS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_long_or_wide(path):
    most = FIVE.get(path.stem, FILE) if path.parent == ROOT else FILE
    assert len(lines(path)) <= most
    assert not [number for number, line in enumerate(lines(path), 1) if len(line) > COLUMNS]


def test_the_whole_product_stays_small():
    assert sum(len(lines(path)) for path in FILES) <= PRODUCT


# --- imports run one way ---

# What the files of each room may import besides their own; night knows nothing of what a job does.
DOWN = {
    "text": "",
    "simulator": "text",
    "api": "text",
    "files": "text",
    "night": "text",
    "options": "api night text",
    "criteria": "files text",
    "search": "criteria files text",
    "report": "search criteria files options simulator text",
    "check": "search criteria files api night text",
}


def imported(path: Path) -> set[str]:
    """The modules of this project that a file imports, anywhere in it."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return {
        name if name in MODULES else name.rpartition(".")[0]
        for name in names
        if name in MODULES or name.rpartition(".")[0] in MODULES
    }


IMPORTS = {name: imported(path) for name, path in MODULES.items()}


def test_the_five_in_front_are_imported_by_main_and_for_the_client_alone():
    for name in MODULES:
        allowed = FIVE.keys() - {"main"} if name == "main" else {"client"}
        in_front = IMPORTS[name] & FIVE.keys()
        assert in_front <= (allowed if name in FIVE and name != "client" else set()), name


@pytest.mark.parametrize("name", [name for name in MODULES if "." in name])
def test_the_rooms_import_only_downward(name):
    room = name.split(".")[1]
    for other in IMPORTS[name]:
        assert other.split(".")[1] in {room, *DOWN[room].split()}, f"{name} imports {other}"


def test_no_imports_run_in_a_circle():
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above, name])
        if name not in done:
            for other in sorted(IMPORTS[name] - {name}):
                visit(other, (*above, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())
