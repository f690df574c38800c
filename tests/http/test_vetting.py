"""Connections under a policy: which addresses are tried, in which order, and what stays open."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

from crush_trio import limits
from crush_trio.http.certificates import Certificates
from crush_trio.http.dialing import Origin
from crush_trio.http.failures import HttpFailure, HttpKind
from crush_trio.http.vetting import VettingDial

ORIGIN = Origin("http", "a.test", 80)


@attrs.define
class Policy:
    """Allows everything but what ``refuses`` names; remembers what it was shown."""

    refuses: str = ""
    shown: list[str] = attrs.field(factory=list)

    def _see(self, *what: str) -> None:
        self.shown.extend(what)
        if self.refuses in what:
            raise HttpFailure(HttpKind.ADDRESS, "refused")

    def check_name(self, origin: Origin, *, proxied: bool) -> None:
        self._see(origin.host)

    def check_addresses(self, origin: Origin, found: Any) -> None:
        self._see(*found)

    def check_connected(self, origin: Origin, here: str, there: str) -> None:
        self._see(f"{here}->{there}")


@attrs.define(eq=False)
class Socket:
    """One end of a connection that a test only looks at."""

    there: str
    is_open: bool = True

    def getsockname(self) -> tuple[str, int]:
        return "1.1.1.1", 1

    def getpeername(self) -> tuple[str, int]:
        return self.there, 80

    def close(self) -> None:
        self.is_open = False


@attrs.define(eq=False)
class Stream:
    """What `open` hands out."""

    socket: Socket


@attrs.define(eq=False)
class World:
    """Addresses of one name; ``silent`` ones never answer, ``closed`` ones refuse."""

    found: tuple[str, ...] = ()
    silent: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    tried: list[str] = attrs.field(factory=list)
    sockets: list[Socket] = attrs.field(factory=list)

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        await trio.lowlevel.checkpoint()
        return self.found

    async def open(self, address: str, port: int) -> Any:
        self.tried.append(address)
        await trio.lowlevel.checkpoint()
        if address in self.silent:
            await trio.sleep_forever()
        if address in self.closed:
            raise ConnectionRefusedError(111, "Connection refused")
        self.sockets.append(Socket(address))
        return Stream(self.sockets[-1])

    async def dial(self, policy: Policy) -> Any:
        dial = VettingDial(policy, self.resolve, self.open)
        return await dial(ORIGIN, None, Certificates(None, {}))


async def test_an_address_that_is_silent_or_refuses_is_passed_over(autojump_clock: Any) -> None:
    world = World(("2.2.2.1", "2.2.2.2", "2.2.2.3"), frozenset(["2.2.2.1"]), frozenset(["2.2.2.2"]))
    policy = Policy()
    line = await world.dial(policy)
    assert line.socket.there == "2.2.2.3"
    assert trio.current_time() == pytest.approx(limits.HTTP_ADDRESS_S)
    assert policy.shown == ["a.test", *world.found, "1.1.1.1->2.2.2.3"]


async def test_all_addresses_are_vetted_and_only_the_first_few_tried() -> None:
    found = tuple(f"2.2.2.{number}" for number in range(20))
    world, policy = World(found, closed=frozenset(found)), Policy()
    with pytest.raises(HttpFailure, match=r"^No connection to a\.test:80: connection refused\.$"):
        await world.dial(policy)
    assert world.tried == list(found[: limits.HTTP_ADDRESSES])
    assert policy.shown == ["a.test", *found]


@pytest.mark.parametrize("refuses", ["a.test", "2.2.2.2"])
async def test_what_a_policy_refuses_is_not_connected_to(refuses: str) -> None:
    world = World(("2.2.2.1", "2.2.2.2"))
    with pytest.raises(HttpFailure, match=r"^refused$"):
        await world.dial(Policy(refuses))
    assert world.tried == []


async def test_a_connection_that_turns_out_wrong_is_closed_before_anything_is_sent() -> None:
    world = World(("2.2.2.1",))
    with pytest.raises(HttpFailure, match=r"^refused$"):
        await world.dial(Policy("1.1.1.1->2.2.2.1"))
    assert [each.is_open for each in world.sockets] == [False]


async def test_a_name_without_addresses_is_said() -> None:
    with pytest.raises(HttpFailure, match=r"^a\.test:80 has no address\.$"):
        await World().dial(Policy())
