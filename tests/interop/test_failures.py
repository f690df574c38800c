"""Failures of a model server that was not written here: what a run makes of each, per protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from tests.e2e.kit import Json, is_end_of
from tests.interop.conftest import WRONG_KEY, Place
from tests.interop.foreign import DIALECTS, Dialect
from tests.interop.test_answers import STORY

TOLD = f"{STORY} And then they come back, one by one, and go on as if nothing had been."
OK: Json = {"response": {"content": TOLD}}
USUAL_S = (3.75, 5.0)  # the first wait of our own (CW 5.6)
ASKED_S = (1.0, 1.3)  # after `retry-after: 1`


def error(status: int, message: str, **more: Any) -> Json:
    """An answer that is an error, in the words of whichever protocol it is asked in."""
    given = {key: more.pop(key) for key in ("retryAfter",) if key in more}
    return {"response": {"error": {"message": message, **more}, "status": status, **given}}


FINAL: dict[str, tuple[Json, str, bool]] = {
    "wrong key": (OK, "provider_auth", False),  # which the foreign server finds out by itself
    "forbidden": (error(403, "Not yours", type="permission_error"), "provider_auth", False),
    "no such model": (
        error(404, "The model does not exist", type="not_found_error", code="model_not_found"),
        "model_not_found",
        False,
    ),
    "no money": (
        error(
            429,
            "You exceeded your current quota",
            type="insufficient_quota",
            code="insufficient_quota",
        ),
        "quota_exceeded",
        False,
    ),
    "invalid": (
        error(400, "Unsupported", type="invalid_request_error"),
        "provider_refused",
        False,
    ),
    "filtered": (
        {"response": {"content": TOLD, "finishReason": "content_filter"}},
        "content_filtered",
        False,
    ),
}
"""The answer, the run's error code, and its ``retryable``; nothing is asked again."""


PASSING: dict[str, tuple[Json, tuple[float, float]]] = {
    "slow down": (error(429, "Slow down", type="rate_limit_error", retryAfter=1), ASKED_S),
    "slow down at random": (OK | {"chaos": {"rateLimitRate": 1}}, ASKED_S),
    "internal": (error(500, "Oops", type="server_error"), USUAL_S),
    "dropped": (OK | {"chaos": {"dropRate": 1}}, USUAL_S),
    "busy": (error(503, "Busy", type="overloaded_error"), USUAL_S),
    "overloaded": (error(529, "Overloaded", type="overloaded_error"), USUAL_S),
    "garbage": (OK | {"chaos": {"malformedRate": 1}}, USUAL_S),
    "cut after pieces": (OK | {"truncateAfterChunks": 14, "latency": 60}, USUAL_S),
    "cut after a time": (OK | {"disconnectAfterMs": 500, "latency": 60}, USUAL_S),
}
"""The first answer, and how long may be waited before the second, which is whole."""


def unspeakable(name: str, dialect: Dialect) -> bool:
    """Whether the foreign server has no answer of this kind in this protocol."""
    return name == "filtered" and dialect.id == "responses"


@attrs.frozen
class Ended:
    """A run that is over: its record, and everything a subscriber was sent."""

    record: Json
    frames: Sequence[Json]
    asked: int

    @property
    def retries(self) -> list[Json]:
        """Its retries."""
        return [each["payload"]["payload"] for each in self.frames if each["type"] == "retry"]


