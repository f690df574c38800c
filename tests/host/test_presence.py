"""Clients' claims in virtual time: holds, graces, releases, retirement, and what they cannot do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.host.host import HostOptions
from crush_trio.host.joining import join_workspace
from crush_trio.host.presence import Presence
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId
from crush_trio.protocol.runs import Outcome
from tests.host.fakes import Gate
from tests.host.world import World, quiet

A, B = "a-client", "another"
IDLE_S = 5.0


@pytest.fixture
async def world(clock: MockClock, tmp_path: Path) -> AsyncIterator[World]:
    """A host that closes a workspace after `IDLE_S`, shorter than any hold."""
    made = World(tmp_path, options=HostOptions(idle_timeout_s=IDLE_S))
    async with made.opened():
        await made.start()
        yield made


def presence(world: World) -> Presence:
    """Who is there."""
    return world.workspace.presence


def is_open(world: World) -> bool:
    """Whether the workspace is open."""
    return world.host.find_open(world.workspace.id) is world.workspace


async def open_until(world: World, end_s: float) -> None:
    """The workspace is open until so many seconds from now, and closed right after."""
    await trio.sleep(end_s - 0.01)
    assert is_open(world)
    await trio.sleep(0.02)
    assert not is_open(world)


@contextmanager
def stream(world: World, client_id: str | None) -> Iterator[None]:
    """An open stream."""
    with world.host.subscribing(world.workspace, client_id):
        yield


async def test_a_create_holds_the_workspace_for_30_s_and_then_the_idle_time_begins(
    clock: MockClock,
    world: World,
) -> None:
    """R23: the hold's end is the last use."""
    presence(world).hold(A)
    await open_until(world, 30 + IDLE_S)


async def test_opening_a_stream_takes_the_place_of_the_hold(clock: MockClock, world: World) -> None:
    """R23: when it goes, what is left is the grace, not the rest of the 30 s."""
    presence(world).hold(A)
    with stream(world, A):
        await trio.sleep(1)
    await open_until(world, limits.DETACH_GRACE_S + IDLE_S)


async def test_a_stream_needs_no_create_to_count(clock: MockClock, world: World) -> None:
    """R23, R24: it keeps the workspace open, and its client has its grace."""
    with stream(world, A):
        await trio.sleep(100)
        assert is_open(world)
    await open_until(world, limits.DETACH_GRACE_S + IDLE_S)


async def test_a_stream_without_a_name_has_no_grace(clock: MockClock, world: World) -> None:
    """R24: only who can be recognised can come back."""
    with stream(world, None):
        await trio.sleep(100)
    await open_until(world, IDLE_S)


async def test_who_comes_back_within_the_grace_keeps_everything(
    clock: MockClock, world: World
) -> None:
    """R24, R30: also the session that it shows."""
    with stream(world, A):
        presence(world).show(A, world.session.id)
    await trio.sleep(limits.DETACH_GRACE_S - 1)
    assert not presence(world).watchers()
    with stream(world, A):
        await trio.sleep(100)
        assert presence(world).watchers() == {world.session.id: 1}
    assert is_open(world)


async def test_only_the_last_of_several_streams_begins_the_grace(
    clock: MockClock, world: World
) -> None:
    """R24."""
    with stream(world, A):
        with stream(world, A):
            pass
        await trio.sleep(100)
        assert is_open(world)
    await open_until(world, limits.DETACH_GRACE_S + IDLE_S)


async def test_a_release_without_streams_ends_the_hold_now(clock: MockClock, world: World) -> None:
    """R25: what is left is the idle time."""
    presence(world).hold(A)
    presence(world).release(A)
    await open_until(world, IDLE_S)


async def test_a_release_leaves_streams_and_others_alone_and_costs_the_grace(
    clock: MockClock, world: World
) -> None:
    """R25: of its client only."""
    with stream(world, A):
        with stream(world, B):
            presence(world).release(A)
            presence(world).release(A)
            presence(world).release("a stranger")
            await trio.sleep(100)
            assert is_open(world)
        assert presence(world).subscribers == 1
    await open_until(world, limits.DETACH_GRACE_S + IDLE_S)  # B's: it left in the same moment


