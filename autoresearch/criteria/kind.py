"""What a criterion kind is: how its argument is read and a response marked by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Mark = tuple[float, str]  # 0 to 1, and what was missed ("" when nothing was)


class ScoreError(Exception):
    """The response cannot be scored: the experiment is spoilt, nothing may stand in for a score."""


@dataclass(frozen=True)
class Kind:
    """How an argument is read (ValueError says what was expected) and a response marked by it.

    `quote` makes text literal that is filled into the argument. Without `mark` a model judges.
    """

    parse: Callable[[str], Any]
    mark: Callable[[Any, str], Mark] | None
    quote: Callable[[str], str] = str
