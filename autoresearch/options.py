"""What a person can set: the command line, the environment and .env."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

from autoresearch.api.exchange import BASE_URL
from autoresearch.api.models import TEMPERATURES, TIMEOUT
from autoresearch.night import AT_ONCE
from autoresearch.text import mended

ITERATIONS = 250
REPORT_EVERY = 25
WORKERS = 8  # chosen by measurement: tests/benchmarks/search.py
PATIENCE = 30.0  # minutes

DESCRIPTION = """\
Finds the best system prompt for the task in program.md: an agent proposes a prompt, the model
under test answers with it, the answer is scored, and the record goes into results.json. Stop it
whenever you like: the same command goes on where it stopped."""
EPILOG = "The key and the models are set in .env; .env.example explains each line."
NO_KEY = (
    "no API key: set NEBIUS_API_KEY in .env (copy .env.example) or in the environment; "
    "python main.py --demo needs none"
)


SETTINGS = (
    *("NEBIUS_API_KEY", "NEBIUS_AGENT_API_KEY", "NEBIUS_JUDGE_API_KEY"),
    *("NEBIUS_BASE_URL", "NEBIUS_AGENT_BASE_URL", "NEBIUS_JUDGE_BASE_URL", "NEBIUS_ALLOW_HTTP"),
    *("NEBIUS_MODEL", "NEBIUS_AGENT_MODEL", "NEBIUS_JUDGE_MODEL"),
    *("NEBIUS_TEMPERATURE", "NEBIUS_MAX_TOKENS", "NEBIUS_EXTRA_BODY", "NEBIUS_TIMEOUT"),
)
LIKE_A_KEY = re.compile(r"(?:sk-|gsk_|hf_|nvapi-|eyJ|v1\.)[\w.=-]{16,}|[\w=-]{40,}")
SWITCH = {"1": True, "true": True, "yes": True, "on": True}
SWITCH |= {"0": False, "false": False, "no": False, "off": False}


class SettingError(Exception):
    """An option or a variable that cannot be used: says which, its value and what it takes."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options\n")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; exits with code 2 and one line on stderr where they cannot be read."""
    parser = _Parser(
        prog="python main.py", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False
    )
    _add_run_options(parser.add_argument_group("the run"))
    _add_limits(parser.add_argument_group("limits of this start, checked between experiments"))
    _add_commands(parser.add_argument_group("instead of a run"))
    options = parser.parse_args(argv)
    if options.demo and options.results:
        parser.error("--demo writes demo-results.json; leave out --results")
    files = ("program", options.program, "program.md"), ("results", options.results, None)
    named = "".join(f" --{n} {quote(str(at))}" for n, at, usual in files if at and str(at) != usual)
    options.command = "python main.py" + " --demo" * options.demo + named
    options.workers = options.workers or (1 if options.demo else WORKERS)
    options.at_once = 1 if options.demo else AT_ONCE  # one after the other it can be repeated
    options.results = options.results or Path(
        "demo-results.json" if options.demo else "results.json"
    )
    return options


def _add_run_options(group: Any) -> None:
    add = group.add_argument
    add("--program", type=Path, default=Path("program.md"), metavar="FILE",
        help="what you want (default: program.md)")  # fmt: skip
    add("--results", type=Path, metavar="FILE", help="the records (default: results.json)")
    add("--iterations", type=_positive, default=ITERATIONS, metavar="N",
        help=f"proposals in all, over every start (default: {ITERATIONS})")  # fmt: skip
    add("--report-every", type=_positive, default=REPORT_EVERY, metavar="N",
        help=f"experiments from report to report (default: {REPORT_EVERY})")  # fmt: skip
    add("--workers", type=_positive, metavar="N",
        help=f"experiments in flight (default: {WORKERS}; the demo: 1, repeatable)")  # fmt: skip
    add("--no-confirm", action="store_true", help="end without fresh samples of the best prompts")
    shown = group.add_mutually_exclusive_group()
    shown.add_argument("--verbose", action="store_true", help="print prompts and responses whole")
    shown.add_argument("--quiet", action="store_true", help="print reports and errors only")


def _add_limits(group: Any) -> None:
    add = group.add_argument
    add("--max-cost", type=_amount, metavar="USD", help="stop when this much is spent")
    add("--max-tokens", type=_positive, metavar="N", help="stop when so many tokens are used")
    add("--max-hours", type=_amount, metavar="H", help="stop after this time")
    add("--patience", type=_amount, default=PATIENCE, metavar="MIN",
        help=f"stop after so long without a success (default: {PATIENCE:g} minutes)")  # fmt: skip


def _add_commands(group: Any) -> None:
    only = group.add_mutually_exclusive_group()
    add = only.add_argument
    add("--demo", action="store_true", help="run against a simulated model: no key, no network")
    add("--check", action="store_true",
        help="one real call, the run's cost, a stress test of the scoring")  # fmt: skip
    add("--report", nargs="?", const="", metavar="SERIES",
        help="print the report and write the page, from the file")  # fmt: skip
    add("--ablate", action="store_true", help="measure what each sentence of the winner is worth")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _amount(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def client_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `Client` takes, from .env and, first, the environment; raises SettingError."""
    given = environment()
    if "NEBIUS_API_KEY" not in given:
        raise SettingError(NO_KEY)
    _refuse_misplaced_keys(given)
    names = {"task": "NEBIUS_", "agent": "NEBIUS_AGENT_", "judge": "NEBIUS_JUDGE_"}

    def by_role(name: str, default: str) -> dict[str, str]:
        shared = given.get(f"NEBIUS_{name}", default)
        return {role: given.get(f"{prefix}{name}", shared) for role, prefix in names.items()}

    keys, urls, models = by_role("API_KEY", ""), by_role("BASE_URL", BASE_URL), by_role("MODEL", "")
    return dict(
        api_key=keys["task"],
        base_url=urls["task"],
        servers={role: (keys[role], urls[role]) for role in names},
        models=models,
        temperature=task_temperature(given),
        max_tokens=_max_tokens(given.get("NEBIUS_MAX_TOKENS", "4096")),
        extra_body=_extra_body(given.get("NEBIUS_EXTRA_BODY", "{}")),
        patience=options.patience * 60,
        deadline=_number(given, "NEBIUS_TIMEOUT", TIMEOUT, 1, 86400),
        allow_http=_switch(given, "NEBIUS_ALLOW_HTTP"),
    )


