"""The models that the roles use, and what a server tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoresearch.api.answer import read_number
from autoresearch.api.exchange import FatalAPIError

DEFAULT_MODEL = "meta-llama/Llama-3.3-70B-Instruct"
# The vendor has announced the default's removal; its closest stand-in that does not reason.
FALLBACK_MODEL = "Qwen/Qwen3-235B-A22B-Instruct-2507"
TEMPERATURES = {"agent": 1.0, "task": 0.7, "judge": 0.0}


@dataclass(frozen=True)
class ModelCheck:
    """What the first call and the server's list tell about one model; None: not known."""

    id: str
    roles: tuple[str, ...]
    price: tuple[float, float] | None  # USD per prompt and completion token
    context_length: int | None
    requests_per_minute: float | None
    seconds: float  # of the call
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


def price_of(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    pricing = entry.get("pricing")
    if not isinstance(pricing, dict):
        return None
    prompt, output = read_number(pricing.get("prompt")), read_number(pricing.get("completion"))
    return None if prompt is None or output is None else (prompt, output)
