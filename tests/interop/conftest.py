"""One foreign model server, a relay before it and one server of ours, for all tests here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.e2e.kit import Server
from tests.interop.foreign import DIALECTS, Dialect, ForeignServer, Json, foreign_server, missing
from tests.interop.relay import Relay, relay

WRONG_KEY = "sk-interop-wrong-987654"


@attrs.frozen
class Place:
    """Everything a test needs: the servers, and a project to work in."""

    foreign: ForeignServer
    relay: Relay
    server: Server
    project: Path

    def configure(self, dialect: Dialect, *, thinks: bool = False, **more: Any) -> None:
        """Make ``dialect`` the one that answers, and its small model the one that gives titles.

        All four are configured, and each a second time (``chat-locked``, …) with a wrong key.
        """
        providers = {each.id: each.configured(self.relay.url) for each in DIALECTS}
        locked = {f"{name}-locked": {**providers[name], "api_key": WRONG_KEY} for name in providers}
        large = dialect.chosen() if thinks else {"provider": dialect.id, "model": dialect.model}
        small = {"provider": dialect.id, "model": dialect.small}
        config = {"providers": providers | locked, "models": {"large": large, "small": small}}
        path = self.server.home / ".config/crush-trio/config.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config | more))

    def teach(self, prompt: str, *answers: Json, **match: Any) -> None:
        """The foreign server's answers to ``prompt``, one after the other."""
        match["userMessage"] = prompt
        self.foreign.add(
            *(
                {"match": {"sequenceIndex": number, **match}, **answer}
                for number, answer in enumerate(answers)
            )
        )

    def bodies(self, prompt: str, dialect: Dialect) -> list[Json]:
        """What the model was sent for ``prompt``, without what its small one got for a title."""
        return [
            body
            for path, body in self.relay.asked(prompt)
            if dialect.path in path and dialect.small not in path + body.get("model", "")
        ]

    def refused(self) -> list[Json]:
        """What the foreign server would not take: bodies it calls invalid or did not expect."""
        return [
            {"path": each["path"], "body": each["body"], "response": each["response"]}
            for each in self.foreign.journal()
            if each["response"]["fixture"] is None
        ]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The servers; the tests are skipped where the foreign one cannot be started.

    At the end: every body we sent has been accepted by the foreign server's strict validation.
    """
    why = missing()
    if why:
        pytest.skip(why)
    home = tmp_path_factory.mktemp("h")
    project = home / "project"
    project.mkdir()
    (project / "README.md").write_text("# Marmot\n\nCounts marmots.\n")
    (project / "marmot.py").write_text("def count(herd):\n    return len(herd)\n")
    with foreign_server(home) as foreign, relay(foreign.url) as between:
        server = Server(home).start()
        made = Place(foreign, between, server, project)
        try:
            yield made
            assert made.refused() == []
        finally:
            server.kill()


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.id)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """One protocol after the other."""
    found: Dialect = request.param
    return found
