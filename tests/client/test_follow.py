"""The event stream across everything that can happen to a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from crush_trio.client.errors import BadAnswer, ServerRefused, Unreachable
from crush_trio.client.follow import Follow, Subscription, backoff, follow
from crush_trio.limits import BACKOFF_FIRST_S, BACKOFF_MAX_S
from tests.client.peer import HELLO, Channel, Peer, event, tcp_peer, unix_peer


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    async with unix_peer(tmp_path / "s") as found:
        yield found


async def no_snapshot() -> dict[str, Any]:
    raise AssertionError("no snapshot was due")


def subscription(peer: Peer, **changes: Any) -> Subscription:
    given: dict[str, Any] = {
        "snapshot": no_snapshot,
        "random": lambda: 0.0,
        "reconnect_timeout": 5.0,
    }
    return Subscription(endpoint=peer.endpoint, workspace="w", **(given | changes))


async def numbers(stream: Follow, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        item = await stream.receive()
        if "seq" in item and item["type"] not in ("hello", "replayed", "resync"):
            found.append(item["seq"])
    return found


async def test_every_event_arrives_once_and_in_order_across_a_cut_in_the_stream(peer: Peer) -> None:
    async def first(channel: Channel) -> None:
        await channel.send(HELLO, event(1), event(2))
        await channel.send(event(3))
        await channel.cut()

    async def second(channel: Channel) -> None:
        await channel.send(HELLO, event(3), event(4))  # one twice, as a server must not
        await channel.send({"type": "replayed", "seq": 4}, event(5))
        await channel.stay()

    peer.scripts += [first, second]
    async with follow(subscription(peer, after=0)) as stream:
        assert await numbers(stream, 5) == [1, 2, 3, 4, 5]
    assert [upgrade.query for upgrade in peer.upgrades] == ["after=0", "after=3&epoch=e1"]


async def test_a_ping_is_answered_and_moves_the_cursor(peer: Peer) -> None:
    answers = []

    async def script(channel: Channel) -> None:
        await channel.send(HELLO, {"type": "ping", "seq": 41})
        answers.append(await channel.receive())
        await channel.cut()

    peer.scripts.append(script)
    async with follow(subscription(peer)) as stream:
        assert (await stream.receive())["type"] == "hello"
        peer.scripts.append(greet_and_stay)
        assert (await stream.receive())["type"] == "hello"
        assert stream.cursor == 41
    assert answers == [{"type": "pong"}]
    assert [upgrade.query for upgrade in peer.upgrades] == ["after=now", "after=41&epoch=e1"]


async def greet_and_stay(channel: Channel) -> None:
    await channel.send(HELLO)
    await channel.stay()


async def test_a_resync_brings_the_snapshot_and_goes_on_behind_it(peer: Peer) -> None:
    async def script(channel: Channel) -> None:
        await channel.send(
            {**HELLO, "epoch": "e2", "seq": 90},
            {"type": "resync", "reason": "epoch", "seq": 90, "epoch": "e2"},
            event(91),
            event(92),
            event(93),
        )
        await channel.stay()

    async def snapshot() -> dict[str, Any]:
        return {"seq": 92, "epoch": "e2", "runs": []}

    peer.scripts.append(script)
    wanted = subscription(peer, after=7, epoch="e1", snapshot=snapshot)
    async with follow(wanted) as stream:
        items = [await stream.receive() for _ in range(3)]
        assert [item["type"] for item in items] == ["hello", "resync", "session"]
        assert items[1]["snapshot"] == {"seq": 92, "epoch": "e2", "runs": []}
        assert items[2]["seq"] == 93
        assert (stream.cursor, stream.epoch) == (93, "e2")


async def test_a_refused_upgrade_is_final_and_keeps_the_servers_sentence(peer: Peer) -> None:
    peer.refuse.append((404, {"message": "no such workspace", "code": "workspace_not_found"}))
    with pytest.raises(ServerRefused, match="no such workspace") as caught:
        async with follow(subscription(peer)):
            raise AssertionError("entered")
    assert (caught.value.status, caught.value.code) == (404, "workspace_not_found")
    assert len(peer.upgrades) == 1


async def test_a_server_that_is_just_stopping_is_tried_again(peer: Peer) -> None:
    peer.refuse.append((503, {"message": "stopping", "code": "server_stopping"}))
    peer.scripts.append(greet_and_stay)
    async with follow(subscription(peer)) as stream:
        assert (await stream.receive())["type"] == "hello"
    assert len(peer.upgrades) == 2


@pytest.mark.parametrize("code", [4400, 4401, 4403, 4404])
async def test_a_final_close_code_ends_the_stream_for_good(peer: Peer, code: int) -> None:
    async def script(channel: Channel) -> None:
        await channel.send(HELLO)
        await channel.close(code, "because")

    peer.scripts.append(script)
    async with follow(subscription(peer)) as stream:
        assert (await stream.receive())["type"] == "hello"
        with pytest.raises(ServerRefused, match="because"):
            await stream.receive()
    assert len(peer.upgrades) == 1


async def test_a_frame_that_is_no_array_of_objects_ends_the_stream(peer: Peer) -> None:
    async def script(channel: Channel) -> None:
        await channel.send(HELLO)
        await channel.send_text('{"type": "session"}')
        await channel.stay()

    peer.scripts.append(script)
    async with follow(subscription(peer)) as stream:
        await stream.receive()
        with pytest.raises(BadAnswer, match="frame"):
            await stream.receive()


async def test_a_server_that_stays_away_is_given_up_after_the_reconnect_timeout(
    tmp_path: Path,
) -> None:
    async with unix_peer(tmp_path / "s") as peer:

        async def script(channel: Channel) -> None:
            await channel.send(HELLO)
            (tmp_path / "s").unlink()
            await channel.cut()

        peer.scripts.append(script)
        began = trio.current_time()
        async with follow(subscription(peer, reconnect_timeout=0.5)) as stream:
            await stream.receive()
            with pytest.raises(Unreachable, match="no such file"):
                await stream.receive()
            with pytest.raises(Unreachable):
                await stream.receive()
        assert trio.current_time() - began < 5


async def test_a_server_that_is_gone_is_revived_once_and_the_cursor_is_kept(
    tmp_path: Path,
) -> None:
    path = tmp_path / "s"
    revived = trio.Event()
    async with trio.open_nursery() as nursery:

        async def second_life() -> None:
            async with unix_peer(path) as peer:
                peer.scripts.append(greet_and_stay)
                revived.set()
                await trio.sleep_forever()

        async def revive() -> None:
            assert not revived.is_set()
            nursery.start_soon(second_life)
            await revived.wait()

        async with unix_peer(path) as peer:

            async def script(channel: Channel) -> None:
                await channel.send(HELLO, event(1))
                path.unlink()
                await channel.cut()

            peer.scripts.append(script)
            async with follow(subscription(peer, after=0, revive=revive)) as stream:
                kinds = [(await stream.receive())["type"] for _ in range(3)]
                assert kinds == ["hello", "session", "hello"]
                assert stream.cursor == 1
        nursery.cancel_scope.cancel()


async def test_leaving_the_block_ends_the_connection_and_every_task(peer: Peer) -> None:
    ended = trio.Event()

    async def script(channel: Channel) -> None:
        await channel.send(HELLO)
        await channel.stay()
        ended.set()

    peer.scripts.append(script)

    async def leave_with_an_error() -> None:
        async with follow(subscription(peer)) as stream:
            await stream.receive()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):  # as it is, not inside a group
        await leave_with_an_error()
    with trio.fail_after(3):
        await ended.wait()


async def test_the_token_and_the_filters_travel_with_the_upgrade() -> None:
    async with tcp_peer() as peer:
        peer.scripts.append(greet_and_stay)
        wanted = subscription(
            peer, token="secret", session="s 1", kinds=("run", "message"), detail="snapshot",
            client_id="c",
        )  # fmt: skip
        async with follow(wanted) as stream:
            await stream.receive()
    [upgrade] = peer.upgrades
    assert upgrade.headers["authorization"] == "Bearer secret"
    assert "secret" not in upgrade.target
    assert "sec-websocket-extensions" not in upgrade.headers
    assert upgrade.target == (
        "/v1/workspaces/w/ws?after=now&session_id=s+1&kinds=run%2Cmessage"
        "&detail=snapshot&client_id=c"
    )


def test_the_back_off_doubles_up_to_its_limit_and_half_of_it_is_jitter() -> None:
    assert [backoff(n, lambda: 1.0) for n in range(3)] == pytest.approx([0.1, 0.2, 0.4])
    assert backoff(0, lambda: 0.0) == pytest.approx(BACKOFF_FIRST_S / 2)
    assert backoff(1000, lambda: 1.0) == BACKOFF_MAX_S


async def test_a_server_that_does_not_come_back_to_life_is_revived_once_only(
    tmp_path: Path,
) -> None:
    revived = []

    async def revive() -> None:
        revived.append("once")

    async with unix_peer(tmp_path / "s") as peer:

        async def script(channel: Channel) -> None:
            await channel.send(HELLO)
            (tmp_path / "s").unlink()
            await channel.cut()

        peer.scripts.append(script)
        wanted = subscription(peer, revive=revive, reconnect_timeout=0.5)
        async with follow(wanted) as stream:
            await stream.receive()
            with pytest.raises(Unreachable):
                await stream.receive()
    assert revived == ["once"]
