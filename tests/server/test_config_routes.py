"""Routes that change the configuration, against a real server (CW 2.7)."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit import Json, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests: each has a directory of its own, and the user's file is shared."""
    server = Server(tmp_path_factory.mktemp("h")).start()
    yield server
    server.kill()


class Place:
    """A workspace, and the files its configuration comes from."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path
        self.id = server.workspace(path)
        self.user = server.home / ".config" / "crush-trio" / "config.json"
        self.user.unlink(missing_ok=True)

    def call(self, route: str, body: Json, expect: int = 200) -> Any:
        return self.server.post(f"/v1/workspaces/{self.id}/config/{route}", body, expect)

    def set(self, key: str, value: Any, scope: int = 1, expect: int = 200) -> Any:
        return self.call("set", {"scope": scope, "key": key, "value": value}, expect)

    @property
    def config(self) -> Json:
        found: Json = self.server.get(f"/v1/workspaces/{self.id}/config")
        return found

    def changes(self) -> int:
        kinds = "after=start&kinds=config_changed"
        with self.server.stream(self.id, kinds) as stream:
            return len([f for f in stream.until(lambda f: f["type"] == "replayed") if "ts_ms" in f])


@pytest.fixture
def place(server: Server, tmp_path: Path) -> Place:
    return Place(server, tmp_path / "work")


def test_scope_0_is_the_users_file_private_and_read_by_every_workspace(
    place: Place, server: Server, tmp_path: Path
) -> None:
    """G12."""
    other = Place(server, tmp_path / "other")
    place.set("options.progress", False, scope=0)
    assert json.loads(place.user.read_text()) == {"options": {"progress": False}}
    assert stat.S_IMODE(place.user.stat().st_mode) == 0o600
    assert place.config["options"]["progress"] is False
    assert other.config["options"]["progress"] is False
    assert place.changes() == other.changes() == 1


def test_scope_1_belongs_to_one_workspace_and_nothing_is_written_into_it(
    place: Place, server: Server, tmp_path: Path
) -> None:
    """Contract 5; over the workspace's own files."""
    (place.path / "crush.json").write_text('{"options": {"tui": {"diff_mode": "split"}}}')
    other = Place(server, tmp_path / "other")
    place.set("options.tui.diff_mode", "unified")
    assert place.config["options"]["tui"] == {"diff_mode": "unified"}
    assert other.config["options"]["tui"] == {}
    assert [each.name for each in place.path.iterdir()] == ["crush.json"]
    assert not place.user.exists()
    place.call("remove", {"scope": 1, "key": "options.tui.diff_mode"})
    assert place.config["options"]["tui"] == {"diff_mode": "split"}
    assert other.changes() == 0
    assert server.call("DELETE", f"/v1/workspaces/{place.id}?purge=true")[0] == 200
    place.id = server.workspace(place.path)
    assert place.config["options"]["tui"] == {"diff_mode": "split"}


def test_unknown_keys_and_what_others_wrote_stay(place: Place) -> None:
    place.user.parent.mkdir(parents=True, exist_ok=True)
    place.user.write_text('{"new": [1, null], "options": {"debug": true, "tui": {"x": 1}}}')
    place.set("options.tui.compact_mode", True, scope=0)
    place.set(r"lsp.my\.lang.command", "x", scope=0)
    assert json.loads(place.user.read_text()) == {
        "new": [1, None],
        "options": {"debug": True, "tui": {"x": 1, "compact_mode": True}},
        "lsp": {"my.lang": {"command": "x"}},
    }


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("options.progress", "yes", "$.options.progress: expected true or false, not a string."),
        ("options.tui.diff_mode", "x", '$.options.tui.diff_mode: expected one of "unified"'),
        ("options", 5, "$.options: expected an object, not an integer."),
        ("models.large.provider", "p", "$.models.large: expected both provider and model."),
        ("providers.p.api_key", "$(cat /etc/hostname)", "$.providers.p.api_key: a $(command)"),
        ("providers", {"p": {"base_url": "x$(y)"}}, "$.providers.p.base_url: a $(command)"),
        ("mcp.x.args", ["${A:-$(b)}"], "$.mcp.x.args[0]: a $(command) cannot be set over the API"),
        ("providers.p.api_key", "secret$", "$.providers.p.api_key: a $ without the name"),
        (
            "models.large",
            {"provider": "script", "model": "/x.json"},
            "$.models.large: a script cannot be set over the API.",
        ),
        ("", 1, "`key` must be names joined by dots"),
        ("a..b", 1, "`key` must be names joined by dots"),
        ("a\\", 1, "`key` must be names joined by dots"),
        ("permissions.allowed_tools.x", 1, "expected an array"),
    ],
)
def test_what_would_be_wrong_is_one_sentence_and_changes_nothing(
    place: Place, key: str, value: Any, words: str
) -> None:
    """G12, G14."""
    place.set("options.progress", True)
    changes = place.changes()
    if key.startswith("permissions"):
        place.set("permissions.allowed_tools", ["view"])
        changes += 1
        words = "$.permissions.allowed_tools: expected an object, since `key` leads into it."
    before = place.config
    refusal = place.set(key, value, expect=400)
    assert refusal["code"] == "config_invalid"
    assert words in refusal["message"]
    assert "secret" not in refusal["message"]
    assert place.config == before
    assert place.changes() == changes


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("set", {"scope": 2, "key": "a", "value": 1}),
        ("set", {"scope": True, "key": "a", "value": 1}),
        ("set", {"key": "a", "value": 1}),
        ("remove", {"scope": 0}),
        ("model", {"scope": 0, "model_type": "huge", "model": {"provider": "p", "model": "m"}}),
        ("model", {"scope": 0, "model_type": "large", "model": {"provider": "p"}}),
        ("compact", {"scope": 0, "enabled": 1}),
        ("provider-key", {"scope": 0, "provider_id": "p", "kind": "string", "api_key": {}}),
        ("provider-key", {"scope": 0, "provider_id": "p", "kind": "oauth", "api_key": "x"}),
        ("provider-key", {"scope": 0, "provider_id": "p", "kind": "magic", "api_key": "x"}),
        ("provider-key", {"scope": 0, "provider_id": "", "kind": "string", "api_key": "x"}),
    ],
)
def test_a_body_that_says_something_else_is_refused(place: Place, route: str, body: Json) -> None:
    """G14."""
    assert place.call(route, body, expect=400)["message"]
    assert not place.user.exists()
    assert place.changes() == 0