async def test_after_a_release_the_end_of_the_last_stream_is_the_end(
    clock: MockClock, world: World
) -> None:
    """R24, R25: no grace."""
    with stream(world, A):
        presence(world).release(A)
        await trio.sleep(100)
    await open_until(world, IDLE_S)


async def test_creating_again_takes_a_release_back(clock: MockClock, world: World) -> None:
    """R26: the grace is there again."""
    with stream(world, A):
        presence(world).release(A)
        presence(world).hold(A)
        await trio.sleep(100)
    await open_until(world, limits.DETACH_GRACE_S + IDLE_S)


async def test_creating_again_begins_the_30_s_anew(clock: MockClock, world: World) -> None:
    """R26: also in the grace of a stream."""
    presence(world).hold(A)
    await trio.sleep(29)
    presence(world).hold(A)
    await trio.sleep(29)
    with stream(world, A):
        pass
    await trio.sleep(9)
    presence(world).hold(A)
    await open_until(world, limits.CREATE_HOLD_S + IDLE_S)


async def test_retiring_lets_go_everywhere_at_once_and_bars_the_id(
    clock: MockClock, world: World, tmp_path: Path
) -> None:
    """R27: a stream that is still open is anybody's; the id claims nothing any more."""
    (tmp_path / "other").mkdir()
    other = await world.host.by_path(tmp_path / "other")
    other.presence.hold(A)
    with stream(world, A):
        presence(world).show(A, world.session.id)
        world.host.clients.retire(A)
        for each in world.host.workspaces():
            each.presence.retire(A)
        assert not presence(world).watchers()
        with pytest.raises(Refused) as refused:
            presence(world).show(A, world.session.id)
        assert refused.value.code == "client_not_attached"
        await trio.sleep(IDLE_S + 0.01)
        assert world.host.find_open(other.id) is None
        assert is_open(world)
    with stream(world, A):
        pass
    with pytest.raises(Refused) as refused:
        world.host.clients.check(A)
    assert refused.value.code == "client_retired"
    world.host.clients.check(B)
    await open_until(world, IDLE_S)


async def test_who_retires_while_its_create_is_pending_gets_no_hold(
    clock: MockClock, world: World, tmp_path: Path
) -> None:
    """R27, R22: the workspace is there for others; the server is not idle meanwhile."""
    refusals: list[str] = []

    async def create(client_id: str) -> None:
        try:
            await join_workspace(world.host, tmp_path / "new", client_id)
        except Refused as refused:
            refusals.append(refused.code)

    async with trio.open_nursery() as nursery:
        world.store.pause()
        nursery.start_soon(create, A)
        await quiet()
        idle_meanwhile = world.host.is_idle()
        world.host.clients.retire(A)
        world.store.resume()
    assert not idle_meanwhile
    assert refusals == ["client_retired"]
    assert world.host.is_idle()
    await create(B)
    assert not world.host.is_idle()
    assert len(refusals) == 1


