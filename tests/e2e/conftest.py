"""One server process per test, on a fresh data directory; it is gone when the test ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit import Server


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home with a short path, so that a socket fits below it."""
    return tmp_path_factory.mktemp("h")


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    """A running server."""
    server = Server(home).start()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


@pytest.fixture
def project(home: Path) -> Path:
    """A small project directory."""
    project = home / "project"
    project.mkdir()
    (project / "README.md").write_text("# Marmot\n\nCounts marmots.\n")
    (project / "marmot.py").write_text("def count(herd):\n    return len(herd)\n")
    return project
