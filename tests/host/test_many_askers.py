"""Several clients and several sessions that wait, in every order; and every race of two endings."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import permutations, product
from typing import Any

import attrs
import orjson
import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.journal.reader import JournalReader
from crush_trio.protocol.requests import Resolution
from crush_trio.protocol.runs import Outcome
from crush_trio.store.contract import AskRow
from tests.host.asker import Asker
from tests.host.world import ME, World, next_start, quiet


@pytest.fixture
async def asker(world: World) -> Asker:
    """A world whose tools ask."""
    return Asker(world)


@attrs.define(eq=False)
class Client:
    """A subscriber with a name and a cursor: it may come and go, and answers what it was shown."""

    name: str
    world: World
    cursor: int
    seen: list[dict[str, Any]] = attrs.field(factory=list)
    _reader: JournalReader | None = None

    async def read(self) -> None:
        """Take in everything there is."""
        if self._reader is None:
            feed = self.world.workspace.feed
            self._reader = JournalReader(self.world.store, feed, cursor=self.cursor)
        while batch := await self._reader.next_batch(0.001):
            for frame in (orjson.loads(entry.data) for entry in batch):
                self.cursor = frame.get("seq", self.cursor)
                self.seen.append(frame)

    def leave(self) -> None:
        """Lose the connection, not the cursor."""
        if self._reader is not None:
            self._reader.__exit__(None, None, None)
        self._reader = None

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The payloads of this kind, in order."""
        return [f["payload"]["payload"] for f in self.seen if f["type"] == kind]


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
async def test_three_sessions_are_answered_in_any_order_by_either_of_two_clients(
    clock: MockClock, world: World, asker: Asker, order: tuple[int, ...]
) -> None:
    """R68, R72, I25, I28: one of them is away meanwhile, and misses and repeats nothing."""
    sessions = [world.session, await world.new_session(), await world.new_session()]
    for who in product(("ana", "ben"), repeat=3):
        last = await world.store.last_seq(world.workspace.id)
        ana, ben = clients = [Client(name, world, last) for name in ("ana", "ben")]
        asked = [await asker.ask(session=session) for session in sessions]
        for client in clients:
            await client.read()
            shown = [request["id"] for request in client.told("permission_request")]
            assert shown == [row.id for _, row in asked]
        ben.leave()
        for turn, (at, name) in enumerate(zip(order, who, strict=True)):
            run, row = asked[at]
            assert (await asker.answer(row, by=name)).resolved
            assert (await asker.ended(run)).outcome is Outcome.COMPLETED
            late = await asker.answer(row, "deny", by="ana" if name == "ben" else "ben")
            assert (late.resolved, late.ending, late.decided_by) == (False, "allowed", name)
            rows = await world.store.snapshot(world.workspace.id, None, messages=0, before=None)
            assert {ask.id for ask in rows.asks} == {asked[i][1].id for i in order[turn + 1 :]}
            await ana.read()
            if turn == 1:
                await ben.read()
        for client in clients:
            await client.read()
            ends = [(n["request_id"], n["granted"]) for n in client.told("permission_notification")]
            assert ends == [(asked[at][1].id, True) for at in order]
            assert len(client.told("permission_request")) == 3
            client.leave()


Act = Callable[[Asker, AskRow], Awaitable[Resolution | None]]


def answers(action: str, by: str) -> Act:
    """Somebody's answer."""

    async def act(asker: Asker, row: AskRow) -> Resolution:
        return await asker.answer(row, action, by)

    return act


async def cancels(asker: Asker, row: AskRow) -> None:
    asker.world.session.cancel(ME)
    await trio.lowlevel.checkpoint()


async def expires(asker: Asker, row: AskRow) -> None:
    await trio.sleep(limits.ASK_DEADLINE_S + 1)


LATER = int(os.environ.get("CRUSH_TRIO_LATE_ANSWERS", "1"))
"""How many endings come after the first; each one more takes five times as long."""
ACTS: dict[str, tuple[Act, str, str]] = {
    "allow": (answers("allow", "ana"), "allowed", "ana"),
    "session": (answers("allow_session", "ben"), "allowed_session", "ben"),
    "deny": (answers("deny", "cleo"), "denied", "cleo"),
    "cancel": (cancels, "withdrawn", "me"),
    "expire": (expires, "expired", "server"),
}


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
@pytest.mark.parametrize("first", ACTS)
async def test_a_request_ends_once_whatever_comes_and_who_is_late_is_told_by_whom(
    clock: MockClock, world: World, asker: Asker, first: str, at_once: bool
) -> None:
    """I27: every few endings, one after the other or before any of them is stored."""
    for others in product(ACTS, repeat=LATER):
        world.workspace = await world.host.by_path(world.path)  # it may have closed meanwhile
        world.session = await world.new_session()
        asker.done.clear()
        run, row = await asker.ask()
        _, ending, by = ACTS[first]
        said: list[tuple[int, Resolution | None]] = []

        async def act(number: int, name: str, row: AskRow = row, said: Any = said) -> None:
            said.append((number, await ACTS[name][0](asker, row)))

        async with trio.open_nursery() as nursery:
            if at_once:
                if first == "expire":
                    await trio.sleep(limits.ASK_DEADLINE_S - 1)
                world.store.pause()
            for number, name in enumerate((first, *others)):
                nursery.start_soon(act, number, name)
                await quiet()
                if name == "expire":
                    await trio.sleep(limits.ASK_DEADLINE_S + 2)
                elif not at_once:
                    await trio.sleep(1)
            world.store.resume()
        record = await asker.ended(run)
        stored = await world.store.ask(row.id)
        assert stored is not None
        assert (stored.ending, stored.decided_by) == (ending, by), others
        told = await asker.answer(row, "allow", "late")
        assert (told.resolved, told.ending, told.decided_by) == (False, ending, by)
        for number, answer in said:
            if answer is not None:
                assert answer.resolved == (number == 0), (first, others)
                assert answer.ending == ending
                assert answer.decided_by == by
        grants = await world.store.grants(world.session.id)
        assert bool(grants) == (ending == "allowed_session")
        assert len(asker.done) <= (ending in ("allowed", "allowed_session"))
        if ending in ("denied", "expired"):
            assert record.outcome in (Outcome.DENIED, Outcome.CANCELLED)
    await world.check()


@pytest.mark.parametrize("first", [None, *ACTS], ids=str)
async def test_a_restart_ends_what_waits_and_nothing_that_had_ended(
    clock: MockClock, world: World, asker: Asker, first: str | None
) -> None:
    """G1, I25: withdrawn at the next start, unless somebody was faster."""
    run, row = await asker.ask()
    ending, by = "withdrawn", "server"
    if first is not None:
        act, ending, by = ACTS[first]
        await act(asker, row)
        await asker.ended(run)
    async with AsyncExitStack() as starts:
        later = world
        for _ in range(2):
            later = await starts.enter_async_context(next_start(later))
            again = Asker(later)
            assert len(await again.notices()) == 1
            late = await again.answer(row)
            assert (late.resolved, late.ending, late.decided_by) == (False, ending, by)
            assert await later.store.pending_asks() == ()
    if first is None:
        world.session.cancel(ME)
        await asker.ended(run)
    assert bool(await world.store.grants(world.session.id)) == (first == "session")
