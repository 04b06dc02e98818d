"""What a criterion kind is: how its argument is read and a response marked by it."""

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
    With `whole`, `parse` reads the Criterion instead, and what it gives marks (response, Input).
    """

    parse: Callable[[Any], Any]
    mark: Callable[..., Mark] | None
    quote: Callable[[str], str] = str
    whole: bool = False
