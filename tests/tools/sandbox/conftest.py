"""The mechanisms that this machine has, and a world for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.sandbox.place import MECHANISMS, World, demand, made_world

REPLACED = ("/tmp", "/var/tmp", "/run", "/var/run")
"""Where a sandbox has directories of its own: nothing outside it can be tried there."""


def place() -> Path:
    """A directory for worlds that a sandboxed command finds where it is."""
    for choice in (Path.home(), Path(__file__).parent, *map(Path, ("/srv", "/opt", "/var/lib"))):
        real = choice.resolve()
        if os.access(real, os.W_OK) and not any(map(real.is_relative_to, REPLACED)):
            return real
    pytest.skip("there is no directory to write in but those for temporary files")


@pytest.fixture
def world() -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix=".crush-trio-test-", dir=place()))
    try:
        with made_world(root.resolve()) as world:
            yield world
    finally:
        shutil.rmtree(root)


@pytest.fixture(params=MECHANISMS)
def mechanism(request: pytest.FixtureRequest) -> str:
    """One that works here; the other is skipped with its reason."""
    name: str = request.param
    demand(name)
    return name