@pytest.fixture(scope="session")  # tests that are handed out to workers may come back to a module
def troubles(place: Place) -> dict[tuple[str, str], Ended]:
    """Every failure in every protocol, all at once, because each waits before it asks again."""
    place.configure(DIALECTS[0])
    workspace = place.server.workspace(place.project)
    answers = {name: each[0] for name, each in FINAL.items()}
    answers |= {name: each[0] for name, each in PASSING.items()}
    answers["gone"] = OK | {"chaos": {"disconnectRate": 1}}
    runs: dict[str, tuple[str, str]] = {}
    with place.server.stream(workspace, "after=now") as stream:
        for dialect in DIALECTS:
            for name, answer in answers.items():
                prompt = f"<{name} of {dialect.id}>"
                if name == "filtered" and dialect.id == "claude":
                    answer = {"response": {"content": TOLD, "finishReason": "refusal"}}
                if unspeakable(name, dialect):
                    continue
                place.teach(prompt, answer, OK)
                session = place.server.session(workspace)
                provider = f"{dialect.id}-locked" if name == "wrong key" else dialect.id
                model = f"{provider}/{dialect.model}"
                receipt = place.server.prompt(workspace, session, prompt, model=model)
                runs[receipt["run_id"]] = (name, dialect.id)
        for _ in runs:
            stream.until(lambda frame: any(is_end_of(frame, run) for run in runs))
    told: dict[str, list[Json]] = {run: [] for run in runs}
    for frame in stream.seen:
        payload = frame.get("payload", {}).get("payload", frame)
        told.get(payload.get("run_id", ""), []).append(frame)
    by_id = {each.id: each for each in DIALECTS}
    return {
        (name, of): Ended(
            place.server.record(run),
            told[run],
            len(place.bodies(f"<{name} of {of}>", by_id[of])),
        )
        for run, (name, of) in runs.items()
    }


@pytest.mark.parametrize(
    ("name", "of"),
    [(name, each.id) for name in FINAL for each in DIALECTS if not unspeakable(name, each)],
)
def test_what_asking_again_cannot_mend_ends_the_run_at_once(
    troubles: dict[tuple[str, str], Ended], name: str, of: str
) -> None:
    run = troubles[name, of]
    assert run.record["outcome"] == "failed"
    failure = run.record["error"]
    assert (failure["code"], failure["retryable"]) == FINAL[name][1:]
    assert (run.retries, run.asked) == ([], 1)


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_asked_again_after_a_while(
    troubles: dict[tuple[str, str], Ended], dialect: Dialect, name: str
) -> None:
    run = troubles[name, dialect.id]
    assert (run.record["outcome"], run.record["text"]) == ("completed", TOLD)
    (retry,) = run.retries
    least, most = PASSING[name][1]
    assert least <= retry["delay_s"] <= most
    assert (retry["attempt"], run.asked) == (1, 2)


def test_a_connection_that_breaks_before_the_answer_is_made_again(
    troubles: dict[tuple[str, str], Ended], dialect: Dialect
) -> None:
    """A kept one may have been closed by the server meanwhile, so that is no failure yet."""
    run = troubles["gone", dialect.id]
    assert (run.record["outcome"], run.record["text"]) == ("completed", TOLD)
    assert run.asked == 2
    assert len(run.retries) <= 1


def test_what_came_before_a_break_is_taken_back(
    troubles: dict[tuple[str, str], Ended], dialect: Dialect
) -> None:
    """R51: whoever applies what comes holds half a story, then nothing, then the whole."""
    held, before = "", ""
    for frame in troubles["cut after pieces", dialect.id].frames:
        if frame["type"] == "retry":
            assert held == ""
        elif frame["type"] == "message_delta":
            assert frame["offset"] == len(held)
            held += frame["text"]
        elif frame["type"] == "message" and frame["payload"]["payload"]["role"] == "assistant":
            before = before or held
            parts = frame["payload"]["payload"]["parts"]
            held = "".join(each["data"]["text"] for each in parts if each["type"] == "text")
    assert 0 < len(before) < len(TOLD)
    assert TOLD.startswith(before)
    assert held == TOLD


def test_a_wrong_key_is_one_sentence_and_exit_4(place: Place) -> None:
    """G13, G14: it says what to do, and shows no key."""
    place.configure(DIALECTS[0])
    model = f"claude-locked/{DIALECTS[2].model}"
    done = place.server.cli("run", "-m", model, "Hi", cwd=place.project)
    assert (done.returncode, done.stdout) == (4, "")
    assert "check CLAUDE_LOCKED_API_KEY" in done.stderr
    assert WRONG_KEY not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
