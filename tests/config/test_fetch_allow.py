"""`options.fetch_allow`: read when the configuration is, and from the user's own files alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crush_trio.config.load import load_config
from crush_trio.protocol.errors import ConfigError


def test_entries_of_the_user_count_and_those_of_a_repository_are_inert(tmp_path: Path) -> None:
    user, project = tmp_path / "config.json", tmp_path / "project"
    project.mkdir()
    allowed = ["localhost:3000", "10.0.0.0/8", "[fd00::1]:80", "intranet.example"]
    user.write_text(json.dumps({"options": {"fetch_allow": allowed}}))
    (project / "crush.json").write_text('{"options": {"fetch_allow": ["127.0.0.1"]}}')
    config = load_config(project, environ={"HOME": str(tmp_path)}, user_config=user)
    assert config.options["fetch_allow"] == allowed
    assert config.inert == ("crush.json: options.fetch_allow",)


@pytest.mark.parametrize("entry", ["http://a.test", "10.0.0.1/8", "a_b", "a:99999", 7])
def test_an_entry_that_means_nothing_is_one_sentence(tmp_path: Path, entry: object) -> None:
    user = tmp_path / "config.json"
    user.write_text(json.dumps({"options": {"fetch_allow": ["localhost", entry]}}))
    with pytest.raises(ConfigError, match=r"\$\.options\.fetch_allow\[1\]: expected ") as caught:
        load_config(None, environ={"HOME": str(tmp_path)}, user_config=user)
    said = str(caught.value).removeprefix(str(user))
    assert str(entry) not in said.replace("10.0.0.0/8", "")
