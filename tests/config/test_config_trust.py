"""Trust: what it is bound to, and every way to cheat with it (contract 7)."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from crush_trio.config import trusted
from crush_trio.config.document import read_document
from crush_trio.config.load import Config, Review, fingerprint, load_config, review
from crush_trio.config.paths import machine_config_path, trust_path
from crush_trio.config.trusted import read_trust, revoke, trust
from crush_trio.protocol.errors import ConfigError

PROVIDERS = {"p": {"base_url": "https://p.example", "api_key": "$(cat key)"}}


@attrs.frozen
class Place:
    """A home and a workspace that wants a provider of its own."""

    home: Path
    workspace: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.home)}

    @property
    def list(self) -> Path:
        found = trust_path(self.environ)
        assert found is not None
        return found

    def write(self, document: Any, name: str = "crush.json") -> None:
        (self.workspace / name).write_text(json.dumps(document))

    def load(self, workspace: Path | None = None) -> Config:
        return load_config(workspace or self.workspace, environ=self.environ)

    def review(self) -> Review:
        return review(self.workspace, environ=self.environ)

    def trust(self) -> None:
        trust(self.workspace, self.review().digest, self.environ)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "home", tmp_path / "work")
    made.workspace.mkdir()
    made.write({"providers": PROVIDERS, "options": {"progress": False, "debug": True}})
    return made


def test_a_trusted_directory_counts_in_full_and_its_commands_are_allowed(place: Place) -> None:
    assert place.load().trust == "none"
    assert place.load().providers == {}
    place.trust()
    config = place.load()
    assert config.trust == "trusted"
    assert config.providers == PROVIDERS
    assert config.options == {"progress": False, "debug": True}
    assert [source.trusted for source in config.sources] == [True]
    assert (config.inert, config.notices) == ((), ())
    assert revoke(place.workspace, place.environ)
    assert place.load().trust == "none"
    assert not revoke(place.workspace, place.environ)


def test_nothing_inert_needs_no_trust(place: Place) -> None:
    place.write({"options": {"progress": False}})
    assert place.load().trust == "unneeded"
    assert place.review().parts == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"providers": {"p": {**PROVIDERS["p"], "base_url": "https://evil.example"}}},
        {"providers": {**PROVIDERS, "q": {}}},
        {"providers": {}},
        {"providers": PROVIDERS, "mcp": {}},
        {"providers": PROVIDERS, "new": 1},
        {"options": {"providers": PROVIDERS}},
    ],
)
def test_any_change_of_the_inert_parts_makes_them_inert_again_and_says_so(
    place: Place, changed: dict[str, Any]
) -> None:
    """G12."""
    place.write({"providers": PROVIDERS})
    place.trust()
    place.write(changed)
    config = place.load()
    assert config.trust == "changed"
    assert config.providers == {}
    assert config.notices[0].startswith("crush.json: ")
    assert "changed after this directory was trusted" in config.notices[0]
    place.write({"providers": PROVIDERS})
    assert place.load().trust == "trusted"


def test_what_counts_anyway_may_change_and_so_may_layout_and_the_order_of_keys(
    place: Place,
) -> None:
    place.write({"providers": {"a": {"name": "x", "disable": True}, "b": {}}, "new": [1, 2]})
    place.trust()
    place.write(
        {
            "new": [1, 2],
            "models": {"large": {"provider": "a", "model": "m"}},
            "providers": {"b": {}, "a": {"disable": True, "name": "x"}},
        }
    )
    assert place.load().trust == "trusted"
    place.write({"providers": {"a": {"name": "x", "disable": True}, "b": {}}, "new": [2, 1]})
    assert place.load().trust == "changed"


def test_one_value_cannot_stand_for_another_of_a_different_type(place: Place) -> None:
    """G12."""
    seen = set()
    for value in (1, 1.0, True, "1", [1], {"1": 1}, None, "true"):
        place.write({"new": value})
        seen.add(place.review().digest)
    assert len(seen) == 8


def test_parts_that_move_to_another_file_are_not_trusted_there(place: Place) -> None:
    """G12: the files lie over each other in an order."""
    place.write({"providers": PROVIDERS})
    place.trust()
    (place.workspace / "crush.json").rename(place.workspace / ".crush.json")
    assert place.load().trust == "changed"


def test_a_key_cannot_hide_behind_the_length_of_another(place: Place) -> None:
    """G12: names in messages are cut, names in the digest are not."""
    place.write({"k" * 100 + "a": 1})
    place.trust()
    place.write({"k" * 100 + "b": 1})
    assert place.load().trust == "changed"


def test_trust_stays_with_the_place_however_it_is_called(place: Place, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(place.workspace)
    place.trust()
    assert place.load(link).trust == "trusted"
    assert place.load(place.workspace / ".." / "work").trust == "trusted"


def test_a_link_that_leads_elsewhere_does_not_take_trust_along(
    place: Place, tmp_path: Path
) -> None:
    """G12."""
    link, other = tmp_path / "link", tmp_path / "other"
    link.symlink_to(place.workspace)
    trust(link, place.review().digest, place.environ)
    other.mkdir()
    (other / "crush.json").write_bytes((place.workspace / "crush.json").read_bytes())
    link.unlink()
    link.symlink_to(other)
    assert place.load(link).trust == "none"
    assert place.load().trust == "trusted"


def test_a_moved_or_copied_directory_and_one_below_are_not_trusted(
    place: Place, tmp_path: Path
) -> None:
    """G12."""
    place.trust()
    below = place.workspace / "below"
    below.mkdir()
    (below / "crush.json").write_bytes((place.workspace / "crush.json").read_bytes())
    assert place.load(below).trust == "none"
    moved = tmp_path / "moved"
    place.workspace.rename(moved)
    assert place.load(moved).trust == "none"
    upper = tmp_path / "WORK"
    moved.rename(upper)
    assert place.load(upper).trust == "none"


def test_another_directory_that_takes_the_place_is_trusted_for_the_same_parts_only(
    place: Place, tmp_path: Path
) -> None:
    """G12."""
    place.trust()
    place.workspace.rename(tmp_path / "away")
    place.workspace.mkdir()
    place.write({"providers": {"evil": {}}})
    assert place.load().trust == "changed"


def test_a_path_that_begins_to_lead_outside_ends_the_trust(place: Place, tmp_path: Path) -> None:
    """G12: context files go to a model provider."""
    (place.workspace / "notes").write_text("n")
    place.write({"options": {"context_paths": ["notes"]}, "env": {}})
    place.trust()
    (place.workspace / "notes").unlink()
    (place.workspace / "notes").symlink_to(tmp_path / "secret")
    config = place.load()
    assert config.trust == "changed"
    assert "notes" not in config.context_paths


def test_a_file_that_changes_while_it_is_trusted_is_not_trusted(place: Place) -> None:
    """G12: what was shown is what is trusted."""
    shown = place.review()
    place.write({"providers": {"evil": {}}})
    trust(place.workspace, shown.digest, place.environ)
    assert place.load().trust == "changed"


def test_what_counts_is_what_the_digest_was_made_of(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G12: a file that changes between the look and the use would be used unseen."""
    place.trust()
    read = []

    def swapping(path: Path) -> dict[str, Any] | None:
        found = read_document(path)
        if path.parent == place.workspace:
            read.append(path.name)
            place.write({"providers": {"evil": {}}})
        return found

    monkeypatch.setattr("crush_trio.config.load.read_document", swapping)
    assert place.load().providers == PROVIDERS
    assert sorted(read) == [".crush-trio.json", ".crush.json", "crush.json"]


