"""A server: the models that it lists, how each is asked, and who may begin an exchange."""

import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.api.answer import MayPass, Unusable, as_object, read_answer, read_number, tokens
from autoresearch.api.exchange import APIError, Exchange, FatalAPIError, WrongSetting
from autoresearch.api.pace import Gate

TIMEOUT = 180.0  # seconds for one answer
TEMPERATURES = {"agent": 1.0, "task": 0.7, "judge": 0.0}

LIMIT = "max_[a-z_]*tokens|the completion"
SYSTEM = (
    r"\bsystem\b.{0,40}\b(role|message|prompt|instruction)"
    r"|\brole.{0,60}\b(system|alternate)|developer instruction|only user and assistant"
)
PARTS = {  # of a request: how a refusal names it, and what is done instead
    "max_completion_tokens": (LIMIT, "no limit is sent"),
    "max_tokens": (LIMIT, "it is sent as max_completion_tokens"),
    "temperature": ("temperature", "none is sent"),
    "stream": (r"\bstream\b", "it is left out"),
    "system": (SYSTEM, "the prompt is sent before the task"),
}
REFUSING = re.compile(
    r"(?i)support|enabled|only|invalid|must|should|has to|deprecated|allow|permit|accept|un\w*known"
    r"|unrecogni|extra|exceed|too (large|many|high)|maximum|instead|alternate"
)


@dataclass(frozen=True)
class ModelCheck:
    """What the server's list and the first call tell about one model; None: not known."""

    id: str
    roles: tuple[str, ...] = ()
    price: tuple[float, float] | None = None  # USD per prompt and completion token
    context_length: int | None = None
    requests_per_minute: float | None = None
    seconds: float = 0.0  # of the call, without waits and retries
    prompt_tokens: int | None = None  # of the call
    completion_tokens: int | None = None

    def cost(self, prompt: int | None, output: int | None) -> float | None:
        """USD; None where the price or a count is unknown."""
        if self.price is None or prompt is None or output is None:
            return None
        return self.price[0] * prompt + self.price[1] * output


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


class Server:
    def __init__(self, exchange: Exchange, gate: Gate) -> None:
        self.exchange, self.gate, gate.setting = exchange, gate, exchange.setting
        self.listed: dict[str, ModelCheck] = {}
        self.refused = defaultdict[str, set[str]](set)  # by model, the parts that it does not take

    def body(self, model: str, system: str, user: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """A request: in full, or without what the model does not take."""
        refused = self.refused[model]
        if system and "system" in refused:
            system, user = "", f"{system}\n\n{user}"
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user})
        body = {"model": model, "messages": messages, "stream": False, **fields}
        if "max_tokens" in refused or "max_completion_tokens" in fields:
            body.setdefault("max_completion_tokens", body.pop("max_tokens"))
        return {name: value for name, value in body.items() if name not in refused}

    def learn(self, body: Mapping[str, Any], error: Exception) -> str:
        """Leaves out from now on what a failure says is not taken; the line that tells it, once.
        Raises the failure where it speaks of no part of the request."""
        model, said, sent = body["model"], str(error), {*body, body["messages"][0]["role"]}
        refusing = REFUSING.search(said) and not isinstance(error, FatalAPIError)
        for part, (pattern, instead) in PARTS.items() if refusing else ():
            if part in sent and re.search(pattern, said, re.IGNORECASE):
                known = part in self.refused[model]
                self.refused[model].add(part)
                return "" if known else f"{model} does not take {part}: {instead} from now on"
        raise error

    def ask(
        self, body: Any = None, about: str = "", attempt: int = 1, bills: Iterable[Any] = ()
    ) -> Any:
        """The completion, when the gate lets it begin; without a body, the list of models.
        `bills`: the usages that a billed answer is added to."""
        model = body["model"] if body else ""
        turn = self.gate.enter(model, about)
        try:
            began = time.monotonic()
            answer, headers = self.exchange.ask(body)
            if body:
                counts = tokens(answer)
                for bill in bills:
                    bill.add(*counts, self.listed.get(model, ModelCheck(model)).cost(*counts))
                answer = read_answer(answer, model, time.monotonic() - began)
        except BaseException as error:
            # what has worked before is no wrong setting: a gateway is in trouble
            gateway = isinstance(error, WrongSetting) and self.gate.paces[model].succeeded
            failure = MayPass(str(error), alone=True) if gateway else error
            if isinstance(failure, MayPass):
                failure.wait = self.gate.failed(turn, failure, attempt)
            else:  # refused for good, but the server is up
                self.gate.answered(turn, {}, worked=False)
            raise failure from None
        self.gate.answered(turn, headers)
        return answer

    def fetch_list(self) -> list[str]:
        """Reads the list of models; returns the problem met, which is never fatal."""
        try:
            data = self.ask()
        except (MayPass, Unusable, APIError) as error:
            return [f"no prices and limits: {error}"]
        entries = data.get("data") if isinstance(data, dict) else data
        for entry in map(as_object, entries if isinstance(entries, list) else ()):
            pricing, limits = (as_object(entry.get(n)) for n in ("pricing", "per_request_limits"))
            read, written = map(read_number, (pricing.get("prompt"), pricing.get("completion")))
            price = None if read is None or written is None else (read, written)
            length = int(read_number(entry.get("context_length", entry.get("max_model_len"))) or 0)
            limit = read_number(limits.get("requests_per_minute"))
            if isinstance(name := entry.get("id"), str):
                self.listed[name] = ModelCheck(name, (), price, length or None, limit)
        return [] if self.listed else ["no prices and limits: the server lists no models"]
