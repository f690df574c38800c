"""Change fragments have the names and the shape that changes/README.md asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHANGES = Path(__file__).parent.parent / "changes"
FRAGMENTS = sorted(path for path in CHANGES.iterdir() if path.name != "README.md")


@pytest.mark.parametrize("path", FRAGMENTS, ids=lambda path: path.name)
def test_a_fragment_is_named_for_its_kind_and_says_a_sentence_or_three(path: Path) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*\.(feature|fix|change)\.md", path.name)
    text = path.read_text("utf-8")
    assert text.endswith(".\n")
    assert not text.startswith("#")
    assert 20 < len(text) < 800
