"""The process of its own in which a `python:` criterion runs: JSON lines in, JSON lines out.

A script on the standard library alone, started by own.py with the seconds that one call may take.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import sys
import traceback
import types
from collections.abc import Callable
from numbers import Real
from typing import Any


class Refused(Exception):
    """What is wrong with the function; the text follows the name of its file."""


def main(seconds: float) -> None:
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what the function reads and prints is not between the lines
        os.dup2(nothing, number)
    path, name, source = json.loads(requests.readline())
    sys.path[0], sys.argv = os.path.dirname(path), [path]
    function, line = None, "first"
    while line:
        faulthandler.dump_traceback_later(seconds, exit=True)  # also when nobody waits any more
        try:
            reply = marked(function, *json.loads(line)) if function else {}
            function = function or load(path, name, source)
        except BaseException as error:  # sys.exit() too is the function's, not ours
            reply = {"error": f"{os.path.basename(path)}{placed(error, path)}"}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(reply), file=answers, flush=True)
        line = requests.readline()


def load(path: str, name: str, source: str) -> Any:
    module = types.ModuleType("criterion")
    module.__file__ = path
    sys.modules["criterion"] = module  # dataclasses look there
    exec(compile(source, path, "exec"), vars(module))
    function = vars(module).get(name)
    if not callable(function):
        raise Refused(f": no function {name}; write def {name}(response, expected, input):")
    try:
        inspect.signature(function).bind("", None, "")
    except TypeError as error:
        raise Refused(
            f"{line_of(function)}: {name} must take (response, expected, input): {error}"
        ) from error
    return function


def line_of(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return f":{code.co_firstlineno}" if code else ""


def marked(function: Callable[..., Any], *given: str | None) -> dict[str, Any]:
    result = function(*given)
    mark, reason = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
    if not isinstance(mark, Real) or not 0 <= float(mark) <= 1:  # holds for NaN too
        raise Refused(
            f"{line_of(function)}: it returned {result!r:.60}, expected a number from 0 to 1"
        )
    return {"mark": float(mark), "reason": str(reason)}


def placed(error: BaseException, path: str) -> str:
    """`:12: what went wrong`; the line is the last one in that file."""
    if isinstance(error, Refused):
        return str(error)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    return f"{f':{lines[-1]}' if lines else ''}: {type(error).__name__}: {error}"


if __name__ == "__main__":
    main(float(sys.argv[1]))
