"""Kinds that know the right answer: `equals`, `similar`."""

from __future__ import annotations

from autoresearch.criteria.kind import Mark
from autoresearch.criteria.phrases import plain
from autoresearch.criteria.structure import as_json, same, same_fields
from autoresearch.text import short


def read_literal(argument: str) -> str:
    if not argument.strip():
        raise ValueError("expected a text, found none")
    return argument.strip()


def equals(wanted: str, response: str) -> Mark:
    """1 for the same text but for case, spaces, emphasis, quotes and closing punctuation.

    Where both are JSON their values count, and objects get the share of keys that are right.
    """
    if plain(wanted) == plain(response):
        return 1.0, ""
    missed = f"wanted '{short(wanted)}', got '{short(response)}'"
    for ours, theirs in zip(as_json(wanted), as_json(response), strict=False):
        if isinstance(ours, dict) and isinstance(theirs, dict):
            return same_fields(ours, theirs)
        return float(same(ours, theirs)), missed
    return 0.0, missed


def similar(wanted: str, response: str) -> Mark:
    """The share of characters in common, by the normalised Indel distance of rapidfuzz."""
    from rapidfuzz import fuzz

    mark = fuzz.ratio(plain(wanted), plain(response)) / 100
    return mark, f"{mark:.0%} like '{short(wanted)}'"
