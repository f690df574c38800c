"""A queued commit and the ticket its caller waits on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs
import trio

from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Committed, Transaction

T = TypeVar("T")


@attrs.define(eq=False)
class PendingCommit(Generic[T]):
    """One commit from being queued to being known: a `Ticket`.

    `resolve` or `fail` is called once, in the Trio thread.
    """

    workspace_id: WorkspaceId
    commit: Callable[[Transaction], T]
    relaxed: bool = False
    _done: trio.Event = attrs.field(factory=trio.Event, init=False)
    _result: Committed[T] | None = attrs.field(default=None, init=False)
    _error: Exception | None = attrs.field(default=None, init=False)

    def resolve(self, result: Committed[T]) -> None:
        """The commit is durable."""
        self._result = result
        self._done.set()

    def fail(self, error: Exception) -> None:
        """Nothing of the commit was applied."""
        self._error = error
        self._done.set()

    async def wait(self) -> Committed[T]:
        """See `crush_trio.store.contract.Ticket.wait`."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None  # set together with the event
        return self._result
