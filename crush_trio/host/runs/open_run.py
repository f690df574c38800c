"""An open run as the host holds it: its decision state, its row, and its acceptance."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio

from crush_trio.agent.ports import Model, SubAgentTask
from crush_trio.dispatch.run import Run
from crush_trio.protocol.ids import RunId, SessionId
from crush_trio.store.contract import RunRow, Ticket


@attrs.define(eq=False)
class SubAgent:
    """What makes a run a sub-agent's. In memory only: after a restart it is not taken up again.

    ``stopped``: a person has said no to one of its calls.
    """

    parent: RunId
    task: SubAgentTask
    model: Model
    stopped: bool = False


@attrs.define(eq=False)
class OpenRun:
    """One accepted prompt until its terminal commit is durable.

    ``row`` is the row as accepted; the store's copy is ahead of it while the run goes on.
    ``accepted`` gives the stored row once the acceptance is durable. ``scope`` is the cancel scope
    around the run while it is driven: the only way to interrupt it. ``ended`` is set once the
    terminal event is durable, so that whoever waited reads the finished record.
    """

    run: Run
    row: RunRow
    accepted: Ticket[RunRow]
    scope: trio.CancelScope | None = attrs.field(default=None, init=False)
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Its client's environment when it was accepted; memory only, so empty after a restart."""
    sub_agent: SubAgent | None = attrs.field(default=None, init=False)
    ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    @property
    def id(self) -> RunId:
        """The run's id."""
        return self.run.id

    @property
    def session_id(self) -> SessionId:
        """The session it belongs to."""
        return self.row.record.session_id

    def interrupt(self) -> None:
        """Cancel the scope around the run, if it is being driven. Never waits, idempotent."""
        if self.scope is not None:
            self.scope.cancel()
