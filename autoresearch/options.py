"""What a person can set: the command line, the environment and .env."""

import argparse
import difflib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

from autoresearch.api.exchange import BASE_URL
from autoresearch.api.models import TEMPERATURES, TIMEOUT
from autoresearch.night import AT_ONCE
from autoresearch.text import mended

WORKERS = 8  # chosen by measurement: tests/benchmarks/search.py

DESCRIPTION = """\
Finds the best system prompt for the task in program.md: an agent proposes a prompt, the model
under test answers with it, the answer is scored, and the record goes into results.json. Stop it
whenever you like: the same command goes on where it stopped."""
EPILOG = "The key and the models are set in .env; .env.example explains each line."
NO_KEY = "no API key: set NEBIUS_API_KEY in .env (copy .env.example); main.py --demo needs none"
SETTINGS = (
    *("NEBIUS_API_KEY", "NEBIUS_AGENT_API_KEY", "NEBIUS_JUDGE_API_KEY"),
    *("NEBIUS_BASE_URL", "NEBIUS_AGENT_BASE_URL", "NEBIUS_JUDGE_BASE_URL", "NEBIUS_ALLOW_HTTP"),
    *("NEBIUS_MODEL", "NEBIUS_AGENT_MODEL", "NEBIUS_JUDGE_MODEL"),
    *("NEBIUS_TEMPERATURE", "NEBIUS_MAX_TOKENS", "NEBIUS_EXTRA_BODY", "NEBIUS_TIMEOUT"),
)
LIKE_A_KEY = re.compile(r"(?:sk-|gsk_|hf_|nvapi-|eyJ|v1\.)[\w.=-]{16,}|[\w=-]{40,}")


class SettingError(Exception):
    """A variable that cannot be used: says which, its value and what it takes."""


