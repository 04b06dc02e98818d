"""The models that the roles use, what a server tells of them, and what each has refused to take."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.api.answer import as_object, read_number, read_whole
from autoresearch.api.exchange import FatalAPIError

DEFAULT_MODEL = "meta-llama/Llama-3.3-70B-Instruct"
# The vendor has announced the default's removal; its closest stand-in that does not reason.
FALLBACK_MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507"
TIMEOUT = 180.0  # seconds for one answer
TEMPERATURES = {"agent": 1.0, "task": 0.7, "judge": 0.0}


@dataclass(frozen=True)
class ModelCheck:
    """What the first call and the server's list tell about one model; None: not known."""

    id: str
    roles: tuple[str, ...]
    price: tuple[float, float] | None  # USD per prompt and completion token
    context_length: int | None
    requests_per_minute: float | None
    seconds: float  # of the call, without waits and retries
    prompt_tokens: int | None  # of the call
    completion_tokens: int | None


@dataclass(frozen=True)
class Preflight:
    models: list[ModelCheck]
    problems: list[str] = field(default_factory=list)  # one line each; none stops the run

    def refuse_unknown_price(self, max_cost: float | None) -> None:
        """Raises FatalAPIError where a limit of cost cannot be kept."""
        for model in self.models if max_cost is not None else []:
            missing = "prices" if model.price is None else "counts of tokens"
            if not (model.price and model.prompt_tokens):
                raise FatalAPIError(
                    f"--max-cost needs {missing}, and the server gives none for {model.id}; "
                    "--max-hours works without"
                )


class Catalogue(dict[str, dict[str, Any]]):
    """A server's list of models: the entry of each id."""

    def read(self, data: Any) -> None:
        entries = data.get("data") if isinstance(data, dict) else data
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and isinstance(entry.get("id"), str):
                self[entry["id"]] = entry

    def price(self, model: str) -> tuple[float, float] | None:
        pricing = as_object(self.get(model, {}).get("pricing"))
        prompt, output = read_number(pricing.get("prompt")), read_number(pricing.get("completion"))
        return None if prompt is None or output is None else (prompt, output)

    def context_length(self, model: str) -> int | None:
        entry = self.get(model, {})
        return read_whole(entry.get("context_length", entry.get("max_model_len")))

    def requests_per_minute(self, model: str) -> float | None:
        limits = as_object(self.get(model, {}).get("per_request_limits"))
        return read_number(limits.get("requests_per_minute"))

    def nearest(self, model: str) -> str:
        """The tail of the error about an unknown model: what the server does serve."""
        ids = {known.lower(): known for known in self}
        near = difflib.get_close_matches(model.lower(), ids, n=5, cutoff=0.0)
        return "; nearest served: " + ", ".join(ids[n] for n in near) if near else ""


REFUSING = re.compile(
    r"support|enabled|only|invalid|must|deprecated|allow|permit|accept|un\w*known|unrecogni|extra|exceed"
    r"|too (large|many|high)|maximum|instead|alternate",
    re.IGNORECASE,
)
REFUSED = {
    "max_completion_tokens": re.compile(r"max_\w*tokens", re.IGNORECASE),
    "max_tokens": re.compile(r"max_\w*tokens", re.IGNORECASE),
    "temperature": re.compile("temperature", re.IGNORECASE),
    "system": re.compile(
        r"\bsystem\b.{0,40}\b(role|message|prompt|instruction)|\brole.{0,60}\b(system|alternate)"
        "|developer instruction|only user and assistant",
        re.IGNORECASE,
    ),
}
INSTEAD = {
    "max_completion_tokens": "no limit is sent",
    "max_tokens": "it is sent as max_completion_tokens",
    "temperature": "none is sent",
    "system": "the prompt is sent before the task",
}


def refused_part(said: str, body: Mapping[str, Any]) -> str:
    """The part of a request that a server's 400 says it does not take; "" where it is another."""
    sent = {*body, "system"} if body["messages"][0]["role"] == "system" else body
    named = (name for name, pattern in REFUSED.items() if name in sent and pattern.search(said))
    return next(named, "") if REFUSING.search(said) else ""