async def test_only_the_newest_retired_ids_are_remembered(
    clock: MockClock, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R27: so that retiring costs no growing memory."""
    monkeypatch.setattr(limits, "RETIRED_CLIENTS", 2)
    for name in ("1", "2", "3", "2"):
        world.host.clients.retire(name)
    assert [world.host.clients.is_retired(name) for name in "123"] == [False, True, True]


async def test_who_comes_back_in_the_last_moment_finds_the_workspace_open(
    clock: MockClock, world: World
) -> None:
    """R28: looking and closing are one step, so it is open for the one or opened for the other."""
    presence(world).hold(A)
    came: list[bool] = []

    async def come(when_s: float) -> None:
        await trio.sleep_until(when_s)
        with world.host.subscribing(await world.host.open(world.workspace.id), A):
            came.append(is_open(world))
            await trio.sleep(100)

    end = trio.current_time() + limits.CREATE_HOLD_S + IDLE_S
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(come, end)
    assert len(came) == 5
    assert len(set(came)) == 1


async def test_current_session_needs_a_live_stream_and_counts_clients_not_streams(
    clock: MockClock,
    world: World,
) -> None:
    """R30: a hold is not enough; an empty id clears it."""
    other = (await world.new_session()).id
    presence(world).hold(A)
    for stranger in (A, B):
        with pytest.raises(Refused) as refused:
            presence(world).show(stranger, other)
        assert refused.value.code == "client_not_attached"
    with stream(world, A), stream(world, A), stream(world, B):
        presence(world).show(A, other)
        presence(world).show(B, other)
        assert presence(world).watchers() == {other: 2}
        presence(world).show(B, world.session.id)
        assert presence(world).watchers() == {other: 1, world.session.id: 1}
        presence(world).show(A, None)
        assert presence(world).watchers() == {world.session.id: 1}
    assert presence(world).watchers()[SessionId(world.session.id)] == 0


async def test_no_claim_ends_a_run_when_it_goes(clock: MockClock, world: World) -> None:
    """G6: not a hold that expires, not a grace, not a release, not a retirement."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    presence(world).hold(A)
    with stream(world, B):
        run = world.submit("gate", client_id=A)
    presence(world).release(B)
    await trio.sleep(1_000)
    presence(world).retire(A)
    await trio.sleep(1_000)
    assert is_open(world)
    gate.go.set()
    assert (await world.ended(run))[0].outcome is Outcome.COMPLETED
    await open_until(world, IDLE_S)


async def test_a_run_that_asked_for_it_ends_3_s_after_its_client_not_after_the_grace(
    clock: MockClock,
    world: World,
) -> None:
    """G6: `on_disconnect` looks at streams alone."""
    world.kit.fake.acts["gate"] = Gate()
    with stream(world, A):
        kept = world.submit("gate", client_id=A, on_disconnect="cancel")
        await quiet()
    await trio.sleep(limits.DISCONNECT_GRACE_S - 0.5)
    with stream(world, A):
        await trio.sleep(60)
        assert world.host.open_run(kept.id) is kept
    began = trio.current_time()
    assert (await world.ended(kept))[0].outcome is Outcome.CANCELLED
    assert trio.current_time() - began == pytest.approx(limits.DISCONNECT_GRACE_S, abs=0.1)


async def test_a_server_with_a_create_pending_is_not_idle(clock: MockClock, world: World) -> None:
    """R22: so it does not exit under somebody who is just coming."""
    assert world.host.is_idle()
    with world.host.clients.create():
        assert not world.host.is_idle()
    assert world.host.is_idle()
    presence(world).hold(A)
    assert not world.host.is_idle()


async def test_what_a_client_brought_is_there_as_long_as_its_claim(
    clock: MockClock, world: World
) -> None:
    """Contract 7: in memory, per client; of one without a name it is that of the first (R21)."""
    here = presence(world)
    assert here.environment(A) == here.environment(None) == {}
    here.hold(B)
    here.hold(A, {"KEY": "a"})
    here.hold(A)  # again, without: it takes nothing back
    assert (here.environment(A), here.environment(B)) == ({"KEY": "a"}, {})
    assert here.environment(None) == {"KEY": "a"}
    here.hold(A, {"KEY": "another-key"})
    assert here.environment(A) == {"KEY": "another-key"}
    assert "another-key" not in repr(here)
    here.release(A)
    assert here.environment(A) == here.environment(None) == {}
    here.hold(A, {"KEY": "c"})
    await trio.sleep(limits.CREATE_HOLD_S + 0.01)
    assert here.environment(A) == {}


async def test_a_run_keeps_the_environment_it_was_accepted_with(
    clock: MockClock, world: World
) -> None:
    """A queued run outlives what its client claims."""
    gate = Gate()
    world.kit.fake.acts["gate"] = gate
    first = world.submit("gate")
    queued = world.submit("then", env={"KEY": "a"})
    await gate.reached.wait()
    gate.go.set()
    await world.ended(first, queued)
    assert world.kit.envs == [{}, {"KEY": "a"}]
    assert "KEY" not in repr(queued)