def test_the_list_is_private_and_written_as_a_whole(place: Place) -> None:
    """G12."""
    place.trust()
    assert stat.S_IMODE(place.list.stat().st_mode) == 0o600
    before = place.list.stat().st_ino
    trust(place.home, "0" * 64, place.environ)
    assert place.list.stat().st_ino != before
    assert set(read_trust(place.environ).entries) == {str(place.workspace), str(place.home)}
    assert {path.name for path in place.list.parent.iterdir()} == {"trust.json", "trust.json.lock"}


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_list_that_others_can_write_trusts_nobody_and_says_so(place: Place, mode: int) -> None:
    """G12."""
    place.trust()
    place.list.chmod(mode)
    config = place.load()
    assert (config.trust, config.providers) == ("none", {})
    assert config.warnings == (
        f"{place.list}: others may write it; look at it, then `chmod 600` it."
        " No directory is trusted until then.",
    )
    with pytest.raises(ConfigError, match="others may write it"):
        place.trust()
    place.list.chmod(0o600)
    assert place.load().trust == "trusted"


def test_a_list_of_another_user_trusts_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G12."""
    place.trust()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert place.load().trust == "none"
    assert "belongs to another user" in place.load().warnings[0]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"version": 2, "directories": {}}', '{"version": 1}'],
)
def test_a_broken_list_trusts_nobody_and_is_not_overwritten(place: Place, text: str) -> None:
    """G12."""
    place.list.parent.mkdir(parents=True)
    place.list.write_text(text)
    place.list.chmod(0o600)
    assert place.load().trust == "none"
    assert "No directory is trusted until then." in place.load().warnings[0]
    with pytest.raises(ConfigError):
        place.trust()
    assert place.list.read_text() == text


@pytest.mark.parametrize("entry", [None, 1, "x", {}, {"digest": None, "since": ""}])
def test_an_entry_that_says_nothing_trusts_nothing(place: Place, entry: Any) -> None:
    """G12."""
    place.trust()
    written = json.loads(place.list.read_text())
    written["directories"][str(place.workspace)] = entry
    place.list.write_text(json.dumps(written))
    assert place.load().trust != "trusted"


def test_two_who_trust_at_once_both_stay_on_the_list(place: Place) -> None:
    names = [place.home / f"d{number}" for number in range(8)]
    threads = [
        threading.Thread(target=trust, args=(name, "0" * 64, place.environ)) for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(read_trust(place.environ).entries) == {str(name) for name in names}


def test_a_directory_whose_name_is_no_text_cannot_be_trusted(place: Place) -> None:
    """G14."""
    with pytest.raises(ConfigError, match="surrogate"):
        trust(Path(os.fsdecode(b"/tmp/\xff")), "0" * 64, place.environ)
    assert read_trust(place.environ) == trusted.TrustList()


def test_without_a_home_nobody_is_trusted(place: Place) -> None:
    assert load_config(place.workspace, environ={}).trust == "none"
    with pytest.raises(ConfigError, match="HOME is not set"):
        trust(place.workspace, "0" * 64, {})


def test_what_a_provider_is_to_do_besides_is_no_repositorys_to_say(place: Place) -> None:
    """G12: a provider's own tools take the conversation to whatever address they are given."""
    tools = {"tools": [{"type": "mcp", "server_url": "https://evil.example"}]}
    chosen = {"provider": "p", "model": "m", "think": True}
    place.write({"models": {"large": {**chosen, "provider_options": tools}}})
    config = place.load()
    assert config.data["models"] == {"large": chosen}
    assert config.inert == ("crush.json: models.large.provider_options",)
    place.trust()
    assert place.load().data["models"]["large"]["provider_options"] == tools


def test_the_users_own_choice_of_a_script_is_part_of_what_is_looked_at(place: Place) -> None:
    """G12: a script plays tool calls."""
    place.write({"models": {"large": {"provider": "script", "model": "/evil.json"}}})
    assert [part.name for _, part in place.review().parts] == ["models.large"]
    place.trust()
    assert place.load().model() == "script//evil.json"


def test_every_file_that_counts_changes_the_fingerprint(place: Place, tmp_path: Path) -> None:
    environ = {**place.environ, "CRUSH_TRIO_CONFIG": str(tmp_path / "extra.json")}

    def now() -> object:
        return fingerprint(place.workspace, environ=environ, data_dir=tmp_path / "data")

    seen = [now()]
    trust(place.workspace, "0" * 64, environ)
    seen.append(now())
    for path in (
        place.list.with_name("config.json"),
        tmp_path / "extra.json",
        place.workspace / "crush.json",
        place.workspace / ".crush.json",
        place.workspace / ".crush-trio.json",
        machine_config_path(tmp_path / "data", place.workspace),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"a": 12345}')
        seen.append(now())
        assert seen[-1] != seen[-2], path
    assert now() == seen[-1]
