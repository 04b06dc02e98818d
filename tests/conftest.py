"""What every test shares: no variable of the developer's own ever reaches a test."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("NEBIUS_"):
            monkeypatch.delenv(name)
