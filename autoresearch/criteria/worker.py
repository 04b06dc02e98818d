"""The process of a `python:` criterion, a script on the standard library alone.

JSON lines in, first the source, then calls; out [mark, reason], or [null, what went wrong].
"""

import faulthandler
import inspect
import json
import os
import sys
import traceback
import types
from numbers import Real
from typing import Any


def main(path: str, name: str, seconds: str) -> None:
    questions, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")  # in ASCII
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # what the function reads and prints is not between the lines
        os.dup2(nothing, number)
    sys.path[0], sys.argv = os.path.dirname(path), [path]
    function = None
    for line in questions:
        faulthandler.dump_traceback_later(float(seconds), exit=True)  # where nobody waits any more
        reply: tuple[float | None, str] = 0.0, ""
        try:
            if function is None:
                function = load(path, name, *json.loads(line))
            else:
                result = function(*json.loads(line))
                pair = result if isinstance(result, tuple) and len(result) == 2 else (result, "")
                if not (isinstance(pair[0], Real) and 0 <= float(pair[0]) <= 1):  # no NaN
                    raise ValueError(f"it returned {result!r:.60}, expected a number from 0 to 1")
                reply = float(pair[0]), str(pair[1])
        except BaseException as error:  # sys.exit() too is the function's, not ours
            reply = None, placed(error, path, function)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(reply), file=replies, flush=True)


def load(path: str, name: str, source: str) -> Any:
    module = sys.modules["criterion"] = types.ModuleType("criterion")  # dataclasses look there
    module.__file__ = path
    exec(compile(source, path, "exec"), vars(module))
    function: Any = vars(module).get(name)
    try:
        inspect.signature(function).bind("", None, "")
    except TypeError as error:
        raise TypeError(f"expected def {name}(response, expected, input): {error}") from error
    return function


def placed(error: BaseException, path: str, function: Any) -> str:
    """`file.py:12: Type: text`; the last line of the file that is to blame, or the function's."""
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", 1)
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if isinstance(error, SyntaxError) and error.filename == path:
        lines = [error.lineno]
    return f"{os.path.basename(path)}:{[line, *lines][-1]}: {type(error).__name__}: {error}"


if __name__ == "__main__":
    main(*sys.argv[1:])
