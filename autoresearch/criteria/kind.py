"""What a criterion kind is: how its argument is read and a response marked by it."""

from collections.abc import Callable
from typing import Any, NamedTuple

Mark = tuple[float, str]  # 0 to 1, and what was missed ("" when nothing was)


class ScoreError(Exception):
    """The response cannot be scored: the experiment is spoilt, nothing may stand in for a score."""


class Kind(NamedTuple):
    """How an argument is read and a response marked by it."""

    parse: Callable[[Any], Any]  # raises ValueError, which says what was expected
    mark: Any  # (what `parse` gave, response) -> Mark; None: a model judges
    quote: Callable[[str], str] = str  # makes text literal that is filled into the argument
    whole: bool = False  # `parse` gets the Criterion itself, `mark` the Input too
