"""JSON in a response, and the kind `json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from autoresearch.criteria.kind import Mark
from autoresearch.criteria.phrases import plain
from autoresearch.files.program import unfenced
from autoresearch.text import short


def same_fields(ours: dict[str, Any], theirs: dict[str, Any]) -> Mark:
    keys = [*ours, *(key for key in theirs if key not in ours)]
    wrong = [
        key
        for key in keys
        if key not in ours or key not in theirs or not same(ours[key], theirs[key])
    ]
    return 1 - len(wrong) / max(1, len(keys)), f"wrong: {short(', '.join(wrong), 120)}"


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: strings as `equals` compares text, 1 like 1.0."""
    if isinstance(one, str) and isinstance(other, str):
        return plain(one) == plain(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


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


DECODER = json.JSONDecoder(object_pairs_hook=refuse_twins)
JSON_ATTEMPTS = 50  # places where an object may begin


def json_objects(text: str) -> Iterator[tuple[dict[str, Any], int, int]]:
    """The JSON objects that stand in a text, each with its start and end."""
    end = 0
    for _ in range(JSON_ATTEMPTS):
        start = text.find("{", end)
        if start < 0:
            return
        try:
            found, end = DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield found, start, end


def as_json(text: str) -> list[Any]:
    """The value of a text that is JSON, in a code block or not, as a list of one; else none."""
    try:
        return [DECODER.decode(unfenced(text.strip()).strip())]
    except (ValueError, RecursionError):
        return []
