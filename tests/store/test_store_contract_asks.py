"""Requests to a person and grants: both stores alike."""

from __future__ import annotations

import attrs
import pytest

from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.ids import RunId, SessionId, WorkspaceId
from crush_trio.protocol.questions import Choice, Question, QuestionRequest
from crush_trio.protocol.sessions import Session
from crush_trio.store.contract import AskRow, ConstraintError, Grant, Transaction, without_details
from tests.store.conftest import Bench
from tests.store.samples import S, W, founding, run_row

PERMISSION = PermissionRequest(
    "p", S, "call", "bash", "Execute command: ls", "execute", {"command": "ls"}, "/w"
)
QUESTION = QuestionRequest(
    "q", S, "call", (Question("q-1", "single_choice", "Which?", choices=(Choice("a", "A"),)),)
)
GRANT = Grant("bash", "execute", "/w")


def asked(name: str = "p", *, run: str = "r", session: SessionId = S) -> AskRow:
    """A permission request that waits."""
    request = attrs.evolve(PERMISSION, id=name, session_id=session)
    return AskRow(
        name, "permission", W, session, RunId(run), request, created_at_ms=7, deadline_s=45.0
    )


async def test_a_request_is_read_back_as_it_was_until_it_has_ended(bench: Bench) -> None:
    """I25: what waits can be found by whoever comes later, with all that was shown."""
    permission, question = asked(), AskRow("q", "question", W, S, RunId("r"), QUESTION, 8)
    await bench.commit(lambda tx: tx.insert_run(run_row("r")))
    for row in (permission, question):
        await bench.commit(lambda tx, row=row: tx.put_ask(row))
    assert await bench.store.pending_asks() == (permission, question)
    assert await bench.store.pending_asks(WorkspaceId("other")) == ()
    assert await bench.commit(lambda tx: tx.pending_asks(RunId("r"))) == (permission, question)
    assert await bench.commit(lambda tx: tx.pending_asks(RunId("x"))) == ()
    ended = attrs.evolve(
        permission,
        request=without_details(permission.request),
        ending="denied",
        decided_by="me",
        decided_at_ms=9,
    )
    await bench.commit(lambda tx: tx.put_ask(ended))
    assert await bench.store.pending_asks(W) == (question,)
    assert await bench.store.ask("p") == ended
    assert await bench.store.ask("nobody") is None


async def test_a_request_ends_once(bench: Bench) -> None:
    """I27: by the schema, whatever the code above it does."""
    ended = attrs.evolve(asked(), ending="withdrawn")
    await bench.commit(lambda tx: tx.put_ask(asked()))
    await bench.commit(lambda tx: tx.put_ask(ended))
    with pytest.raises(ConstraintError):
        await bench.commit(lambda tx: tx.put_ask(attrs.evolve(ended, ending="allowed")))
    assert await bench.store.ask("p") == ended


async def test_grants_and_requests_go_with_their_session(bench: Bench) -> None:
    """I30: a grant never outlives what it was given for."""

    def fill(tx: Transaction) -> None:
        tx.put_session(Session(SessionId("other")))
        tx.put_ask(asked())
        tx.add_grant(S, GRANT)
        tx.add_grant(S, GRANT)
        tx.add_grant(SessionId("other"), attrs.evolve(GRANT, path="/elsewhere"))

    await bench.commit(fill)
    assert await bench.store.grants(S) == {GRANT}
    narrow = attrs.evolve(GRANT, scope="command:ls")
    for by in ("ana", "ben"):  # who was first stays named
        given = attrs.evolve(narrow, by=by, at_ms=7)
        await bench.commit(lambda tx, given=given: tx.add_grant(S, given))
    assert await bench.store.grants(S) == {GRANT, narrow}
    assert {grant.by for grant in await bench.store.grants(S)} == {"", "ana"}
    for _ in range(2):
        await bench.commit(lambda tx: tx.remove_grant(S, narrow))
    assert await bench.store.grants(S) == {GRANT}
    await bench.commit(lambda tx: tx.remove_session(S))
    assert await bench.store.grants(S) == frozenset()
    assert await bench.store.ask("p") is None
    assert len(await bench.store.grants(SessionId("other"))) == 1
    await bench.commit(lambda tx: tx.remove_workspace())
    await bench.commit(founding)
    assert await bench.store.grants(SessionId("other")) == frozenset()
    for write in (lambda tx: tx.put_ask(asked(session=SessionId("gone"))),
                  lambda tx: tx.add_grant(SessionId("gone"), GRANT)):  # fmt: skip
        with pytest.raises(ConstraintError):
            await bench.commit(write)


async def test_a_snapshot_has_the_requests_of_its_session_and_those_below(bench: Bench) -> None:
    def fill(tx: Transaction) -> None:
        tx.put_session(Session(SessionId("below"), parent_session_id=S))
        tx.put_session(Session(SessionId("beside")))
        for name in (S, "below", "beside"):
            tx.put_ask(asked(f"p-{name}", session=SessionId(name)))

    await bench.commit(fill)

    async def seen(session: str | None) -> list[str]:
        wanted = SessionId(session) if session else None
        rows = await bench.store.snapshot(W, wanted, messages=9, before=None)
        return [row.id for row in rows.asks]

    assert await seen(None) == [f"p-{S}", "p-below", "p-beside"]
    assert await seen(S) == [f"p-{S}", "p-below"]
    assert await seen("beside") == ["p-beside"]
