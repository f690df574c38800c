"""The small behaviour the protocol's words have: ids, messages, records, errors."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from crush_trio.limits import RUN_ID_MAX_CHARS
from crush_trio.protocol import errors, ids, runs
from crush_trio.protocol import messages as m

RECORD: Any = runs.RunRecord(
    id=ids.RunId("r"),
    workspace_id=ids.WorkspaceId("w"),
    session_id=ids.SessionId("s"),
    prompt="p",
    accept_seq=1,
    created_at_ms=2,
    text="the answer",
)


def finished(outcome: runs.Outcome, **more: Any) -> runs.RunRecord:
    changed: runs.RunRecord = attrs.evolve(RECORD, outcome=outcome, **more)
    return changed


@pytest.mark.parametrize("text", ["a", "A.b_c:d-9", "x" * RUN_ID_MAX_CHARS])
def test_letters_digits_and_four_signs_make_a_run_id(text: str) -> None:
    assert ids.is_run_id(text)


@pytest.mark.parametrize("text", ["", "x" * (RUN_ID_MAX_CHARS + 1), "a b", "a\n", "é", "a/b", "٣"])
def test_anything_else_is_no_run_id(text: str) -> None:
    assert not ids.is_run_id(text)


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("3c0e9f62-3a1b-4f7a-8c55-0a4f6d1c9e77", True),
        ("3C0E9F62-3A1B-4F7A-8C55-0A4F6D1C9E77", True),
        ("3c0e9f62-3a1b-4f7a-8c55-0a4f6d1c9e7", False),
        ("3c0e9f62-3a1b-4f7a-8c55-0a4f6d1c9e77\n", False),
        ("me", False),
        ("", False),
    ],
)
def test_a_client_of_crushs_protocol_is_named_by_a_uuid(text: str, may: bool) -> None:
    """R20."""
    assert ids.is_client_id(text) is may


def test_a_new_id_is_a_run_id_and_never_the_same() -> None:
    first, second = ids.new_id(), ids.new_id()
    assert first != second
    assert ids.is_run_id(first)


def test_a_message_gives_its_text_calls_results_and_finish_in_order() -> None:
    call, result = m.ToolCallPart("c", "view", "{}"), m.ToolResultPart("c", "view", "1")
    end = m.FinishPart("end_turn", 7)
    parts = (m.TextPart("a"), call, m.TextPart("b"), result, end)
    message = m.Message(ids.MessageId("m"), "assistant", ids.SessionId("s"), parts)
    assert message.text() == "ab"
    assert message.tool_calls() == (call,)
    assert message.tool_results() == (result,)
    assert message.finish() is end


def test_a_message_without_a_finish_part_is_open() -> None:
    message = m.Message(ids.MessageId("m"), "assistant", ids.SessionId("s"), (m.TextPart("a"),))
    assert message.finish() is None


def test_usage_adds_up_field_by_field() -> None:
    assert runs.Usage(1, 2, 3, 4).plus(runs.Usage(10, 20, 30, 40)) == runs.Usage(11, 22, 33, 44)


@pytest.mark.parametrize("outcome", [runs.Outcome.COMPLETED, runs.Outcome.STEERED])
def test_a_good_ending_has_no_error(outcome: runs.Outcome) -> None:
    ending = runs.run_complete(finished(outcome))
    assert (ending.error, ending.cancelled, ending.text) == ("", False, "the answer")


def test_a_failed_ending_says_the_sentence_and_its_code() -> None:
    error = runs.RunError("provider_error", "The provider broke off.", retryable=True)
    ending = runs.run_complete(finished(runs.Outcome.FAILED, error=error))
    assert (ending.error, ending.error_detail, ending.cancelled) == (error.message, error, False)


def test_a_cancelled_ending_says_what_crush_says() -> None:
    ending = runs.run_complete(finished(runs.Outcome.CANCELLED, message_id=ids.MessageId("m")))
    assert (ending.error, ending.cancelled, ending.message_id) == ("context canceled", True, "m")


def test_a_record_without_an_outcome_has_no_ending() -> None:
    with pytest.raises(ValueError, match="run r has no outcome"):
        runs.run_complete(RECORD)


def test_the_run_event_leaves_the_answer_out_and_nothing_else() -> None:
    assert runs.without_text(RECORD).text == ""
    assert runs.without_text(RECORD).prompt == RECORD.prompt


@pytest.mark.parametrize("code", errors.STATUS)
def test_every_code_is_an_error_status_and_says_whether_to_try_again(code: str) -> None:
    refused = errors.Refused(code, "Do it differently.")
    assert 400 <= refused.status < 600
    assert refused.retryable is (code in errors.RETRYABLE)
    assert str(refused) == refused.message == "Do it differently."


def test_only_known_codes_are_retryable() -> None:
    assert set(errors.STATUS) >= errors.RETRYABLE


def test_a_store_error_carries_its_code() -> None:
    error = errors.StoreError("disk_full", "No space is left for store.db.")
    assert (error.code, error.message, str(error)) == ("disk_full", error.message, error.message)
