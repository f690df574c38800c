"""``docs/threats.md`` against the tests: every row has a defence, and tests that show it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parent.parent
LIST = ROOT / "docs" / "threats.md"

_ROW = re.compile(r"\| (T\d+) \| (.+?) \| (.*?) \|(.*)\|")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@attrs.frozen
class Threat:
    """A row of the list."""

    id: str
    attempt: str
    defence: str
    tests: tuple[tuple[str, str], ...]


def read_list() -> list[Threat]:
    """Every row of the list, in its order."""
    return [
        Threat(match[1], match[2], match[3].strip(), tuple(_TEST.findall(match[4])))
        for line in LIST.read_text("utf-8").splitlines()
        if (match := _ROW.fullmatch(line))
    ]


THREATS = read_list()


@functools.cache
def named_in(path: str) -> frozenset[str]:
    """Names of the test functions and classes of one file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, kinds) and node.name.startswith(("test_", "Test"))
    )


def test_the_list_is_read_whole() -> None:
    rows = [line for line in LIST.read_text("utf-8").splitlines() if line.startswith("| T")]
    assert len(THREATS) == len(rows) >= 30
    assert len({threat.id for threat in THREATS}) == len(THREATS)


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: str(threat.id))
def test_every_threat_has_a_defence_and_tests_that_exist(threat: Threat) -> None:
    assert threat.defence
    assert threat.tests, f"{threat.id} names no test"
    missing = [
        f"{path}::{name}"
        for path, name in threat.tests
        if not (ROOT / path).is_file() or name not in named_in(path)
    ]
    assert not missing
