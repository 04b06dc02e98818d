"""The settings of the environment and .env. The command line is tested in test_main.py.

Run: pytest tests/test_options.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from autoresearch.api.exchange import BASE_URL
from autoresearch.options import SettingError, client_settings
from client import Client

OPTIONS = argparse.Namespace(patience=30.0)
KEY = "SECRET-KEY-0123456789-abcdef"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEBIUS_API_KEY", KEY)


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> dict[str, Any]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return client_settings(OPTIONS)


def test_each_role_may_have_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        NEBIUS_BASE_URL="http://127.0.0.1:8501/v1",
        NEBIUS_AGENT_BASE_URL="https://agent.example/v1",
        NEBIUS_AGENT_API_KEY="another-key-of-the-agent",
        NEBIUS_MODEL="small",
        NEBIUS_AGENT_MODEL="strong",
    )
    shared = (KEY, "http://127.0.0.1:8501/v1")
    agent = ("another-key-of-the-agent", "https://agent.example/v1")
    assert found["servers"] == {"task": shared, "agent": agent, "judge": shared}
    assert found["models"] == {"task": "small", "agent": "strong", "judge": "small"}
    client = Client(**found)
    assert client._servers["task"] is client._servers["judge"] is not client._servers["agent"]
    assert client._servers["task"].gate is not client._servers["agent"].gate


def test_unset_settings_are_the_shared_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch)
    assert set(found["servers"].values()) == {(KEY, BASE_URL)}
    assert found["deadline"] == 180


def test_fields_nested_too_deeply_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="NEBIUS_EXTRA_BODY: .* is not a JSON object"):
        settings(monkeypatch, NEBIUS_EXTRA_BODY='{"a":' + "[" * 5000 + "]" * 5000 + "}")


def test_the_time_for_an_answer_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch, NEBIUS_TIMEOUT="600")["deadline"] == 600
    for wrong in ("soon", "0", "-1", "nan"):
        with pytest.raises(SettingError, match="NEBIUS_TIMEOUT: .* from 1 to 86400"):
            settings(monkeypatch, NEBIUS_TIMEOUT=wrong)


@pytest.mark.parametrize(
    "wrong", [KEY, "eyJhbGciOiJIUzI1NiIsImtpZCI6I.eyJzdWIi.abc", "sk-" + "a" * 20]
)
@pytest.mark.parametrize(
    "name",
    ["BASE_URL", "MODEL", "AGENT_MODEL", "JUDGE_BASE_URL", "EXTRA_BODY", "TEMPERATURE", "TIMEOUT"],
)
def test_a_key_in_the_wrong_place_is_named_unshown(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: str
) -> None:
    with pytest.raises(SettingError, match=f"NEBIUS_{name} holds a key") as caught:
        settings(monkeypatch, **{f"NEBIUS_{name}": wrong})
    assert wrong not in str(caught.value)


def test_a_key_within_a_url_is_in_the_wrong_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="NEBIUS_BASE_URL holds a key") as caught:
        settings(monkeypatch, NEBIUS_BASE_URL=f"https://h.example/v1?key={KEY}")
    assert KEY not in str(caught.value)


def test_a_key_in_the_wrong_place_is_told_though_there_is_none_in_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SettingError, match="NEBIUS_MODEL holds a key"):
        settings(monkeypatch, NEBIUS_API_KEY="", NEBIUS_MODEL="sk-" + "a" * 20)


def test_ids_of_models_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B", "gpt-oss-120b", "qwen", "v1.5-pro"):
        assert settings(monkeypatch, NEBIUS_MODEL=model)["models"]["task"] == model