def _refuse_misplaced_keys(given: Mapping[str, str]) -> None:
    """No line that names a setting shall show a key that was pasted into the wrong one."""
    keys = [v for name, v in given.items() if name.endswith("API_KEY") and len(v) >= 16]
    for name in (n for n in given if n in SETTINGS and not n.endswith("API_KEY")):
        if LIKE_A_KEY.fullmatch(given[name]) or any(key in given[name] for key in keys):
            raise SettingError(f"{name} holds a key: set that as NEBIUS_API_KEY, and only there")


def environment() -> dict[str, str]:
    """The variables that are set to something, in .env or, first, in the environment."""
    sources = (_read_dotenv(Path(".env")), os.environ)
    return {
        k: mended(v).strip() for source in sources for k, v in source.items() if v and v.strip()
    }


def _read_dotenv(path: Path) -> dict[str, str | None]:
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    if not path.exists() or path.is_dir():  # a virtual environment may have that name too
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingError(f"{path} cannot be read: {reason}; check its permissions") from error
    except UnicodeError as error:
        raise SettingError(f"{path} cannot be read: save it as UTF-8 ({error})") from error
    bindings = list(parse_stream(StringIO(text)))
    names = {binding.key for binding in bindings} | set(os.environ)
    for binding in bindings:
        if binding.error:
            before = binding.original.string
            line = binding.original.line + before[: len(before) - len(before.lstrip())].count("\n")
            raise SettingError(f"{path}, line {line}: not NAME=value; a '#' begins a comment")
        near = difflib.get_close_matches(binding.key or "", SETTINGS, n=1, cutoff=0.85)
        if near and binding.key not in SETTINGS and near[0] not in names:
            raise SettingError(f"{path}: {binding.key} is no setting; did you mean {near[0]}?")
    return dotenv_values(stream=StringIO(text))


def task_temperature(given: Mapping[str, str]) -> float:
    return _number(given, "NEBIUS_TEMPERATURE", TEMPERATURES["task"], 0, 2)


def _number(given: Mapping[str, str], name: str, default: float, low: float, high: float) -> float:
    text = given.get(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise SettingError(f"{name} is {text!r}; it takes a number from {low:g} to {high:g}")
    return value


def _max_tokens(text: str) -> int:
    if not re.fullmatch("0*[1-9][0-9]{0,7}", text):
        raise SettingError(f"NEBIUS_MAX_TOKENS is {text!r}; it takes a whole number, such as 4096")
    return int(text)


def _switch(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "0").lower()
    if text not in SWITCH:
        raise SettingError(f"{name} is {given[name]!r}; it takes 1 or 0")
    return SWITCH[text]


def _extra_body(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise SettingError(f"NEBIUS_EXTRA_BODY is {text!r}; it takes a JSON object")
    return fields
