"""Jobs in flight, limits, signals; what a job does is not known here."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

from autoresearch.text import visible

FAILURES = 20  # failed jobs in a row that end the night: a weak agent fails at half of them
AT_ONCE = 8  # calls side by side within one experiment
STOPPING = (
    b"\nstopping: what runs is ended and recorded first; calls under way may take until "
    b"NEBIUS_TIMEOUT, and Ctrl-C again drops them\n"
)
DROPPED = b"\ndropped what was running; everything recorded is safe\n"


def ends_in_one_line(command: Callable[[], int], told: tuple[type[Exception], ...]) -> int:
    """The command's exit code; an error of the kinds `told` is one line on stderr, and code 1."""
    for name in ("stdout", "stderr"):  # None: closed before we began
        setattr(sys, name, getattr(sys, name) or open(os.devnull, "w", encoding="utf-8"))
    try:
        return command()
    except told as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output is gone; what was recorded stands
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        what, why = error.filename or "what this command prints", error.strerror or str(error)
        print(f"error: {what} cannot be written: {why.lower()}", file=sys.stderr)
    return 1


class NightError(Exception):
    """The night cannot go on: too much of it fails."""


Item = TypeVar("Item")
Result = TypeVar("Result")
Ahead = tuple[float, float, float]  # tokens, USD and hours that a later phase will take


class Night(Generic[Item, Result]):
    """Jobs in flight until there is no next one, a limit is reached, or a person stops it: the
    first Ctrl-C or SIGTERM lets running jobs end, the second drops them. The client's `total`
    counts `tokens` and `charged` (USD); its `stop` ends what waits, with `dropped`."""

    def __init__(self, options: argparse.Namespace, client: Any, dropped: type[Exception]) -> None:
        self.options, self.client, self.dropped = options, client, dropped
        self.started = time.monotonic()
        self.fatal: Exception | None = None  # the first error that ends the night
        self.failures = 0  # in a row
        self.limited = ""  # the limit that ended something, in words
        self.signal = 0  # that a person stopped it with
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, number: int, _: object) -> None:
        if self.signal:
            os.write(2, DROPPED + b"\033[?25h" * os.isatty(2))  # the bar had hidden the cursor
            os._exit(128 + number)
        self.signal = number
        os.write(2, STOPPING)
        self.client.stop()

    def _goes_on(self, ahead: Ahead) -> bool:
        """Whether a job may begin, `ahead` kept for what comes after: half a limit at most."""
        if self.fatal or self.signal:
            return False
        total, hours = self.client.total, (time.monotonic() - self.started) / 3600
        spent = {"tokens": total.tokens, "cost": total.charged, "hours": hours}
        for (name, used), kept in zip(spent.items(), ahead, strict=True):
            limit = getattr(self.options, f"max_{name}")
            if limit and used + (kept if kept <= limit / 2 else 0) >= limit:
                near = "near: the rest went into the confirmation" if used < limit else "reached"
                self.limited = f"--max-{name} {limit:g} is {near}"
                return False
        return True

    def attempt(self, what: Callable[[], None]) -> None:
        """Do it; an error ends the night, but not before what is done after it."""
        try:
            what()
        except self.dropped:  # it waited when Ctrl-C came: it runs again next time
            pass
        except Exception as error:
            self.fatal = self.fatal or error

    def count(self, failure: str | None, cause: str = "") -> None:
        """A job ended, with a failure or without; `cause`: what all the latest failures share."""
        self.failures = self.failures + 1 if failure else 0
        if self.failures >= FAILURES:
            what = f"{cause}, {FAILURES} in a row" * bool(cause)
            what = what or f"{FAILURES} experiments in a row failed"
            self.fatal = self.fatal or NightError(f"{what}: {failure}")

    def work(
        self,
        next_job: Callable[[Collection[Item]], Item | None],
        carry_out: Callable[[Item], Result],
        ended: Callable[[Result], None],
        ahead: Callable[[], Ahead],
    ) -> None:
        """Keep --workers jobs running until there is no next one; after any error nothing begins,
        and `ended` gets what still ends: it was paid for."""
        running: dict[Future[Result], Item] = {}
        with ThreadPoolExecutor(self.options.workers) as pool:
            while True:
                while len(running) < self.options.workers and self._goes_on(ahead()):
                    if (job := next_job(running.values())) is None:
                        break
                    running[pool.submit(carry_out, job)] = job
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    del running[future]
                    self.attempt(lambda done=future: ended(done.result()))  # type: ignore[misc]

    def exit_code(self, notify: Callable[[str], None], left: str = "") -> int:
        """0, or 128 + the signal; raises what was fatal. `left` says how to do what is undone."""
        if self.fatal is not None:
            raise self.fatal
        if self.limited:
            notify(f"{self.limited}; everything is kept, the same command goes on")
        if left and (self.limited or self.signal):
            notify(left)
        return 128 + self.signal if self.signal else 0


def side_by_side(call: Callable[[Item], Result], items: Sequence[Item], most: int) -> list[Result]:
    """The calls' results in order; after an error those that have not begun are dropped."""
    if min(most, len(items)) <= 1:
        return [call(item) for item in items]
    with ThreadPoolExecutor(most) as pool:
        futures = [pool.submit(call, item) for item in items]
        wait(futures, return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]
