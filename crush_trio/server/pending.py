"""What waits for a person, as answers show it: with its age and its deadline."""

from __future__ import annotations

import time
from collections.abc import Iterable

from crush_trio.protocol.events import PermissionRequest
from crush_trio.protocol.questions import QuestionRequest
from crush_trio.protocol.requests import PendingPermission, PendingQuestion
from crush_trio.store.contract import AskRow


def pending_permissions(rows: Iterable[AskRow]) -> tuple[PendingPermission, ...]:
    """The permission requests among stored rows."""
    return tuple(
        PendingPermission(row.request, row.run_id, *_times(row), row.workspace_id)
        for row in rows
        if isinstance(row.request, PermissionRequest)
    )


def pending_questions(rows: Iterable[AskRow]) -> tuple[PendingQuestion, ...]:
    """The batches of questions among stored rows."""
    return tuple(
        PendingQuestion(row.request, row.run_id, *_times(row), row.workspace_id)
        for row in rows
        if isinstance(row.request, QuestionRequest)
    )


def _times(row: AskRow) -> tuple[float, float]:
    """How long it has waited and how much longer it will, in seconds, for display."""
    age_s = max(0.0, time.time_ns() / 1e9 - row.created_at_ms / 1000)
    return round(age_s, 3), round(max(0.0, row.deadline_s - age_s), 3)
