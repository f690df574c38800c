"""A server for the tests of the command line that need one, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.live import Shell, make_shell


@pytest.fixture
def lone_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands without a server; what they start is stopped afterwards."""
    shell = make_shell(tmp_path_factory.mktemp("ct"))
    yield shell
    if shell.data.exists():
        shell.run("stop")


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Commands beside a running server that was started by hand."""
    found = make_shell(tmp_path_factory.mktemp("ct"))
    with found.serving():
        yield found
