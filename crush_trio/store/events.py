"""Committed events as the store keeps them, which of them somebody wants, and pages of them."""

from __future__ import annotations

import attrs

from crush_trio.protocol.ids import RunId, SessionId


@attrs.frozen
class StoredEvent:
    """An event as committed.

    ``data`` is the whole encoded object of contract 4, at most `limits.FRAME_OUT_BYTES`.
    ``session_ids`` names its session and that session's ancestors, so that a filter on a
    session includes its sub-sessions.
    """

    seq: int
    ts_ms: int
    kind: str
    session_ids: tuple[SessionId, ...]
    run_id: RunId | None
    data: bytes


@attrs.frozen
class Selection:
    """Which events a subscriber wants; ``None`` selects everything.

    ``kinds`` are event types; ``message`` includes ``message_delta``.
    """

    session_id: SessionId | None = None
    kinds: frozenset[str] | None = None

    def selects(self, kind: str, session_ids: tuple[SessionId, ...]) -> bool:
        """Whether an event of this kind and these sessions is wanted.

        An event without a session concerns the whole workspace and passes a session filter.
        """
        named = "message" if kind == "message_delta" else kind
        if self.kinds is not None and not {kind, named} & self.kinds:
            return False
        return self.session_id is None or not session_ids or self.session_id in session_ids


@attrs.frozen
class EventPage:
    """A page of events.

    ``scanned`` is the cursor up to which everything was looked at (a page may be short because
    the filter dropped events). ``oldest`` is the seq from which on retention has removed nothing
    (1 at first, ``last_seq + 1`` if all is gone): a cursor below ``oldest - 1`` cannot be served.
    """

    events: tuple[StoredEvent, ...]
    scanned: int
    oldest: int
