"""Kinds that count: `words`, `sentences`."""

import re

import regex
import sentencex

from autoresearch.criteria.kind import Mark
from autoresearch.text import short

SIGN = r"\p{Han}\p{Hiragana}\p{Katakana}"  # each counts as a word
INSIDE = r"['\u2019.@/:&\-\u2010\u2011]|(?<=\d),(?=\d)"  # joins the parts of one word
WORD = regex.compile(rf"(?V1)[{SIGN}]|[\w--[{SIGN}]]+(?:(?:{INSIDE})[\w--[{SIGN}]]+)*")
# Paragraphs, list items and headings end a sentence, and so do stops that sentencex does not know.
BLOCK = regex.compile(r"\n\s*\n|\n(?=\s*(?:[-*+#>|]|\d+[.)])\s)")
STOP = regex.compile(r"(?<=[\u0f0d\u0f0e\u17d4\u17d5])|(?<=\u2026)\s++(?=[\p{QMark}(*_]*\p{Lu})")
BULLET = regex.compile(r"\A\s*(?:(?:[-*+>]|#+|\d+[.)])\s+)+")
CODE = regex.compile(r"[*`]+|(?<=[!?\uff01\uff1f])[!?\uff01\uff1f]+")  # and repeated signs
BRACKET = regex.compile(r"[\p{QMark}()\[\]{}]")
OPENING = regex.compile(r"\A[\s_]*+(?:(?!\[\d)[\p{QMark}(\[])++")
CLOSING = regex.compile(r"[\p{QMark})\]]\s*\Z")
GOES_ON = regex.compile(r"\s*[\p{Ll}\u3068]")  # "No!" he said
ABBREVIATED = regex.compile(r"(?i)(?:\A|[\s(])(?:dr|vols?|chs?|eqs?|abs|abb|approx|sra|dra)\.\s*\Z")
SCRIPTS = {r"\p{Greek}": "el", r"\p{Hiragana}": "ja", r"\p{Armenian}": "hy", r"\p{Cyrillic}": "ru"}
LONG = 2000  # characters; sentencex takes the square of the quotes that are never closed
LONGEST = 100_000  # characters that are looked at: more sentences than any band
BAND = re.compile(r"(?:up to|(\d{1,9})\s*[-\u2013])\s*(\d{1,9})|(\d{1,9})\s*(\+)?")
Band = tuple[int, float]


def read_band(argument: str) -> Band:
    """Reads `60-120`, `up to 120`, `60+` or `60`; an open lower end still asks for something."""
    found = BAND.fullmatch(argument.strip().lower())
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
    """Counts sentences, and each list item, heading or paragraph without a stop as one."""
    text = response[:LONGEST].encode("utf-8", "replace").decode()
    mostly = (c for s, c in SCRIPTS.items() if 4 * len(regex.findall(s, text)) > len(text))
    language, text = next(mostly, "en"), STOP.sub("\n\n", text)
    blocks = (count_sentences(block, language) for block in BLOCK.split(text) if WORD.search(block))
    return in_band(band, sum(blocks), "sentences")


def count_sentences(block: str, language: str) -> int:
    """By sentencex, which knows the stops of most scripts and many abbreviations."""
    block = CODE.sub("", BULLET.sub("", block))
    if len(block) > LONG:
        block = BRACKET.sub("", block)
    found, before = 0, ""
    for piece in sentencex.segment(language, block):
        for each in sentencex.segment(language, OPENING.sub("", piece)):  # (One. Two.)
            goes_on = ABBREVIATED.search(before) or CLOSING.search(before) and GOES_ON.match(each)
            found += bool(WORD.search(each)) and not goes_on
            before = each
    return found
