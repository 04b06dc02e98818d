"""What every user's file depends on, and how the house is built. Run: pytest tests/test_house.py"""

from __future__ import annotations

from pathlib import Path

import pytest

from autoresearch.files.program import load_program

ROOT = Path(__file__).parents[1]
DIGESTS = {  # another digest begins a new series in every file that people have
    "program.md": ("30135e4ef27d", "13d3e50e2148", "08b1cbdd561d"),
    "examples/classify-tickets.md": ("28724f46bacf", "17aac9e0a6dc", "3cbce9dfbef3"),
    "examples/explain-like-im-five.md": ("001b544ab46b", "543fe2953599", "417052ba6047"),
    "examples/extract-invoice.md": ("45a419d9d90f", "f27224cf2d22", "73e82813f8ea"),
}


@pytest.mark.parametrize("name", DIGESTS)
def test_the_digests_of_the_shipped_programs_are_known(name):
    program = load_program(ROOT / name)
    before, now, scored = DIGESTS[name]
    assert program.digests("m", 0.7)[0] == before  # of versions that counted in the inputs
    assert (program.digest("m", 0.7), program.criteria_digest()) == (now, scored)
