"""The kind `python`: a function of one's own, in processes of its own and without our variables."""

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from autoresearch.criteria.kind import Mark
from autoresearch.files.inputs import Input
from autoresearch.files.program import Criterion
from autoresearch.text import short

SECONDS = 10.0  # that loading the file, or one call, may take
WORKER = str(Path(__file__).with_name("worker.py"))
Process = subprocess.Popen[str]


class Function:
    """Calls `file.py:function`, side by side in as many processes as there are processors."""

    def __init__(self, criterion: Criterion) -> None:
        """Raises ValueError where there is none to call."""
        file, _, self.name = map(str.strip, criterion.argument.rpartition(":"))
        if not (file.endswith(".py") and self.name.isidentifier()):
            raise ValueError(f"expected file.py:function, found '{short(criterion.argument)}'")
        folder = Path(criterion.where.rpartition(":")[0]).parent
        self.path, self.source = (folder / file).absolute(), criterion.source
        self.turns = threading.BoundedSemaphore(os.cpu_count() or 1)
        self.idle = [self.start()]

    def mark(self, response: str, given: Input) -> Mark:
        """Raises ValueError with file and line for whatever is no mark."""
        with self.turns:
            try:
                process = self.idle.pop()
            except IndexError:
                process = self.start()
            mark = self.ask(process, response, given.expected, given.text)
            self.idle.append(process)  # not one that was interrupted: its next reply would be this
            return mark

    def start(self) -> Process:
        process = subprocess.Popen(
            [sys.executable, WORKER, str(self.path), self.name, str(SECONDS + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={n: value for n, value in os.environ.items() if not n.startswith("NEBIUS_")},
            start_new_session=True,  # Ctrl-C lets it end what it does
        )
        atexit.register(end, process)
        self.ask(process, self.source)
        return process

    def ask(self, process: Process, *question: str | None) -> Mark:
        """Its mark; a process that gives none in time is ended."""
        timer, line = threading.Timer(SECONDS, end, [process]), ""
        timer.start()
        with suppress(OSError):  # it has ended
            print(json.dumps(question), file=process.stdin, flush=True)
            line = process.stdout.readline() if process.stdout else ""
        timer.cancel()
        problem = f"{self.path.name}: {self.name} took over {SECONDS:g} s, or ended its process"
        mark, reason = json.loads(line) if line else (None, problem)
        if mark is None:
            with suppress(OSError), process:  # which closes its pipes
                end(process)
            raise ValueError(short(reason, 300))
        return mark, short(reason, 300)


def end(process: Process) -> None:
    """With all that it started; whoever waits for its answer reads an end of file."""
    if process.returncode is None:
        with suppress(OSError):
            getattr(os, "killpg", os.kill)(process.pid, 9)
        process.wait()
