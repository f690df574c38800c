"""A host over a store in memory, and what must be true of it after whatever happened."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import attrs
import orjson
import trio

from crush_trio.agent.closing import text_of
from crush_trio.agent.transcript import is_valid
from crush_trio.host.host import Host, HostOptions, open_host
from crush_trio.host.runs.open_run import OpenRun
from crush_trio.host.session import Session
from crush_trio.host.session_life import create_session
from crush_trio.host.workspace import Workspace
from crush_trio.journal import Journal
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId, new_id
from crush_trio.protocol.messages import FinishPart, Message
from crush_trio.protocol.requests import PromptRequest
from crush_trio.protocol.runs import CancelledBy, RunRecord, RunState, run_complete
from crush_trio.store.contract import Selection, StoredEvent
from crush_trio.store.memory import MemoryStore
from tests.host.fakes import FakeKit

ME = CancelledBy("me")


@attrs.define(eq=False)
class World:
    """One server's inside. `opened` may be entered again: the next start over the same store."""

    path: Path
    kit: FakeKit = attrs.field(factory=FakeKit)
    options: HostOptions = attrs.field(factory=HostOptions)
    journal: Journal = attrs.field(factory=Journal)
    store: MemoryStore = attrs.field(init=False)
    host: Host = attrs.field(init=False)
    workspace: Workspace = attrs.field(init=False)
    session: Session = attrs.field(init=False)
    _names: int = attrs.field(default=0, init=False)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[World]:
        """Start the host; leaving it is an orderly shutdown."""
        if not hasattr(self, "store"):
            self.store = MemoryStore(publish=lambda ws, events: self.journal.publish(ws, events))
        async with open_host(self.store, self.journal, self.kit, self.options) as host:
            self.host = host
            try:
                yield self
            finally:
                self.store.resume()  # a test that failed meanwhile is not to hang

    async def start(self) -> None:
        """Open the workspace and make a session."""
        self.workspace = await self.host.by_path(self.path)
        self.session = await self.new_session()

    async def new_session(self) -> Session:
        """One more session."""
        record = await create_session(self.workspace, "")
        return await self.workspace.session(record.id)

    def submit(
        self,
        prompt: str,
        if_busy: str = "enqueue",
        session: Session | None = None,
        kind: str = "prompt",
        env: Mapping[str, str] | None = None,
        **named: Any,
    ) -> OpenRun:
        """Accept a prompt, or a run of another kind, without waiting; ids count from r1."""
        self._names += 1
        session = session or self.session
        request = PromptRequest(session.id, prompt, if_busy=if_busy, **named)
        return self.workspace.submit(
            session,
            request,
            run_id=RunId(named.get("run_id") or f"r{self._names}"),
            digest=prompt,
            principal="me",
            model=self.kit.fake if kind != "shell" else None,
            kind=kind,
            env=env,
        )

    async def ended(self, *runs: OpenRun) -> list[RunRecord]:
        """Wait until they have ended; their records."""
        for run in runs:
            await run.ended.wait()
        return [await self.record(run.id) for run in runs]

    async def all_ended(self, within_s: float = 30) -> None:
        """Wait until no run is open."""
        with trio.fail_after(within_s):
            while self.host.open_runs:
                await next(iter(self.host.open_runs.values())).ended.wait()

    async def record(self, run_id: str) -> RunRecord:
        """A stored record."""
        row = await self.store.run(RunId(run_id))
        assert row is not None, run_id
        return row.record

    async def events(self, workspace_id: WorkspaceId | None = None) -> list[StoredEvent]:
        """The whole journal of the workspace."""
        found: list[StoredEvent] = []
        wanted = workspace_id or self.workspace.id
        last = await self.store.last_seq(wanted)
        after = 0
        while after < last:
            page = await self.store.events(
                wanted, after=after, upto=last, selection=Selection(), limit=10_000
            )
            found += page.events
            after = page.scanned
        return found

    async def messages(self, session: Session | None = None) -> tuple[Message, ...]:
        """A stored transcript."""
        return await self.store.messages((session or self.session).id)

    async def all_runs(self) -> tuple[RunRecord, ...]:
        """Every record, newest first."""
        return await self.store.runs(workspace_id=self.workspace.id, limit=10_000)

    async def check(self) -> None:
        """Everything that must hold whatever happened; runs may still be open."""
        await quiet()
        events = await self.events()
        seqs = [event.seq for event in events]
        assert seqs == sorted(set(seqs))
        if not any(e.kind == "session" and change(e) == "deleted" for e in events):
            assert seqs == list(range(1, len(seqs) + 1))
        for record in await self.all_runs():
            own = [event for event in events if event.run_id == record.id]
            ends = [event for event in own if event.kind == "run_complete"]
            if record.state is not RunState.FINISHED:
                assert not ends, record
                continue
            assert self.host.open_run(record.id) is None
            if record.deleted:
                continue
            assert len(ends) == 1, record
            assert own[-1] is ends[0], record
            assert (own[0].seq, own[-1].seq) == (record.first_seq, record.last_seq), record
            asked = [payload(e)["tool_call_id"] for e in own if e.kind == "permission_request"]
            ended = [payload(e)["tool_call_id"] for e in own if e.kind.endswith("n_notification")]
            assert asked == ended, "each request of an ended run has ended once"
            told = payload(ends[0])
            expected = run_complete(record)
            assert told["outcome"] == expected.outcome
            assert told.get("text", "") == expected.text
            assert told.get("message_id", "") == expected.message_id
        top = {row.id for row in await self.store.sessions(self.workspace.id)}
        below = {record.session_id for record in await self.all_runs() if not record.deleted}
        for session_id in top | below:
            found = await self.store.session(session_id)
            assert found is not None, session_id
            await self._check_session(session_id, found[1].message_count, events)

    async def _check_session(
        self, session_id: SessionId, count: int, events: list[StoredEvent]
    ) -> None:
        messages = await self.store.messages(session_id)
        by_id = {message.id: message for message in messages}
        runs = {record.id: record for record in await self.all_runs()}
        open_ids = {r.id for r in runs.values() if r.state is RunState.RUNNING}
        closed = [m for m in messages if m.run_id not in open_ids]
        assert is_valid(closed), closed
        assert all(m.finish() is not None for m in closed), closed
        assert len(messages) == count
        events = [e for e in events if e.session_ids[:1] == (session_id,)]
        shown = [e for e in events if e.kind == "session"]
        if not open_ids:
            assert payload(shown[-1]).get("message_count", 0) == count
        created = [
            payload(e)["id"] for e in events if e.kind == "message" and change(e) == "created"
        ]
        deleted = {
            payload(e)["id"] for e in events if e.kind == "message" and change(e) == "deleted"
        }
        stay = [message_id for message_id in created if message_id not in deleted]
        assert sorted(stay) == sorted(by_id), "each message is created once"
        summary = payload(shown[-1]).get("summary_message_id")
        if isinstance(summary, str) and summary in created:
            assert by_id[MessageId(summary)].finish() == FinishPart("end_turn", ANY)
        for record in runs.values():
            if record.session_id == session_id and record.message_id:
                message = by_id[record.message_id]
                if record.state is RunState.FINISHED:
                    assert text_of(message) == record.text, record


async def quiet() -> None:
    """Let everything happen that needs no time, threads included: virtual time waits for them."""
    await trio.sleep(0.001)


def payload(event: StoredEvent) -> dict[str, Any]:
    """The inner payload of an event."""
    found: dict[str, Any] = orjson.loads(event.data)["payload"]["payload"]
    return found


def change(event: StoredEvent) -> str:
    """created, updated or deleted."""
    found: str = orjson.loads(event.data)["payload"]["type"]
    return found


def fresh_id() -> RunId:
    """An id nobody has."""
    return RunId(new_id())


def fork(store: MemoryStore, world: World) -> MemoryStore:
    """What a kill would leave now: the committed state, published into another world."""
    made = MemoryStore(publish=lambda ws, events: world.journal.publish(ws, events))
    for name, table in vars(store._tables).items():
        if name != "undo":
            getattr(made._tables, name).rows = dict(table.rows)
    return made


@asynccontextmanager
async def next_start(before: World, store: MemoryStore | None = None) -> AsyncIterator[World]:
    """The next server, after a kill now; checked when it is left."""
    world = World(before.path, options=before.options)
    world.store = fork(store or before.store, world)
    async with world.opened():
        world.workspace = await world.host.by_path(before.path)
        yield world
        await world.check()
