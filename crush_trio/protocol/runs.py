"""The record of a run, its outcome and its terminal event (contract 3)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import attrs

from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId


class RunState(StrEnum):
    """Where a run is in its one life (G1)."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class Outcome(StrEnum):
    """How a run ended; set once (contract 1)."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LIMITED = "limited"
    DENIED = "denied"
    STEERED = "steered"
    LOST = "lost"


@attrs.frozen
class RunError:
    """Why a run did not complete: a stable code, one sentence, and whether a retry may help."""

    code: str
    message: str
    retryable: bool = False


@attrs.frozen
class Usage:
    """Tokens of a run, summed over its steps.

    ``input_tokens`` are those that were neither read from the provider's cache nor written to it.
    ``estimated``: at least one number was counted from characters, because no provider said it.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False

    def plus(self, other: Usage) -> Usage:
        """The sum of both."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.estimated or other.estimated,
        )


@attrs.frozen
class LeftProcess:
    """A process that was still alive when its run had to end (G10)."""

    pid: int
    started: str
    command: str


@attrs.frozen
class ProcessReport:
    """Processes a run started and killed, and those that outlived the kill (G10)."""

    started: int = 0
    killed: int = 0
    left: tuple[LeftProcess, ...] = ()

    def plus(self, other: ProcessReport) -> ProcessReport:
        """Both together."""
        return ProcessReport(
            self.started + other.started, self.killed + other.killed, self.left + other.left
        )


@attrs.frozen
class CancelledBy:
    """Who cancelled, and why.

    ``reason`` is user, drop, interrupt, shutdown, session, workspace, disconnect, or parent: the
    run ended that a sub-agent worked for, for ``server`` if nobody had cancelled that.
    """

    principal: str
    client_id: str | None = None
    reason: str = "user"


@attrs.frozen
class Limits:
    """Limits of one run, enforced in the server, mid-call; ``None`` leaves the server's own."""

    timeout_s: float | None = None
    idle_timeout_s: float | None = None
    max_steps: int | None = None
    max_tool_calls: int | None = None
    max_output_tokens: int | None = None
    max_cost_usd: float | None = None


@attrs.frozen
class RunRecord:
    """The permanent record of a run. ``*_ms`` are unix milliseconds, for display only.

    ``kind`` is prompt, summarize, shell, or agent: a sub-agent, whose ``parent_run`` is the run
    that called it. Tokens and cost are also those of its sub-agents. ``waiting_on`` says what an
    open run waits for: ``queue``, ``model``, ``tool:<name>``, ``permission``, ``question``,
    ``retry``, ``summarize``, ``shell``, ``hook``; ``None`` otherwise.
    ``first_seq`` and ``last_seq`` are its first and last event. ``sandbox`` is the mode that its
    commands run in, from its beginning on.
    """

    id: RunId
    workspace_id: WorkspaceId
    session_id: SessionId
    prompt: str
    accept_seq: int
    created_at_ms: int
    kind: str = "prompt"
    parent_run: RunId | None = None
    state: RunState = RunState.QUEUED
    outcome: Outcome | None = None
    error: RunError | None = None
    waiting_on: str | None = None
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    message_id: MessageId | None = None
    text: str = ""
    model: str = ""
    provider: str = ""
    usage: Usage = Usage()
    cost_usd: float | None = None
    steps: int = 0
    tool_calls: int = 0
    denied: int = 0
    steered_into: RunId | None = None
    cancelled_by: CancelledBy | None = None
    processes: ProcessReport = ProcessReport()
    first_seq: int = 0
    last_seq: int = 0
    deleted: bool = False
    sandbox: str = "off"


@attrs.frozen
class RunComplete:
    """The terminal event of a run: the last event that carries its id (G1).

    ``error`` is absent for completed and steered, the sentence for failed, limited, denied and
    lost, and ``context canceled`` with ``cancelled`` for cancelled.
    """

    session_id: SessionId
    run_id: RunId
    outcome: Outcome
    message_id: MessageId | str = ""
    text: str = ""
    error: str = ""
    cancelled: bool = False
    error_detail: RunError | None = None
    usage: Usage = Usage()
    processes: ProcessReport = ProcessReport()
    steered_into: RunId | None = None


def run_complete(record: RunRecord) -> RunComplete:
    """The terminal event of a finished record.

    Raises:
        ValueError: The record has no outcome.
    """
    if record.outcome is None:
        raise ValueError(f"run {record.id} has no outcome")
    cancelled = record.outcome is Outcome.CANCELLED
    sentence = "context canceled" if cancelled else (record.error.message if record.error else "")
    return RunComplete(
        session_id=record.session_id,
        run_id=record.id,
        outcome=record.outcome,
        message_id=record.message_id or "",
        text=record.text,
        error=sentence,
        cancelled=cancelled,
        error_detail=record.error,
        usage=record.usage,
        processes=record.processes,
        steered_into=record.steered_into,
    )


def without_text(record: RunRecord) -> RunRecord:
    """The record as the ``run`` event carries it: without the answer's text (contract 4)."""
    return attrs.evolve(record, text="")


@attrs.frozen
class CancelReceipt:
    """What a cancel covered (G4): runs accepted at or before ``watermark``.

    ``runs`` holds ``{"run_id", "was": "running"|"queued"}``; ``too_late`` the runs whose ending
    had already been decided.
    """

    watermark: int
    runs: tuple[CoveredRun, ...] = ()
    too_late: tuple[RunId, ...] = ()


@attrs.frozen
class CoveredRun:
    """One run a cancel covered, and whether it ran or waited."""

    run_id: RunId
    was: str


@attrs.frozen
class Receipt:
    """The promise of a 202 (G2): ``seq`` is the cursor from which the run can be followed.

    ``disposition`` is started, queued or steered; ``position`` counts the runs before it.
    ``notices`` are sentences for whoever sent the prompt, such as how its model was chosen; an
    answer to the same request again has none.
    """

    run_id: RunId
    session_id: SessionId
    seq: int
    disposition: str
    position: int
    ignored: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


JsonObject = dict[str, Any]
