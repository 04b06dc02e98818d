"""What a person can set: the command line, the environment and .env."""

import argparse
import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Any, NoReturn

from msgspec.json import decode

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
OF_ROLES = "API_KEY", "BASE_URL", "MODEL"
OF_ALL = "TEMPERATURE", "MAX_TOKENS", "EXTRA_BODY", "TIMEOUT", "ALLOW_HTTP"
SETTINGS = [f"NEBIUS_{role}{name}" for role in ("", "AGENT_", "JUDGE_") for name in OF_ROLES]
SETTINGS += [f"NEBIUS_{name}" for name in OF_ALL]
LIKE_A_KEY = re.compile(r"(?:sk-|gsk_|hf_|nvapi-|eyJ|v1\.)[\w.=-]{16,}|[\w=-]{40,}")


class SettingError(Exception):
    """A variable that cannot be used: says which, its value and what it takes."""


def _read(text: str, what: str, kind: Callable[[str], Any], fits: Callable[[Any], bool]) -> Any:
    with suppress(ValueError, RecursionError):
        if fits(value := kind(text)):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not {what}")


WHOLE = partial(_read, what="a whole number from 1 up", kind=int, fits=lambda n: n >= 1)
AMOUNT = partial(_read, what="a number above 0", kind=float, fits=lambda n: 1e-300 <= n <= 1e300)
TEMPERATURE = partial(_read, what="a number from 0 to 2", kind=float, fits=lambda t: 0 <= t <= 2)
SWITCH = partial(_read, what="1 or 0", kind=int, fits=lambda n: n in (0, 1))
TIME = partial(_read, what="a number from 1 to 86400", kind=float, fits=lambda s: 1 <= s <= 86400)
OBJECT = partial(_read, what="a JSON object", kind=partial(decode, type=dict), fits=lambda _: True)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; --help lists the options\n")


def _parser() -> _Parser:
    parser = _Parser("python main.py", None, DESCRIPTION, EPILOG, allow_abbrev=False)
    parser.set_defaults(program=Path("program.md"), iterations=250, report_every=25, patience=30.0)
    run = parser.add_argument_group("the run")
    shown = run.add_mutually_exclusive_group()
    limits = parser.add_argument_group("limits of this start, checked between experiments")
    only = parser.add_argument_group("instead of a run").add_mutually_exclusive_group()
    for group, name, metavar, read, told in (
        (run, "--program", "FILE", Path, "what you want (default: program.md)"),
        (run, "--results", "FILE", Path, "the records (default: results.json)"),
        (run, "--iterations", "N", WHOLE, "proposals in all, over every start (default: 250)"),
        (run, "--report-every", "N", WHOLE, "experiments from report to report (default: 25)"),
        (run, "--workers", "N", WHOLE, "experiments in flight (default: 8; demo: 1, repeatable)"),
        (limits, "--max-cost", "USD", AMOUNT, "stop when this much is spent"),
        (limits, "--max-tokens", "N", WHOLE, "stop when so many tokens are used"),
        (limits, "--max-hours", "H", AMOUNT, "stop after this time"),
        (limits, "--patience", "MIN", AMOUNT, "stop after so long without success (default: 30)"),
    ):
        group.add_argument(name, metavar=metavar, type=read, help=told)
    for group, name, told in (
        (run, "--no-confirm", "end without fresh samples of the best prompts"),
        (shown, "--verbose", "print prompts and responses whole"),
        (shown, "--quiet", "print reports and errors only"),
        (only, "--demo", "run against a simulated model: no key, no network"),
        (only, "--check", "a few real calls, the run's cost, a stress test of the scoring"),
        (only, "--ablate", "measure what each sentence of the winner is worth"),
    ):
        group.add_argument(name, action="store_true", help=told)
    told = "print the report and write the page, from the file"
    only.add_argument("--report", nargs="?", const="", metavar="SERIES", help=told)
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; exits with code 2 and one line on stderr where they cannot be read."""
    parser = _parser()
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
    keys = [v for name, v in given.items() if name.endswith("API_KEY") and len(v) >= 16]
    for name in (n for n in given if n in SETTINGS and not n.endswith("API_KEY")):
        # no line that names a setting shall show a key that was pasted into the wrong one
        if LIKE_A_KEY.fullmatch(given[name]) or any(key in given[name] for key in keys):
            raise SettingError(f"{name} holds a key: set that as NEBIUS_API_KEY, and only there")
    if "NEBIUS_API_KEY" not in given:
        raise SettingError(NO_KEY)

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
        extra_body=_setting(given, "NEBIUS_EXTRA_BODY", "{}", OBJECT),
        patience=options.patience * 60,
        deadline=_setting(given, "NEBIUS_TIMEOUT", f"{TIMEOUT}", TIME),
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
    from dotenv import dotenv_values, parser

    if not path.exists() or path.is_dir():  # a virtual environment may have that name too
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        do = "save it as UTF-8" if isinstance(error, UnicodeError) else "check its permissions"
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise SettingError(f"{path} cannot be read: {reason}; {do}") from error
    entries = list(parser.parse_stream(StringIO(text)))
    names = {entry.key for entry in entries} | set(os.environ)
    for entry in entries:
        if entry.error:
            line = entry.original.line + re.findall(r"\A\s*", entry.original.string)[0].count("\n")
            raise SettingError(f"{path}, line {line}: not NAME=value; a '#' begins a comment")
        near = difflib.get_close_matches(entry.key or "", SETTINGS, n=1, cutoff=0.85)
        if near and entry.key not in SETTINGS and near[0] not in names:
            raise SettingError(f"{path}: {entry.key} is no setting; did you mean {near[0]}?")
    return dotenv_values(stream=StringIO(text))
