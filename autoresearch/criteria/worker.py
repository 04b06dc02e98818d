"""The process in which a `python:` criterion runs: JSON lines in, JSON lines out.

A script on the standard library alone; own.py starts it with the seconds that a call may take.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import sys
import traceback
import types
from numbers import Real
from typing import Any


def main(seconds: float) -> None:
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what the function reads and prints is not between the lines
        os.dup2(nothing, number)
    path, name, source = json.loads(requests.readline())
    sys.path[0], sys.argv = os.path.dirname(path), [path]
    function, line = None, "first"
    reply: list[Any] | str
    while line:
        faulthandler.dump_traceback_later(seconds, exit=True)  # also when nobody waits any more
        try:
            reply = marked(function, *json.loads(line)) if function else [0, ""]
            function = function or load(path, name, source)
        except BaseException as error:  # sys.exit() too is the function's, not ours
            reply = placed(error, path)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(reply), file=answers, flush=True)
        line = requests.readline()


def load(path: str, name: str, source: str) -> Any:
    module = sys.modules["criterion"] = types.ModuleType("criterion")  # dataclasses look there
    module.__file__ = path
    exec(compile(source, path, "exec"), vars(module))
    function = vars(module).get(name)
    if not callable(function):
        raise LookupError(f"no function {name}; write def {name}(response, expected, input):")
    try:
        inspect.signature(function).bind("", None, "")
    except TypeError as error:
        raise LookupError(f"{name} must take (response, expected, input): {error}") from error
    return function


def marked(function: Any, *given: str | None) -> list[Any]:
    result = function(*given)
    mark, reason = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
    if isinstance(mark, Real) and 0 <= float(mark) <= 1:  # no NaN
        return [float(mark), str(reason)]
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
    raise LookupError(f"it returned {result!r:.60}, expected a number from 0 to 1", line)


def placed(error: BaseException, path: str) -> str:
    """`file.py:12: Type: text`; the line is the last one in that file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    problem = f"{type(error).__name__}: {error}"
    if not lines and isinstance(error, LookupError):  # ours
        problem, lines = error.args[0], [*error.args[1:]]
    return f"{os.path.basename(path)}{f':{lines[-1]}' if lines else ''}: {problem}"


if __name__ == "__main__":
    main(float(sys.argv[1]))
