"""The ticket of a cancel, which has acted before anybody can know whether it could be stored."""

from __future__ import annotations

import attrs

from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.runs import CancelReceipt
from crush_trio.store.contract import Committed, Ticket


@attrs.frozen
class CancelTicket:
    """Waits as ``ticket`` does; if that fails, the error says what is true all the same.

    A cancel acts at once and answers after its commit (G4). When the disk is full by then the
    runs are not brought back: they end cancelled as soon as a commit succeeds. Only the promise
    that a kill cannot change that is not given, so the answer is still an error.
    """

    ticket: Ticket[CancelReceipt]
    acted: bool

    async def wait(self) -> Committed[CancelReceipt]:
        """See `crush_trio.store.contract.Ticket.wait`."""
        try:
            return await self.ticket.wait()
        except StoreError as exc:
            if not self.acted:
                raise
            raise StoreError(
                exc.code,
                f"The runs were told to stop and end cancelled, but that is not stored yet: {exc}",
            ) from exc
