"""Decisions that every store makes alike; pure."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from crush_trio import limits
from crush_trio.protocol.requests import PromptRequest
from crush_trio.store.contract import RunRow


def contents_to_add(last: str | None, before: str | None, after: str) -> tuple[str, ...]:
    """Contents that become new versions of a file, oldest first (CW 7.4 "History").

    Args:
        last: The newest stored version; ``None`` if there is none yet.
        before: What was on the disk before the change; ``None`` if there was no file.
        after: What is there now.

    Returns:
        ``after``, and before it what was on the disk if that is not stored yet.
    """
    if last is None or last != (before or ""):
        return (before or "", after)
    return (after,)


def tombstone(row: RunRow) -> RunRow:
    """A run whose session is gone: what was said is removed, what was promised stays (G3)."""
    return attrs.evolve(
        row,
        record=attrs.evolve(row.record, prompt="", text="", deleted=True),
        request=PromptRequest(session_id=row.request.session_id, run_id=row.request.run_id),
    )


def expired_upto(
    events: Iterable[tuple[int, int]], *, last_seq: int, now_ms: int, open_from: int | None
) -> int:
    """The newest event that retention may remove now; 0 if none (G8).

    Only a prefix of the journal is ever removed, so everything after it can be replayed.

    Args:
        events: (seq, ts_ms) of the oldest events kept, in order.
        last_seq: The workspace's newest event.
        now_ms: Unix milliseconds.
        open_from: The first event that may belong to an open run; ``None`` without open runs.
    """
    by_count = last_seq - limits.EVENT_RETENTION_COUNT
    by_age = now_ms - int(limits.EVENT_RETENTION_S * 1000)
    upto = 0
    for seq, ts_ms in events:
        if (seq > by_count and ts_ms >= by_age) or (open_from is not None and seq >= open_from):
            break
        upto = seq
    return upto
