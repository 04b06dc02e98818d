"""Kinds that look at the form of a response: `json`, `matches`; and the JSON in any text."""

import json
import re
from collections.abc import Iterator
from typing import Any

import regex

from autoresearch.criteria.kind import Mark, ScoreError
from autoresearch.text import short


def read_keys(argument: str) -> list[str]:
    keys = [key.strip().strip("\"'`") for key in argument.split(",")]
    keys = list(dict.fromkeys(key for key in keys if key))
    if not keys:
        raise ValueError(f"expected keys between commas, found '{short(argument)}'")
    return keys


def json_keys(keys: list[str], response: str) -> Mark:
    """The share of keys in the best JSON object of the response, fenced or with prose around."""
    objects = [found for found, _, _ in json_objects(response)]
    if not objects:
        return 0.0, "no JSON object"
    missing = min(([k for k in keys if k not in found] for found in objects), key=len)
    return 1 - len(missing) / len(keys), f"missing JSON keys: {', '.join(missing)}"


def refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("the same key twice")
    return found


MATCH_SECONDS = 0.5  # what one search of a pattern may take
DECODER = json.JSONDecoder(object_pairs_hook=refuse_twins)
ATTEMPTS = 50  # places where an object may begin,
EFFORT = 1_000_000  # and characters read in vain: a hostile text could have each read to its end


def json_objects(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """The JSON objects that stand in a text, each with its start and end."""
    end = wasted = 0
    for _ in range(ATTEMPTS):
        start = text.find("{", end)
        if start < 0 or wasted > EFFORT:
            return
        try:
            found, end = DECODER.raw_decode(text, start)
            yield found, start, end
        except (ValueError, RecursionError) as error:
            wasted += getattr(error, "pos", len(text)) - start
            end = start + 1


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
    except (TimeoutError, MemoryError) as error:
        problem = f"took over {MATCH_SECONDS} s, or too much memory; simplify it"
        raise ScoreError(f"/{short(pattern.pattern)}/ {problem}") from error
    return (1.0, "") if found else (0.0, f"no match for /{short(pattern.pattern, 120)}/")
