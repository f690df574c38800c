"""The frozen table of exit codes (G13)."""

from __future__ import annotations

import pytest

from crush_trio.cli.exit_codes import (
    CONFIGURATION_CODES,
    TABLE,
    epilog,
    exit_code,
    refusal_exit_code,
    signal_exit_code,
)
from crush_trio.protocol.errors import STATUS
from crush_trio.protocol.runs import Outcome

FROZEN = {
    "completed": 0, "failed": 1, "denied": 3, "cancelled": 5, "limited": 6, "lost": 9,
}  # fmt: skip


def test_every_outcome_has_its_own_code() -> None:
    assert {outcome: exit_code({"outcome": outcome}) for outcome in FROZEN} == FROZEN
    assert set(FROZEN) | {"steered"} == {str(outcome) for outcome in Outcome}


@pytest.mark.parametrize("record", [{}, {"outcome": None}, {"outcome": "new"}, {"outcome": []}])
def test_an_outcome_of_a_later_version_is_never_a_success(record: dict[str, object]) -> None:
    assert exit_code(record) == 1


@pytest.mark.parametrize("code", sorted(CONFIGURATION_CODES))
def test_what_the_user_cures_in_a_configuration_is_4(code: str) -> None:
    assert exit_code({"outcome": "failed", "error": {"code": code}}) == 4
    assert refusal_exit_code(400, code) == 4


def test_an_error_code_changes_nothing_about_other_outcomes() -> None:
    assert exit_code({"outcome": "cancelled", "error": {"code": "no_language_model"}}) == 5
    assert exit_code({"outcome": "failed", "error": {"code": "provider_error"}}) == 1
    assert exit_code({"outcome": "failed", "error": "text"}) == 1


def test_every_refusal_of_the_contract_has_a_code_that_fits() -> None:
    found = {code: refusal_exit_code(status, code) for code, status in STATUS.items()}
    assert found["run_not_found"] == found["session_not_found"] == found["bad_request"] == 2
    assert found["session_busy"] == found["queue_full"] == found["overloaded"] == 8
    assert found["unauthorized"] == found["forbidden"] == found["unknown_model"] == 4
    assert found["server_stopping"] == found["store_failed"] == 7
    assert found["internal"] == found["disk_full"] == 1
    assert set(found.values()) <= {1, 2, 4, 7, 8}


def test_a_code_this_version_does_not_know_goes_by_its_status() -> None:
    assert [refusal_exit_code(status, "new") for status in (400, 401, 404, 429, 500)] == [
        2, 4, 2, 8, 1,
    ]  # fmt: skip


def test_signals_count_as_shells_count_them() -> None:
    assert [signal_exit_code(number) for number in (2, 15, 1)] == [130, 143, 129]


def test_the_help_shows_every_code() -> None:
    assert [code for code, _ in TABLE] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 124, 141, 130]
    assert all(f"{code}  {meaning}" in epilog() for code, meaning in TABLE)
