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
    """A function and the processes that call it, as many at once as there are processors."""

    def __init__(self, path: Path, name: str, source: str) -> None:
        self.path, self.name, self.source = path, name, source
        self.room = threading.Semaphore(os.cpu_count() or 1)
        self.idle: list[subprocess.Popen[str]] = []
        atexit.register(self.end)
        self.idle.append(self.start())

    def __call__(self, response: str, given: Input) -> Mark:
        """Raises ValueError with file and line for whatever is no mark."""
        with self.room:
            try:
                process = self.idle.pop()
            except IndexError:
                process = self.start()
            reply = self.ask(process, response, given.expected, given.text)
            self.idle.append(process)
        if isinstance(reply, str):
            raise ValueError(short(reply, 300))
        return reply[0], short(reply[1], 300)

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, WORKER, str(SECONDS + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={n: value for n, value in os.environ.items() if not n.startswith("NEBIUS_")},
            start_new_session=True,  # Ctrl-C lets it end what it does
        )
        reply = self.ask(process, str(self.path), self.name, self.source)
        if isinstance(reply, str):
            end(process)
            raise ValueError(short(reply, 300))
        return process

    def ask(self, process: subprocess.Popen[str], *question: str | None) -> list[Any] | str:
        timer, line = threading.Timer(SECONDS, kill, [process]), ""
        assert process.stdin and process.stdout
        timer.start()
        with suppress(OSError):  # it has ended
            print(json.dumps(question), file=process.stdin, flush=True)
            line = process.stdout.readline()
        timer.cancel()
        if not line:
            end(process)
            problem = f"{self.name} took over {SECONDS:g} s, or ended its process"
            raise ValueError(f"{self.path.name}: {problem}")
        reply: list[Any] | str = json.loads(line)
        return reply

    def end(self) -> None:
        while self.idle:
            end(self.idle.pop())


def kill(process: subprocess.Popen[str]) -> None:
    """With all that it started; whoever waits for its answer reads an end of file."""
    with suppress(OSError):
        getattr(os, "killpg", os.kill)(process.pid, 9)


def end(process: subprocess.Popen[str]) -> None:
    kill(process)
    with suppress(OSError):
        process.communicate()


load = lru_cache(maxsize=64)(Function)


def read_function(criterion: Criterion) -> Function:
    """Reads `file.py:function`; raises ValueError where there is none to call."""
    found = re.fullmatch(r"(.+\.py)\s*:\s*([^\W\d]\w*)", criterion.argument.strip())
    if not found:
        raise ValueError(f"expected file.py:function, found '{short(criterion.argument)}'")
    path = Path(criterion.where.rpartition(":")[0]).parent / found[1]
    return load(path.absolute(), found[2], criterion.source)
