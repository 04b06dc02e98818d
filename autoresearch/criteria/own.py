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
    """A function and the process that calls it, begun anew when it had to be ended."""

    def __init__(self, path: Path, name: str, source: str) -> None:
        self.path, self.name, self.source = path, name, source
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        atexit.register(self.end)
        self.start()

    def __call__(self, response: str, given: Input) -> Mark:
        """Raises ValueError with file and line for whatever is no mark."""
        with self.lock:
            if self.process is None:
                self.start()
            mark, reason = self.ask(response, given.expected, given.text)
        return mark, short(reason, 300)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, WORKER, str(SECONDS + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={n: value for n, value in os.environ.items() if not n.startswith("NEBIUS_")},
            start_new_session=True,  # Ctrl-C lets it end what it does
        )
        try:
            self.ask(str(self.path), self.name, self.source)
        except ValueError:
            self.end()
            raise

    def ask(self, *question: str | None) -> list[Any]:
        process, line = self.process, ""
        assert process and process.stdin and process.stdout
        timer = threading.Timer(SECONDS, kill, [process])
        timer.start()
        with suppress(OSError):  # it has ended
            print(json.dumps(question), file=process.stdin, flush=True)
            line = process.stdout.readline()
        timer.cancel()
        if not line:
            self.end()
            problem = f"{self.name} took over {SECONDS:g} s, or ended its process"
            raise ValueError(f"{self.path.name}: {problem}")
        reply: list[Any] | str = json.loads(line)
        if isinstance(reply, str):
            raise ValueError(short(reply, 300))
        return reply

    def end(self) -> None:
        process, self.process = self.process, None
        if process:
            kill(process)
            with suppress(OSError):
                process.communicate()


def kill(process: subprocess.Popen[str]) -> None:
    """With all that it started; whoever waits for its answer reads an end of file."""
    with suppress(OSError):
        getattr(os, "killpg", os.kill)(process.pid, 9)


load = lru_cache(maxsize=64)(Function)


def read_function(criterion: Criterion) -> Function:
    """Reads `file.py:function`; raises ValueError where there is none to call."""
    found = re.fullmatch(r"(.+\.py)\s*:\s*([^\W\d]\w*)", criterion.argument.strip())
    if not found:
        raise ValueError(f"expected file.py:function, found '{short(criterion.argument)}'")
    path = Path(criterion.where.rpartition(":")[0]).parent / found[1]
    return load(path.absolute(), found[2], criterion.source)
