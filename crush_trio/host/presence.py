"""Who uses an open workspace besides its runs: subscribers, holds and pending requests."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import attrs
import trio

from crush_trio import limits
from crush_trio.host.home import Home


class Dependents(Protocol):
    """The open runs that were to end when their client goes (G6)."""

    def depend_on(self, client_id: str) -> bool:
        """Whether an open run depends on this client."""
        ...

    def cancel_depending(self, client_id: str) -> None:
        """Cancel the open runs that depend on this client. Never waits, never raises."""
        ...


@attrs.define(eq=False)
class Presence:
    """Counts what keeps a workspace open. ``last_used`` is Trio time.

    A hold never ends a run, and its loss ends none either: all it does is keep the workspace open.
    """

    home: Home
    dependents: Dependents
    uses: int = attrs.field(default=0, init=False)
    subscribers: int = attrs.field(default=0, init=False)
    last_used: float = attrs.field(factory=trio.current_time, init=False)
    _holds: dict[str, float] = attrs.field(factory=dict, init=False)
    _streams: Counter[str] = attrs.field(factory=Counter, init=False)

    def touch(self) -> None:
        """The workspace was used just now."""
        self.last_used = trio.current_time()

    def in_use(self) -> bool:
        """Whether somebody subscribes, holds the workspace or has a request pending."""
        held = any(until > trio.current_time() for until in self._holds.values())
        return bool(self.uses or self.subscribers or held)

    def hold(self, client_id: str) -> None:
        """A client keeps the workspace open until it lets go, or for `limits.HOLD_S` (CW 4.2)."""
        self._holds[client_id] = trio.current_time() + limits.HOLD_S

    def release(self, client_id: str) -> None:
        """A client lets go. Harmless if it did not hold."""
        self._holds.pop(client_id, None)
        self.touch()

    def client_joined(self, client_id: str | None) -> None:
        """A subscriber has come; ``client_id`` is what it calls itself."""
        self.subscribers += 1
        if client_id is not None:
            self._streams[client_id] += 1

    def client_left(self, client_id: str | None) -> None:
        """A subscriber has gone; runs that asked for it end if it does not come back (G6)."""
        self.subscribers -= 1
        if client_id is None:
            return
        self._streams[client_id] -= 1
        if self._streams[client_id]:
            return
        del self._streams[client_id]
        if not self.home.stopping.is_set() and self.dependents.depend_on(client_id):
            self.home.nursery.start_soon(self._cancel_if_still_gone, client_id)

    async def _cancel_if_still_gone(self, client_id: str) -> None:
        with trio.move_on_after(limits.DISCONNECT_GRACE_S):
            await self.home.stopping.wait()
        if not self._streams[client_id] and not self.home.stopping.is_set():
            self.dependents.cancel_depending(client_id)
