"""One API server: its exchanges, who may begin one, its models and how each is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TypeVar

from autoresearch.api.answer import MayPass, Unusable
from autoresearch.api.exchange import APIError, Exchange, WrongSetting
from autoresearch.api.models import Catalogue, Manner
from autoresearch.api.pace import Gate

T = TypeVar("T")


class Server:
    def __init__(self, exchange: Exchange, gate: Gate) -> None:
        self.exchange, self.gate = exchange, gate
        self.catalogue = Catalogue()
        self.manners: dict[str, Manner] = defaultdict(Manner)  # by model

    def take_turn(
        self,
        model: str,
        about: str,
        call: Callable[[], tuple[T, Mapping[str, str]]],
        attempt: int = 1,
    ) -> T:
        """One exchange, when the gate lets it begin; tells the gate how it went."""
        turn = self.gate.enter(model, about)
        try:
            result, headers = call()
        except (MayPass, WrongSetting) as error:
            trouble = error if isinstance(error, MayPass) else MayPass(str(error))
            # what has worked before is no wrong setting: a gateway is in trouble
            if isinstance(error, WrongSetting) and not self.gate.worked(model):
                self.gate.answered(turn, {}, worked=False)
                raise
            trouble.wait = self.gate.failed(turn, trouble, attempt)
            raise trouble from None
        except BaseException:  # refused for good, but the server is up
            self.gate.answered(turn, {}, worked=False)
            raise
        self.gate.answered(turn, headers)
        return result

    def fetch_catalogue(self) -> list[str]:
        """Reads the list of models; returns the problem met, which is never fatal."""
        try:
            self.catalogue.read(self.take_turn("", "", self.exchange.ask))
        except (MayPass, Unusable, APIError) as error:
            return [f"no prices and limits: {error}"]
        return [] if self.catalogue else ["no prices and limits: the server lists no models"]
