"""The kind `python`: a function of one's own, in a file beside program.md.

It runs in a process of its own (worker.py), without our variables, and may take `SECONDS`.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from autoresearch.criteria.kind import Mark
from autoresearch.files.inputs import Input
from autoresearch.files.program import Criterion
from autoresearch.text import short

SECONDS = 10.0  # that loading the file, or one call, may take
WORKER = str(Path(__file__).with_name("worker.py"))


class Function:
    """A function and the process that calls it, begun anew when it had to be ended.

    Both `start` and a call raise ValueError with file and line for whatever goes wrong.
    """

    def __init__(self, path: Path, name: str, source: str) -> None:
        self.path, self.opening = path, [str(path), name, source]
        self.process: subprocess.Popen[str] | None = None
        self.lock = threading.Lock()
        atexit.register(self.end)

    def __call__(self, response: str, given: Input) -> Mark:
        with self.lock:
            reply = self.ask(self.process or self.start(), [response, given.expected, given.text])
        return reply["mark"], short(reply["reason"], 300)

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, WORKER, str(SECONDS + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={n: value for n, value in os.environ.items() if not n.startswith("NEBIUS_")},
            start_new_session=True,  # Ctrl-C lets it end what it does
        )
        try:
            self.ask(self.process, self.opening)
        except ValueError:
            self.end()
            raise
        return self.process

    def ask(self, process: subprocess.Popen[str], question: list[Any]) -> dict[str, Any]:
        assert process.stdin and process.stdout
        timer, line, began = threading.Timer(SECONDS, end, [process]), "", time.monotonic()
        timer.start()
        with suppress(OSError):  # it has ended
            print(json.dumps(question), file=process.stdin, flush=True)
            line = process.stdout.readline()
        timer.cancel()
        if not line:
            self.end()
            late = time.monotonic() - began >= SECONDS
            problem = f"took over {SECONDS:g} s" if late else "ended its process"
            raise ValueError(f"{self.path.name}: {self.opening[1]} {problem}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ValueError(short(reply["error"], 300))
        return reply

    def end(self) -> None:
        process, self.process = self.process, None
        if process:
            end(process)
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()


def end(process: subprocess.Popen[str]) -> None:
    """With all that it started; whoever waits for its answer reads an end of file."""
    with suppress(OSError):
        getattr(os, "killpg", os.kill)(process.pid, 9)


@lru_cache(maxsize=64)
def load(path: Path, name: str, source: str) -> Function:
    function = Function(path, name, source)
    function.start()
    return function


def read_function(criterion: Criterion) -> Function:
    """Reads `file.py:function`; raises ValueError where there is none to call."""
    found = re.fullmatch(r"(.+\.py)\s*:\s*([^\W\d]\w*)", criterion.argument.strip())
    if not found:
        raise ValueError(f"expected file.py:function, found '{short(criterion.argument)}'")
    path = Path(criterion.where.rpartition(":")[0]).parent / found[1]
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or "not UTF-8").lower()
        raise ValueError(f"{path}: cannot be read: {why}; put it beside the program") from error
    return load(path.absolute(), found[2], source)
