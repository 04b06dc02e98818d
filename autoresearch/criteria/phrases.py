"""Kinds that look for words: `mentions`, `avoids`, `matches`."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import regex

from autoresearch.criteria.kind import Mark, ScoreError
from autoresearch.text import short

MATCH_SECONDS = 0.5  # what one search of a `matches` pattern may take
# Scripts that put no spaces around words, or (Hangul) hang particles on them.
UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
LETTER = rf"[\w--[{UNSPACED}]]"
INVISIBLE = regex.compile(r"[\u00ad\u200b-\u200d\u2060\ufeff]")
EMPHASIS = regex.compile(r"(?<![^\W_])[*_~`]+|[*_~`]+(?![^\W_])")
HYPHEN = regex.compile(r"(?<=\w)[-\u2010-\u2015\u2212]\s*(?=\w)")
CLOSING = " .,;:!?\u3002\uff0c\"'\u201c\u201d\u2018\u00ab\u00bb\u300c\u300d"


@lru_cache(maxsize=64)
def fold(text: str) -> str:
    """Text as `mentions` compares it: no case, width, emphasis, hyphens or line breaks.

    >>> fold("The **Polar\u2011Bear**\\n`Club`")
    'the polar bear club'
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).replace("\u2019", "'")
    return " ".join(HYPHEN.sub(" ", EMPHASIS.sub("", text)).split())


def plain(text: str) -> str:
    """Text as `equals` and `similar` compare it: folded, without quotes and closing punctuation."""
    folded = fold(text)
    return folded.strip(CLOSING) or folded


Groups = list[tuple[str, "regex.Pattern[str]"]]


def read_groups(argument: str) -> Groups:
    """Reads `a | b, c`: groups between commas, alternatives between bars, quotes dropped."""
    groups = []
    for group in argument.split(","):
        phrases = [p.strip().strip("\"'\u201c\u201d").strip() for p in group.split("|")]
        phrases = [phrase for phrase in phrases if phrase]
        if nothing := [phrase for phrase in phrases if not fold(phrase)]:
            raise ValueError(f"expected words to look for, found '{nothing[0]}'")
        if phrases:
            pattern = "|".join(map(phrase_pattern, phrases))
            groups.append((" | ".join(phrases), regex.compile(f"(?V1){pattern}")))
    if not groups:
        raise ValueError(f"expected 'phrase | alternative, phrase', found '{short(argument)}'")
    return groups


def phrase_pattern(phrase: str) -> str:
    """A pattern for folded text: whole words, in the singular or the plural."""
    folded = fold(phrase)
    left = rf"(?<!{LETTER})" if regex.match(f"(?V1){LETTER}", folded) else ""
    right = rf"(?!{LETTER})" if regex.match(f"(?V1){LETTER}", folded[-1]) else ""
    return left + " ".join(map(either_number, folded.split(" "))) + right


def either_number(word: str) -> str:
    """A pattern for an English word in both numbers; short words ("I", "as") have only one."""
    if not regex.fullmatch(r"\p{Latin}{3,}", word):
        return regex.escape(word)
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}(?:y|ies)"
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}(?:y|ies)"
    if word.endswith("es") and len(word) > 4:
        return f"{word[:-2]}(?:es?)?"
    if word.endswith("s") and len(word) > 3 and word[-2] not in "sui":
        return f"{word[:-1]}s?"
    return f"{word}(?:s|es)?"


def mentions(groups: Groups, response: str) -> Mark:
    text = fold(response)
    missing = [name for name, pattern in groups if not pattern.search(text)]
    return 1 - len(missing) / len(groups), f"missing: {', '.join(missing)}"


def avoids(groups: Groups, response: str) -> Mark:
    """The share of groups that are absent, so that each phrase dropped is a gain."""
    text = fold(response)
    found = [hit[0] for _, pattern in groups if (hit := pattern.search(text))]
    return 1 - len(found) / len(groups), f"to avoid: {', '.join(found)}"


def read_pattern(argument: str) -> regex.Pattern[str]:
    found = re.fullmatch(r"/(.+)/([imsx]*)", argument.strip(), re.DOTALL)
    if not found:
        raise ValueError(f"expected /regex/ or /regex/ims, found '{short(argument)}'")
    flags = sum(getattr(regex, flag.upper()) for flag in set(found[2]))
    try:
        return regex.compile(found[1], flags)
    except (regex.error, ValueError, OverflowError, RecursionError, MemoryError) as error:
        raise ValueError(f"expected a regular expression: {error}") from error


def matches(pattern: regex.Pattern[str], response: str) -> Mark:
    try:
        found = pattern.search(response, timeout=MATCH_SECONDS)
    except TimeoutError as error:
        raise ScoreError(
            f"/{short(pattern.pattern)}/ took over {MATCH_SECONDS} s; simplify it"
        ) from error
    except MemoryError as error:
        raise ScoreError(f"/{short(pattern.pattern)}/ needs too much memory") from error
    return (1.0, "") if found else (0.0, f"no match for /{short(pattern.pattern, 120)}/")