def _number(text: str, low: float, high: float, what: str, read: Any = float) -> Any:
    try:
        value = read(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value


def _object(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text)
        json.dumps(fields, allow_nan=False)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return fields


WHOLE = partial(_number, low=1, high=math.inf, what="a whole number from 1 up", read=int)
AMOUNT = partial(_number, low=1e-300, high=1e300, what="a number above 0")
TEMPERATURE = partial(_number, low=0, high=2, what="a number from 0 to 2")
SWITCH = partial(_number, low=0, high=1, what="1 or 0", read=int)
SECONDS = partial(_number, low=1, high=86400, what="a number from 1 to 86400")


VALUES: dict[str, tuple[tuple[str, str, Any, Any, str], ...]] = {
    "the run": (
        ("--program", "FILE", Path, Path("program.md"), "what you want (default: program.md)"),
        ("--results", "FILE", Path, None, "the records (default: results.json)"),
        ("--iterations", "N", WHOLE, 250, "proposals in all, over every start (default: 250)"),
        ("--report-every", "N", WHOLE, 25, "experiments from report to report (default: 25)"),
        ("--workers", "N", WHOLE, None, "experiments in flight (default: 8; demo: 1, repeatable)"),
    ),
    "limits of this start, checked between experiments": (
        ("--max-cost", "USD", AMOUNT, None, "stop when this much is spent"),
        ("--max-tokens", "N", WHOLE, None, "stop when so many tokens are used"),
        ("--max-hours", "H", AMOUNT, None, "stop after this time"),
        ("--patience", "MIN", AMOUNT, 30.0, "stop after so long without success (default: 30 min)"),
    ),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options\n")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; exits with code 2 and one line on stderr where they cannot be read."""
    parser = _Parser(
        prog="python main.py", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False
    )
    run, limits = map(parser.add_argument_group, VALUES)
    for group, rows in zip((run, limits), VALUES.values(), strict=True):
        for name, metavar, read, default, told in rows:
            group.add_argument(name, metavar=metavar, type=read, default=default, help=told)
    shown = run.add_mutually_exclusive_group()
    only = parser.add_argument_group("instead of a run").add_mutually_exclusive_group()
    for parent, name, told in (
        (run, "--no-confirm", "end without fresh samples of the best prompts"),
        (shown, "--verbose", "print prompts and responses whole"),
        (shown, "--quiet", "print reports and errors only"),
        (only, "--demo", "run against a simulated model: no key, no network"),
        (only, "--check", "a few real calls, the run's cost, a stress test of the scoring"),
        (only, "--ablate", "measure what each sentence of the winner is worth"),
    ):
        parent.add_argument(name, action="store_true", help=told)
    told = "print the report and write the page, from the file"
    only.add_argument("--report", nargs="?", const="", metavar="SERIES", help=told)
    options = parser.parse_args(argv)
    if options.demo and options.results:
        parser.error("--demo writes demo-results.json; leave out --results")
    files = ("program", options.program, "program.md"), ("results", options.results, None)
    named = "".join(f" --{n} {quote(str(at))}" for n, at, usual in files if at and str(at) != usual)
    options.command = "" if options.demo else f"python main.py{named}"
    results = "demo-results.json" if options.demo else "results.json"
    options.results = options.results or Path(results)
    options.workers = options.workers or (1 if options.demo else WORKERS)
    options.at_once = 1 if options.demo else AT_ONCE  # one after the other it can be repeated
    return options


def client_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `Client` takes, from .env and, first, the environment; raises SettingError."""
    given = environment()
    if "NEBIUS_API_KEY" not in given:
        raise SettingError(NO_KEY)
    keys = [v for name, v in given.items() if name.endswith("API_KEY") and len(v) >= 16]
    for name in (n for n in given if n in SETTINGS and not n.endswith("API_KEY")):
        # no line that names a setting shall show a key that was pasted into the wrong one
        if LIKE_A_KEY.fullmatch(given[name]) or any(key in given[name] for key in keys):
            raise SettingError(f"{name} holds a key: set that as NEBIUS_API_KEY, and only there")

    def of(role: str, name: str, default: str = "") -> str:
        own = given.get(f"NEBIUS_{role.upper()}_{name}") if role != "task" else None
        return own or given.get(f"NEBIUS_{name}", default)

    return dict(
        api_key=given["NEBIUS_API_KEY"],
        base_url=of("task", "BASE_URL", BASE_URL),
        servers={r: (of(r, "API_KEY"), of(r, "BASE_URL", BASE_URL)) for r in TEMPERATURES},
        models={role: of(role, "MODEL") for role in TEMPERATURES},
        temperature=task_temperature(given),
        max_tokens=_setting(given, "NEBIUS_MAX_TOKENS", "4096", WHOLE),
        extra_body=_setting(given, "NEBIUS_EXTRA_BODY", "{}", _object),
        patience=options.patience * 60,
        deadline=_setting(given, "NEBIUS_TIMEOUT", f"{TIMEOUT}", SECONDS),
        allow_http=bool(_setting(given, "NEBIUS_ALLOW_HTTP", "0", SWITCH)),
    )


def task_temperature(given: Mapping[str, str]) -> float:
    return float(_setting(given, "NEBIUS_TEMPERATURE", f"{TEMPERATURES['task']}", TEMPERATURE))


def _setting(given: Mapping[str, str], name: str, default: str, read: Callable[[str], Any]) -> Any:
    try:
        return read(given.get(name, default))
    except argparse.ArgumentTypeError as error:
        raise SettingError(f"{name}: {error}") from error


def environment() -> dict[str, str]:
    """The variables that are set to something, in .env or, first, in the environment."""
    sources = (_read_dotenv(Path(".env")), os.environ)
    return {k: mended(v).strip() for s in sources for k, v in s.items() if v and v.strip()}


def _read_dotenv(path: Path) -> dict[str, str | None]:
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    if not path.exists() or path.is_dir():  # a virtual environment may have that name too
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        do = "save it as UTF-8" if isinstance(error, UnicodeError) else "check its permissions"
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise SettingError(f"{path} cannot be read: {reason}; {do}") from error
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
