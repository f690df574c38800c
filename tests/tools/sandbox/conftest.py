"""The mechanisms that this machine has, and a world for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.sandbox.place import MECHANISMS, World, demand, made_world


@pytest.fixture
def world() -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix=".crush-trio-test-", dir=Path.home()))
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
