"""The mutants fit the code as it is; `scripts/mutants` shows that the tests notice them."""

from __future__ import annotations

import re

import pytest

from tests.mutants.mutant import ROOT, Mutant, StaleMutant, read_mutants

MUTANTS = read_mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_once_and_is_still_a_program(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text("utf-8")
    compile(mutant.applied_to(source), mutant.file, "exec")
    assert mutant.applied_to(source) != source
    assert mutant.title
    assert mutant.origin


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_must_notice_a_mutant_exists(mutant: Mutant) -> None:
    assert mutant.killed_by
    for test in mutant.killed_by:
        if test.startswith("explore:"):
            continue
        file, _, name = test.partition("::")
        source = (ROOT / file).read_text("utf-8")
        wanted = name.partition("[")[0]
        assert re.search(rf"def {wanted}\(", source), test


def test_a_mutant_whose_text_is_gone_is_named_as_stale() -> None:
    mutant = Mutant("x", "t", "o", "f.py", "gone", "here", ("a::b",))
    with pytest.raises(StaleMutant, match="occurs 0 times"):
        mutant.applied_to("something else")
