"""What a command sends of its environment: keys, and what the configuration names; nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crush_trio.cli.brought import Brought, bring
from crush_trio.client.endpoint import parse_server_url
from crush_trio.client.locate import Target
from crush_trio.config.key_variables import KEY_VARIABLES
from crush_trio.models.catalogue import load

LOCAL = Target(parse_server_url("unix:///run/x.sock"))
REMOTE = Target(parse_server_url("tcp://127.0.0.1:1"))


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home with a configuration that refers to two variables, and more of them than that."""
    config = tmp_path / ".config" / "crush-trio" / "config.json"
    config.parent.mkdir(parents=True)
    den = {"api_key": "$DEN_KEY", "extra_headers": {"x-team": "${DEN_TEAM:-none} $UNSET"}}
    config.write_text(json.dumps({"providers": {"den": den}, "env": {"A": "$OTHER"}}))
    return {
        "HOME": str(tmp_path),
        "PATH": "/bin",
        "OTHER": "o",
        "DEN_KEY": "k=1",
        "DEN_TEAM": "blue",
        "OPENAI_API_KEY": "sk",
        "HF_TOKEN": "",
        "OLLAMA_HOST": "127.0.0.1:9",
        "CRUSH_TRIO_CONFIG": "",
    }


def test_keys_and_what_providers_refer_to_are_brought(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """Contract 7: only these; a shared server has no use for the rest."""
    brought = bring(LOCAL, str(tmp_path), environ)
    assert brought.env == (
        "OPENAI_API_KEY=sk",
        "OLLAMA_HOST=127.0.0.1:9",
        "DEN_KEY=k=1",
        "DEN_TEAM=blue",
    )
    assert brought.client_id is not None
    assert "sk" not in repr(brought)
    assert bring(LOCAL, str(tmp_path), environ, "mine").client_id == "mine"


def test_the_file_that_a_command_means_is_brought(environ: dict[str, str], tmp_path: Path) -> None:
    named = tmp_path / "mine.json"
    named.write_text('{"providers": {"mine": {"api_key": "$OTHER"}}}')
    brought = bring(LOCAL, str(tmp_path), {**environ, "CRUSH_TRIO_CONFIG": str(named)})
    assert {f"CRUSH_TRIO_CONFIG={named}", "OTHER=o"} <= set(brought.env)


def test_nothing_is_brought_over_a_network_or_when_there_is_nothing(
    environ: dict[str, str], tmp_path: Path
) -> None:
    assert bring(REMOTE, str(tmp_path), environ) == Brought()
    assert bring(LOCAL, str(tmp_path), {"HOME": "/nonexistent", "PATH": "/bin"}) == Brought()


def test_a_broken_configuration_is_left_to_the_server(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "crush.json").write_text("{")
    odd = {**environ, "GROQ_API_KEY": "\udc80"}
    assert bring(LOCAL, str(tmp_path), odd).env == ("OPENAI_API_KEY=sk", "OLLAMA_HOST=127.0.0.1:9")


def test_the_key_variables_are_those_of_the_catalogue() -> None:
    of_catalogue = {name for each in load().providers() for name in each.key_variables}
    assert sorted(of_catalogue) == list(KEY_VARIABLES)
