"""Who uses an open workspace besides its runs: subscribers, clients' holds, pending requests."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import attrs
import trio

from crush_trio import limits
from crush_trio.host.home import Home
from crush_trio.protocol.errors import Refused
from crush_trio.protocol.ids import SessionId


class Dependents(Protocol):
    """The open runs that were to end when their client goes (G6)."""

    def depend_on(self, client_id: str) -> bool:
        """Whether an open run depends on this client."""
        ...

    def cancel_depending(self, client_id: str) -> None:
        """Cancel the open runs that depend on this client. Never waits, never raises."""
        ...


@attrs.define(eq=False)
class Clients:
    """What a server knows of its clients beyond their workspaces: who retired, who creates."""

    creating: int = attrs.field(default=0, init=False)
    """Workspaces that are being created; the server is not idle meanwhile (R22)."""
    _retired: dict[str, None] = attrs.field(factory=dict, init=False)

    def retire(self, client_id: str) -> None:
        """Bar a client's id (R27): a create of it that is still on its way is refused.

        The newest `limits.RETIRED_CLIENTS` are remembered, until the server ends.
        """
        self._retired[client_id] = None
        while len(self._retired) > limits.RETIRED_CLIENTS:
            del self._retired[next(iter(self._retired))]

    def is_retired(self, client_id: str | None) -> bool:
        """Whether this id is barred."""
        return client_id in self._retired

    def check(self, client_id: str | None) -> None:
        """Whether this client may claim a workspace.

        Raises:
            Refused: ``client_retired``.
        """
        if self.is_retired(client_id):
            raise Refused("client_retired", "This client has retired; come with a new client_id.")

    @contextmanager
    def create(self) -> Iterator[None]:
        """Counts a create that is pending."""
        self.creating += 1
        try:
            yield
        finally:
            self.creating -= 1


@attrs.define(eq=False)
class Claim:
    """What one client has to do with one workspace (CW 4.2).

    ``env`` is what it sent of its environment: kept here alone, and gone with the claim.
    """

    streams: int = 0
    held_until: float = -math.inf
    released: bool = False
    retired: bool = False
    shows: SessionId | None = None
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.define(eq=False)
class Presence:
    """Counts what keeps a workspace open. ``last_used`` is Trio time.

    All that a claim does is keep the workspace open and count its client. Its loss ends no run,
    and closes nothing before the idle timeout, which begins when the last claim has gone.
    """

    home: Home
    dependents: Dependents
    uses: int = attrs.field(default=0, init=False)
    subscribers: int = attrs.field(default=0, init=False)
    last_used: float = attrs.field(factory=trio.current_time, init=False)
    _claims: dict[str, Claim] = attrs.field(factory=dict, init=False)

    def touch(self) -> None:
        """The workspace was used just now."""
        self.last_used = trio.current_time()

    def in_use(self) -> bool:
        """Whether somebody subscribes, holds the workspace or has a request pending."""
        return bool(self.uses or self.subscribers or self._drop_expired())

    def idle_since(self) -> float:
        """When it was last used, or held; Trio time."""
        self._drop_expired()
        return self.last_used

    # --- claims ---------------------------------------------------------------------------

    def hold(self, client_id: str, env: Mapping[str, str] | None = None) -> None:
        """A client created the workspace: it has `limits.CREATE_HOLD_S` to open a stream (R23).

        Again by the same client, it takes a release back and the time begins anew (R26). An
        ``env`` takes the place of the one it sent before.
        """
        claim = self._claims.setdefault(client_id, Claim())
        claim.released = False
        claim.env = claim.env if env is None else env
        if not claim.streams:
            claim.held_until = trio.current_time() + limits.CREATE_HOLD_S

    def release(self, client_id: str) -> None:
        """A client lets go (R25): its hold ends now, or with its last stream.

        Streams and other clients are untouched. Harmless if it did not hold.
        """
        claim = self._claims.get(client_id)
        if claim is None:
            return
        self.touch()
        if claim.streams:
            claim.released = True
        else:
            del self._claims[client_id]

    def retire(self, client_id: str) -> None:
        """A client is gone for good (R27): its streams are anybody's from now on."""
        claim = self._claims.get(client_id)
        if claim is not None:
            claim.retired = True
            claim.shows = None
        self.release(client_id)

    def show(self, client_id: str, session_id: SessionId | None) -> None:
        """A client shows this session, or none (R30).

        Raises:
            Refused: ``client_not_attached``: it has no live stream.
        """
        claim = self._claims.get(client_id)
        if claim is None or not claim.streams or claim.retired:
            raise Refused("client_not_attached", "This client has no event stream open here.")
        claim.shows = session_id

    def environment(self, client_id: str | None) -> Mapping[str, str]:
        """What this client sent of its environment; nothing if it is not here (contract 7).

        Of a client that does not say who it is: what the first one sent that is here (R21).
        """
        self._drop_expired()
        if client_id is not None:
            claim = self._claims.get(client_id)
            return {} if claim is None else claim.env
        return next((claim.env for claim in self._claims.values() if claim.env), {})

    def watchers(self) -> Counter[str]:
        """How many clients with a live stream show each session (R30)."""
        return Counter(
            claim.shows for claim in self._claims.values() if claim.streams and claim.shows
        )

    # --- streams --------------------------------------------------------------------------

    def client_joined(self, client_id: str | None, *, retired: bool = False) -> None:
        """A subscriber has come; ``client_id`` is what it calls itself. It needs no create."""
        self.subscribers += 1
        if client_id is not None:
            claim = self._claims.setdefault(client_id, Claim(retired=retired))
            claim.streams += 1

    def client_left(self, client_id: str | None) -> None:
        """A subscriber has gone.

        After its last stream a client has `limits.DETACH_GRACE_S` to come back, unless it let go
        before (R24). Runs that asked for it end if it does not come back (G6).
        """
        self.subscribers -= 1
        if client_id is None:
            return
        claim = self._claims[client_id]
        claim.streams -= 1
        if claim.streams:
            return
        if claim.released or claim.retired:
            del self._claims[client_id]
        else:
            claim.held_until = trio.current_time() + limits.DETACH_GRACE_S
        if not self.home.stopping.is_set() and self.dependents.depend_on(client_id):
            self.home.nursery.start_soon(self._cancel_if_still_gone, client_id)

    async def _cancel_if_still_gone(self, client_id: str) -> None:
        with trio.move_on_after(limits.DISCONNECT_GRACE_S):
            await self.home.stopping.wait()
        claim = self._claims.get(client_id)
        if not (claim and claim.streams) and not self.home.stopping.is_set():
            self.dependents.cancel_depending(client_id)

    def _drop_expired(self) -> bool:
        """Forget claims whose time is over; whether any is left."""
        now = trio.current_time()
        for client_id, claim in tuple(self._claims.items()):
            if not claim.streams and claim.held_until <= now:
                del self._claims[client_id]
                self.last_used = max(self.last_used, claim.held_until)
        return bool(self._claims)
