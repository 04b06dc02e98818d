"""Kinds that count: `words`, `sentences`."""

from __future__ import annotations

import re

import regex

from autoresearch.criteria.kind import Mark
from autoresearch.text import short

CHARACTER = r"\p{Han}\p{Hiragana}\p{Katakana}"  # each counts as a word
INSIDE = r"['\u2019.@/:&\-\u2010\u2011]|(?<=\d),(?=\d)"  # joins the parts of one word
WORD = regex.compile(
    rf"(?V1)[{CHARACTER}]|[\w--[{CHARACTER}]]+(?:(?:{INSIDE})[\w--[{CHARACTER}]]+)*"
)
BLOCK = regex.compile(r"\n\s*\n|\n(?=\s*(?:[-*+#>|]|\d+[.)])\s)")
BULLET = regex.compile(r"\A\s*(?:(?:[-*+>]|#+|\d+[.)])\s+)+")
SENTENCE_END = regex.compile(
    r"[\u3002\uff01\uff1f]+"
    r"|(?<!\b(?i:e\.g|i\.e|cf|vs|mr|mrs|ms|dr))(?<![.!?\u2026])[.!?\u2026]++"
    r"[\"'\u201d\u2019)\]*_]*+\s++(?=[\"'\u201c\u2018(\[*_]*[\p{Lu}\p{Lo}\d])"
)
Band = tuple[int, float]


def read_band(argument: str) -> Band:
    """Reads `60-120`, `up to 120`, `60+` or `60`; an open lower end still asks for something."""
    found = re.fullmatch(
        r"(?:up to|(\d{1,9})\s*[-\u2013])\s*(\d{1,9})|(\d{1,9})\s*(\+)?", argument.strip().lower()
    )
    if not found:
        raise ValueError(f"expected 60-120, up to 120, 60+ or 60, found '{short(argument)}'")
    low = int(found[1] or found[3] or 1)
    high = float("inf") if found[4] else float(found[2] or found[3])
    if low > high or high == 0:
        raise ValueError(f"expected the smaller number first, found '{short(argument)}'")
    return low, high


def in_band(band: Band, count: int, unit: str) -> Mark:
    """1 inside, falling in a line to 0 at half the lower and at twice the upper bound."""
    low, high = band
    if low <= count <= high:
        return 1.0, ""
    mark = 2 * count / low - 1 if count < low else 2 - count / high
    wanted = f"{low}+" if high == float("inf") else f"{low}-{high:.0f}" if low < high else f"{low}"
    return max(0.0, mark), f"{count} {unit}, wanted {wanted}"


def words(band: Band, response: str) -> Mark:
    return in_band(band, len(WORD.findall(response)), "words")


def sentences(band: Band, response: str) -> Mark:
    """Counts sentence ends, and each list item, heading or paragraph without one as a sentence."""
    blocks = (BULLET.sub("", block) for block in BLOCK.split(response))
    pieces = (piece for block in blocks for piece in SENTENCE_END.split(block))
    return in_band(band, sum(1 for piece in pieces if WORD.search(piece)), "sentences")
