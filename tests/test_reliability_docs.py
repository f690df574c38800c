"""docs/reliability.md names what there is: scenarios, mutants, and the ids that checks report."""

from __future__ import annotations

import re
from pathlib import Path

from tests.explore.scenarios import SCENARIOS
from tests.mutants.mutant import read_mutants

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")


def test_every_scenario_is_listed_with_its_own_words() -> None:
    listed = dict(re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", PAGE, re.MULTILINE))
    written = {name: (each.script.__doc__ or "").strip() for name, each in SCENARIOS.items()}
    assert listed == written


def test_the_mutants_are_counted() -> None:
    assert f"There are {len(read_mutants())} of them" in PAGE


def test_every_rule_that_a_check_reports_is_explained() -> None:
    explained = set(re.findall(r"^\| (I\d+) \|", PAGE, re.MULTILINE))
    sources = [*(ROOT / "tests" / "explore").glob("*.py"), *(ROOT / "tests" / "chaos").glob("*.py")]
    reported = {
        rule
        for source in sources
        for rule in re.findall(r"[\"'](I\d+):", source.read_text("utf-8"))
    }
    assert reported <= explained
    assert reported
