"""Kinds that know the right answer: `equals`, `similar`."""

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import regex

from autoresearch.criteria.kind import Mark
from autoresearch.criteria.phrases import canonical
from autoresearch.criteria.structure import refuse_twins
from autoresearch.files.program import unfenced
from autoresearch.text import short

# A full stop in any script that has one; not an ellipsis, nor signs that say more than "the end".
STOPS = (
    ".\u0589\u06d4\u0701\u0702\u0964\u0965\u0f0d\u104a\u104b\u1362\u166e\u1803\u1809\u17d4\u17d5"
    "\u3002\ua4ff\ua60e\ua6f3\ufe12\ufe52\uff0e\uff61"
)
QUOTE = regex.compile(r"\p{Quotation_Mark}")
BLANK = str.maketrans("\u2212", "-", "\u200b\u2060\ufeff")  # the minus sign; blanks of no width
GROUPED = regex.compile(
    r"[-+]?\d{1,3}(?:([,'\u2019\u066c\u00a0\u2009\u202f ])\d{3}(?:\1\d{3})*|(?:,\d{2})+,\d{3})"
    r"(?:\.\d*)?"
)
SEPARATOR = regex.compile(r"[,'\u2019\u066c\s]")


def bare(text: str) -> str:
    """The answer without a code fence, quotes and white space around it and its final stop."""
    text = unfenced(text.strip()).strip()
    for _ in range(2):  # a stop may stand before or after the quote
        if len(text) > 1 and text[-1] in STOPS and text[-2] != text[-1]:
            text = text[:-1].rstrip()
        if len(text) > 2 and QUOTE.match(text[0]) and QUOTE.match(text[-1]):
            text = text[1:-1].strip()
    return text


def fold(text: str) -> str:
    """A bare answer without case and runs of white space."""
    text = bare(canonical(text.translate(BLANK)))
    return canonical(" ".join(text.casefold().split()))


def number(text: str) -> Decimal:
    """The number that Python reads in a text, thousands separators taken out; NaN: it is none."""
    try:
        value = Decimal(SEPARATOR.sub("", text) if GROUPED.fullmatch(text) else text)
    except InvalidOperation:
        return Decimal("nan")
    return value if value.is_finite() else Decimal("nan")


def equals(wanted: str, response: str) -> Mark:
    """1 for the same text or number; JSON by value, an object by its share of right keys."""
    missed = f"wanted '{short(wanted)}', got '{short(response)}'"
    value, other = as_json(bare(wanted)), as_json(bare(response))
    if isinstance(value, dict) and isinstance(other, dict):
        keys, shared = value | other, value.keys() & other.keys()
        wrong = [key for key in keys if key not in shared or value[key] != other[key]]
        return 1 - len(wrong) / max(1, len(keys)), f"wrong: {short(', '.join(wrong), 120)}"
    if isinstance(value, dict | list):
        return float(value == other), missed
    ours, theirs = fold(wanted), fold(response)
    return float(ours == theirs or number(ours) == number(theirs)), missed


def as_json(text: str) -> Any:
    """The value of a text that is JSON and nothing else, to be compared; None for any other."""

    def exact(digits: str) -> tuple[Decimal]:  # 1 is 1.0, but true is not 1
        return (Decimal(digits),)

    try:
        return json.loads(text, object_pairs_hook=refuse_twins, parse_int=exact, parse_float=exact)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def similar(wanted: str, response: str) -> Mark:
    """The share of characters in common, by the normalised Indel distance of rapidfuzz."""
    from rapidfuzz import fuzz

    mark = fuzz.ratio(fold(wanted), fold(response)) / 100
    return mark, f"{mark:.0%} like '{short(wanted)}'"