def test_a_key_is_kept_as_it_is_and_shown_to_nobody(place: Place) -> None:
    """G12."""
    body = {"scope": 0, "provider_id": "p", "kind": "string", "api_key": "sk-$HOME-$(x)"}
    place.call("provider-key", body)
    written = json.loads(place.user.read_text())
    assert written == {"providers": {"p": {"api_key": r"sk-\$HOME-\$(x)"}}}
    assert place.config["providers"]["p"]["api_key"] == "***"
    assert "sk-" not in (place.server.data / "server.log").read_text()
    token = {"access_token": "at-1", "refresh_token": "rt", "expires_in": 1, "expires_at": 2}
    place.call("provider-key", {**body, "kind": "oauth", "api_key": token})
    provider = json.loads(place.user.read_text())["providers"]["p"]
    assert provider == {"api_key": "at-1", "oauth": token}
    assert place.call("refresh-oauth", {"scope": 0, "provider_id": "p"}, 400)["message"]
    assert place.call("refresh-oauth", {"scope": 0, "provider_id": "q"}, 404)["code"] == (
        "provider_not_found"
    )
    place.call("provider-key", body)
    assert "oauth" not in json.loads(place.user.read_text())["providers"]["p"]


def test_the_models_and_the_compact_mode_of_terminals_can_be_chosen(place: Place) -> None:
    chosen = {"provider": "p", "model": "m", "reasoning_effort": "low"}
    place.call("model", {"scope": 1, "model_type": "small", "model": chosen})
    place.call("model", {"scope": 1, "model_type": "large", "model": {**chosen, "model": "n"}})
    place.call("compact", {"scope": 1, "enabled": True})
    config = place.config
    assert config["models"] == {"small": chosen, "large": {**chosen, "model": "n"}}
    assert config["options"]["tui"]["compact_mode"] is True
    assert place.changes() == 3
    assert place.call("import-copilot", {}) == {"token": None, "success": False}


def test_a_path_alone_does_not_change_the_script_that_the_user_plays(place: Place) -> None:
    """G12: a script makes tool calls as written."""
    place.user.parent.mkdir(parents=True, exist_ok=True)
    mine = {"models": {"large": {"provider": "script", "model": "/mine.json"}}}
    place.user.write_text(json.dumps(mine))
    refusal = place.set("models.large.model", "/evil.json", expect=400)
    assert "a script cannot be set over the API" in refusal["message"]


def test_a_wrong_file_can_be_repaired_over_the_api_and_broken_json_is_left_alone(
    place: Place,
) -> None:
    """G14."""
    place.user.parent.mkdir(parents=True, exist_ok=True)
    place.user.write_text('{"options": {"progress": 5}}')
    place.set("options.progress", True, scope=0)
    assert place.config["options"]["progress"] is True
    place.user.write_text("{")
    refusal = place.set("options.progress", True, scope=0, expect=400)
    assert "not valid JSON at line 1" in refusal["message"]
    assert place.user.read_text() == "{"
    place.user.unlink()


def test_a_project_wants_a_description_if_a_model_could_write_one(place: Place) -> None:
    base = f"/v1/workspaces/{place.id}/project"

    def needs() -> bool:
        return bool(place.server.get(f"{base}/needs-init")["needs_init"])

    (place.path / "main.c").write_text("int main(void) {}\n")
    assert not needs()
    place.call(
        "model", {"scope": 1, "model_type": "large", "model": {"provider": "p", "model": "m"}}
    )
    assert needs()
    (place.path / "AGENTS.md").write_text("x")
    assert not needs()
    (place.path / "AGENTS.md").unlink()
    assert "write AGENTS.md" in place.server.get(f"{base}/init-prompt")["prompt"]
    place.set("options.initialize_as", "NOTES.md")
    assert "write NOTES.md" in place.server.get(f"{base}/init-prompt")["prompt"]
    changes = place.changes()
    place.server.post(f"{base}/init")
    assert place.changes() == changes + 1
    assert not needs()


def test_an_unknown_workspace_is_not_found(server: Server) -> None:
    for route in ("config/set", "config/import-copilot", "project/init"):
        body = {"scope": 0, "key": "a", "value": 1}
        status, refusal = server.call("POST", f"/v1/workspaces/none/{route}", body)
        assert (status, refusal["code"]) == (404, "workspace_not_found")
