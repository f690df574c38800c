"""Settings every test shares: how hard Hypothesis tries, and that nothing is left running."""

from __future__ import annotations

import hypothesis

from tests.leftovers import pytest_sessionfinish, pytest_sessionstart, pytest_terminal_summary

# Hooks are found by their names in a conftest.
__all__ = ["pytest_sessionfinish", "pytest_sessionstart", "pytest_terminal_summary"]

# The same examples each time, so that a red run is about the change and branch coverage does not
# move; `--hypothesis-profile=thorough` draws fresh ones and many more. A shared machine may stop
# any example for seconds, so none has a deadline of its own: pytest-timeout bounds the test.
hypothesis.settings.register_profile("quick", max_examples=20, deadline=None, derandomize=True)
hypothesis.settings.register_profile("thorough", max_examples=500, deadline=None)
hypothesis.settings.load_profile("quick")
