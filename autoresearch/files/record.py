"""One record of results.json: an experiment and its trials, checked by their types."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from statistics import fmean
from typing import Any

from msgspec import Struct, convert, field, structs, to_builtins

from autoresearch.files.inputs import Input


@dataclass(frozen=True)
class Response:
    """What a model answered to one input; `finish` is "length" when the reply was cut."""

    given: Input
    text: str
    finish: str = "stop"


class Trial(Struct, frozen=True, gc=False):
    """One response to one input."""

    input: str
    response: str
    score: float  # 0..10
    criteria: dict[str, float]  # criterion label -> 0..1
    reason: str  # what was missed, one line; "" when nothing
    finish: str = "stop"  # "length" when the reply was cut at max_tokens


class Experiment(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One record of results.json, in the order in which its fields are written."""

    iteration: int | None  # proposals 1..; a confirmation: the target that it confirms
    kind: str = "proposal"  # baseline | proposal | confirmation | ablation
    strategy: str = ""
    thought: str = ""
    prompt: str = ""
    response: str = ""  # of the trial whose score lies nearest the mean
    score: float | None = None  # mean of the trials; None when it failed
    trials: tuple[Trial, ...] = ()  # pass after pass, each in the order of the inputs
    tokens: int | None = None  # prompt + completion of every billed call
    cost: float | None = None  # USD; None when a price is unknown
    seconds: float | None = None
    timestamp: str = ""  # ISO 8601, UTC
    models: dict[str, str] = {}  # role -> model id
    program: str = ""  # digest of what was asked
    criteria: str = ""  # digest of how it was scored
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict, name="")  # fields that we do not know

    def with_(self, **changes: Any) -> "Experiment":
        """The record with these fields in place of its own."""
        return structs.replace(self, **changes)

    def passes(self) -> list[float]:
        """Mean of each whole pass, one trial per input; [score] without trials, [] of a failure."""
        if self.score is None:
            return []
        length = len({trial.input for trial in self.trials})
        scores = [trial.score for trial in self.trials]
        starts = range(0, len(scores) - length + 1, length) if length else ()
        return [math.fsum(scores[s : s + length]) / length for s in starts] or [self.score]

    def spoilt(self, error: str) -> "Experiment":
        """The record of a failure: no score, no trials; an error is never a score."""
        return self.with_(score=None, trials=(), response="", error=error)

    def stamped(
        self, tokens: int, cost: float | None, seconds: float, models: dict[str, str], *digests: str
    ) -> "Experiment":
        """The record with what it took, by which models and two digests, and when it ended."""
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        took = {"tokens": tokens, "cost": cost, "seconds": round(seconds, 3), "timestamp": now}
        return self.with_(**took, models=dict(models), program=digests[0], criteria=digests[1])

    def scored(self, trials: Iterable[Trial]) -> "Experiment":
        """The record with these trials: their mean as its score, the response nearest on top."""
        trials = tuple(trials)
        mean = fmean(trial.score for trial in trials)
        typical = min(trials, key=lambda trial: abs(trial.score - mean))
        return self.with_(trials=trials, score=mean, response=typical.response)


def as_json(experiment: Experiment) -> dict[str, Any]:
    record = to_builtins(experiment)
    extra = record.pop("")
    return {**record, **extra}


def from_json(data: dict[str, Any]) -> Experiment:
    """null counts as missing, what we do not know is `extra`; ValueError names a wrong field."""
    names = Experiment.__struct_fields__[:-1]  # all but `extra`
    known = {name: data[name] for name in names if data.get(name) is not None}
    extra = {name: value for name, value in data.items() if name not in names}
    return convert({"iteration": None, **known, "": extra}, Experiment)
