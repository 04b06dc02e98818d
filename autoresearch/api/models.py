"""The models that the roles use, what a server tells of them, what each has refused to take; and
the server: its exchanges, and who may begin one."""

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from autoresearch.api.answer import Completion, MayPass, Unusable, as_object, read_int, read_number
from autoresearch.api.exchange import APIError, Exchange, FatalAPIError, WrongSetting
from autoresearch.api.pace import Gate

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
            if not (model.price and model.prompt_tokens):
                what = "prices" if model.price is None else "counts of tokens"
                what += f", and the server gives none for {model.id}; --max-hours works without"
                raise FatalAPIError(f"--max-cost needs {what}")


class Catalogue(dict[str, dict[str, Any]]):
    """A server's list of models: the entry of each id."""

    def price(self, model: str) -> tuple[float, float] | None:
        pricing = as_object(self.get(model, {}).get("pricing"))
        prompt, output = read_number(pricing.get("prompt")), read_number(pricing.get("completion"))
        return None if prompt is None or output is None else (prompt, output)

    def cost(self, model: str, prompt: int | None, output: int | None) -> float | None:
        """USD; None where the price or a count is unknown."""
        price = self.price(model)
        if price is None or prompt is None or output is None:
            return None
        return price[0] * prompt + price[1] * output

    def check(self, model: str, roles: tuple[str, ...], told: Completion) -> ModelCheck:
        """What is known of a model after its first call."""
        entry = self.get(model, {})
        limit = as_object(entry.get("per_request_limits")).get("requests_per_minute")
        length = read_int(entry.get("context_length", entry.get("max_model_len")))
        counts = told.seconds, told.prompt_tokens, told.completion_tokens
        return ModelCheck(model, roles, self.price(model), length, read_number(limit), *counts)

    def nearest(self, model: str) -> str:
        """The tail of the error about an unknown model: what the server does serve."""
        ids = {known.lower(): known for known in self}
        near = difflib.get_close_matches(model.lower(), ids, n=5, cutoff=0.0)
        return "; nearest served: " + ", ".join(ids[n] for n in near) if near else ""


class Manner:
    """How one model is asked: in full, until its server refuses a part of the request."""

    REFUSING = re.compile(
        r"support|enabled|only|invalid|must|has to|deprecated|allow|permit|accept|un\w*known"
        r"|unrecogni|extra|exceed|too (large|many|high)|maximum|instead|alternate",
        re.IGNORECASE,
    )
    PARTS = {
        "max_completion_tokens": ("max_[a-z_]*tokens|the completion", "no limit is sent"),
        "max_tokens": ("max_[a-z_]*tokens|the completion", "it is sent as max_completion_tokens"),
        "temperature": ("temperature", "none is sent"),
        "system": (
            r"\bsystem\b.{0,40}\b(role|message|prompt|instruction)"
            r"|\brole.{0,60}\b(system|alternate)|developer instruction|only user and assistant",
            "the prompt is sent before the task",
        ),
    }

    def __init__(self) -> None:
        self.refused: set[str] = set()

    def body(
        self, model: str, system: str, user: str, temperature: float, fields: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`fields` holds max_tokens, and what a person adds."""
        if system and "system" in self.refused:
            system, user = "", f"{system}\n\n{user}"
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        body = {"model": model, "messages": messages, "stream": False, "temperature": temperature}
        body |= fields
        if "max_completion_tokens" in fields:
            del body["max_tokens"]
        elif "max_tokens" in self.refused:
            body["max_completion_tokens"] = body.pop("max_tokens")
        return {name: value for name, value in body.items() if name not in self.refused}

    def learn(self, said: str, body: Mapping[str, Any]) -> tuple[str, str]:
        """The part that a server's 400 says it does not take, and what is done instead."""
        sent = {*body, "system"} if body["messages"][0]["role"] == "system" else {*body}
        for part, (pattern, instead) in self.PARTS.items():
            if part in sent and re.search(pattern, said, re.I) and self.REFUSING.search(said):
                return part, instead
        return "", ""


T = TypeVar("T")


class Server:
    def __init__(self, exchange: Exchange, gate: Gate) -> None:
        self.exchange, self.gate = exchange, gate
        self.catalogue = Catalogue()
        self.manners: dict[str, Manner] = defaultdict(Manner)  # by model

    def take_turn(
        self, model: str, about: str, call: Callable[[], tuple[T, Mapping[str, str]]], attempt: int
    ) -> T:
        """One exchange, when the gate lets it begin; tells the gate how it went."""
        turn = self.gate.enter(model, about)
        try:
            result, headers = call()
        except BaseException as error:
            # what has worked before is no wrong setting: a gateway is in trouble
            gateway = isinstance(error, WrongSetting) and self.gate.paces[model].succeeded
            failure = MayPass(str(error)) if gateway else error
            if isinstance(failure, MayPass):
                failure.wait = self.gate.failed(turn, failure, attempt)
            else:  # refused for good, but the server is up
                self.gate.answered(turn, {}, worked=False)
            raise failure from None
        self.gate.answered(turn, headers)
        return result

    def fetch_catalogue(self) -> list[str]:
        """Reads the list of models; returns the problem met, which is never fatal."""
        try:
            data = self.take_turn("", "", self.exchange.ask, 1)
        except (MayPass, Unusable, APIError) as error:
            return [f"no prices and limits: {error}"]
        entries = data.get("data") if isinstance(data, dict) else data
        listed = map(as_object, entries if isinstance(entries, list) else ())
        self.catalogue.update({e["id"]: e for e in listed if isinstance(e.get("id"), str)})
        return [] if self.catalogue else ["no prices and limits: the server lists no models"]
