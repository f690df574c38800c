"""``docs/behaviours.md`` against the tests, in both directions."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

TESTS = Path(__file__).parent
LIST = TESTS.parent / "docs" / "behaviours.md"
IDS = [*(f"G{n}" for n in range(1, 15)), *(f"R{n}" for n in range(1, 74))]

_ROW = re.compile(r"\| ([GR]\d+) \| (.+?) \| (.+?) \|(.*)\|")
_ID = re.compile(r"\b[GR][1-9]\d*\b")
_STATUS = re.compile(r"kept|replaced by (G\d+)|(?:dropped|later): \S.*")

_DEFINITION = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@attrs.frozen
class Behaviour:
    """A row of the list: one id, and what becomes of it."""

    id: str
    sentence: str
    status: str
    files: tuple[str, ...]


def read_list() -> list[Behaviour]:
    """Every row of the list, in its order."""
    return [
        Behaviour(match[1], match[2], match[3].strip(), tuple(re.findall(r"`([^`]+)`", match[4])))
        for line in LIST.read_text("utf-8").splitlines()
        if (match := _ROW.fullmatch(line))
    ]


def _is_test(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Test functions, classes of them, and Hypothesis' state machines; not kits and fakes."""
    if isinstance(node, ast.ClassDef):
        return node.name.startswith("Test") or any(
            ast.unparse(base).endswith("StateMachine") for base in node.bases
        )
    return node.name.startswith("test_")


def mentions_in(source: str) -> Iterator[str]:
    """Ids in docstrings and comments of the test functions and classes of one file."""
    spans: list[tuple[int, int]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DEFINITION) and _is_test(node):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            spans.append((first, node.end_lineno or first))
            yield from _ID.findall(ast.get_docstring(node) or "")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT and any(a <= line <= b for a, b in spans):
            yield from _ID.findall(token.string)


def mentions() -> dict[str, set[str]]:
    """Ids that tests name, with the files (below ``tests``) that do."""
    found: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        if path != Path(__file__):
            for each in mentions_in(path.read_text("utf-8")):
                found.setdefault(each, set()).add(str(path.relative_to(TESTS)))
    return found


def test_the_list_has_one_well_formed_row_for_every_guarantee_and_rule() -> None:
    rows = read_list()
    assert [row.id for row in rows] == IDS
    kept = {row.id for row in rows if row.status == "kept"}
    for row in rows:
        status = _STATUS.fullmatch(row.status)
        assert row.sentence.endswith("."), row
        assert status, row
        assert status[1] is None or status[1] in kept, row
    assert {row.id for row in rows if row.id.startswith("G")} <= kept


def test_everything_that_is_kept_has_tests_that_name_it() -> None:
    named = mentions()
    missing = [row.id for row in read_list() if row.status == "kept" and row.id not in named]
    assert missing == []


def test_tests_name_only_what_is_listed() -> None:
    strangers = {each: files for each, files in mentions().items() if each not in IDS}
    assert strangers == {}


def test_the_tests_the_list_points_at_exist_and_name_the_id() -> None:
    named = mentions()
    wrong = [
        (row.id, name)
        for row in read_list()
        for name in row.files
        if name not in named.get(row.id, set())
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('def test_x():\n    """G1 and R52."""\n', ["G1", "R52"]),
        ("async def test_x():\n    y = 1  # R10: said beside the line\n", ["R10"]),
        ("@mark(\n    1,  # G3\n)\ndef test_x(): ...\n", ["G3"]),
        ('class Machine(RuleBasedStateMachine):\n    """G5."""\n', ["G5"]),
        ('class FakeStore:\n    """G8."""\n', []),
        ('"""G1."""\n# G2\ndef helper():\n    """G3."""\n', []),
        ('def test_x():\n    """G0 RG12 R7a G1_2."""\n    text = "G4"\n', []),
    ],
)
def test_an_id_counts_in_docstrings_and_comments_of_tests(source: str, found: list[str]) -> None:
    assert list(mentions_in(source)) == found
