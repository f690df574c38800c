"""Where one run writes: staged commits, folded prompts, and the live state of its open message."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

import attrs
import orjson

from crush_trio import limits
from crush_trio.agent import transcript
from crush_trio.agent.budget import Progress
from crush_trio.agent.ports import StreamReset, ToolResult
from crush_trio.host import commits
from crush_trio.host.commits import Placed
from crush_trio.host.runs.kind_commits import point_at_summary
from crush_trio.host.runs.live_output import pieces
from crush_trio.journal import Feed, FeedEntry, present_message
from crush_trio.protocol.errors import StoreError
from crush_trio.protocol.events import AgentEvent, Retry
from crush_trio.protocol.ids import MessageId, RunId, SessionId, WorkspaceId
from crush_trio.protocol.messages import FinishPart, Message
from crush_trio.protocol.runs import LeftProcess, Outcome, RunState
from crush_trio.store.contract import Commit, RunRow, Store, Ticket, Transaction

Fold = Callable[[], Awaitable[Sequence[RunRow]]]
"""Ends the prompts that steer into the current run and returns their rows; the ending itself is
its last, synchronous step."""


class Live(Protocol):
    """A message that is being written: a `LiveMessage`, or a command with its output."""

    base: Message

    def present(self) -> Message:
        """The whole message as it stands now."""
        ...


@attrs.define(eq=False)
class RunJournal:
    """Implements `agent.turn.TurnJournal` for one run.

    Every write goes through here, so `messages` is exactly what the run has in the transcript,
    and what is staged but not yet durable goes along with the terminal commit.
    """

    store: Store
    feed: Feed
    workspace_id: WorkspaceId
    session_ids: tuple[SessionId, ...]
    run_id: RunId
    accept_seq: int
    fold: Fold
    flushed: Callable[[], None] = lambda: None
    """Called after each commit: everything folded or staged before it is durable."""
    messages: list[Placed] = attrs.field(factory=list, init=False)
    last_reads: dict[str, int] = attrs.field(factory=dict, init=False)
    live: Live | None = attrs.field(default=None, init=False)
    _staged: list[Commit[None]] = attrs.field(factory=list, init=False)
    _staged_messages: dict[MessageId, Commit[None]] = attrs.field(factory=dict, init=False)
    _new_message: bool = attrs.field(default=False, init=False)
    _flushed_from: int = attrs.field(default=0, init=False)  # no event of the last flush is older
    _in_flight: tuple[Ticket[None], tuple[Commit[None], ...]] | None = attrs.field(
        default=None, init=False
    )

    @property
    def session_id(self) -> SessionId:
        """The run's session."""
        return self.session_ids[0]

    # --- staging --------------------------------------------------------------------------

    def stage(self, commit: Commit[None]) -> None:
        """Add to what the next flush, or the terminal commit, makes durable."""
        self._staged.append(commit)

    def next_ordinal(self) -> int:
        """The place of the run's next message."""
        return len(self.messages)

    def place(self, message: Message) -> Placed:
        """Give a message its place: its old one if it is known, else the next."""
        for index, known in enumerate(self.messages):
            if known.message.id == message.id:
                placed = attrs.evolve(known, message=message, new=False)
                self.messages[index] = placed
                return placed
        placed = Placed(message, self.accept_seq, self.next_ordinal())
        self.messages.append(placed)
        return placed

    def stage_message(self, message: Message, progress: Progress) -> None:
        """Stage a message and the record's progress; see `TurnJournal`."""
        placed = self.place(message)
        self._new_message = self._new_message or placed.new

        def write(tx: Transaction) -> None:
            commits.put_messages(tx, (placed,))
            commits.change_run(tx, self.run_id, **progress_fields(progress))

        self.stage(write)
        if not placed.new:
            self._staged_messages[message.id] = write

    def replace(self, message: Message) -> Placed:
        """Place a message for the terminal commit: a state of it that is staged, and that nobody
        has seen, is not written any more."""
        staged = self._staged_messages.pop(message.id, None)
        if staged in self._staged:
            self._staged.remove(staged)
        return self.place(message)

    def stage_summary(self, message: Message, progress: Progress, before: int, after: int) -> None:
        """Stage a summary and the session's pointer to it; see `TurnJournal`."""
        self.stage_message(message, progress)

        def write(tx: Transaction) -> None:
            point_at_summary(
                tx, self.session_id, self.run_id, message.id, before=before, after=after
            )

        self.stage(write)

    def stage_pruned(self, before: int, after: int) -> None:
        """Stage the notice that old tool output is not sent any more; see `TurnJournal`."""
        notice = AgentEvent(
            "prune",
            session_id=self.session_id,
            run_id=self.run_id,
            tokens_before=before,
            tokens_after=after,
        )

        def write(tx: Transaction) -> None:
            tx.emit(
                "agent_event", "created", notice, session_id=self.session_id, run_id=self.run_id
            )

        self.stage(write)

    def stage_effects(self, result: ToolResult) -> None:
        """Stage file versions, read marks and the to-do list of a tool result."""
        todos = result.todos
        if todos is not None:
            self.stage(lambda tx: commits.touch_session(tx, self.session_id, todos=todos))
        if not result.changes and not result.read_paths:
            return

        read_at_ns = result.read_at_ns or time.time_ns()
        self.last_reads.update(dict.fromkeys(result.read_paths, read_at_ns))

        def write(tx: Transaction) -> None:
            for change in result.changes:
                versions = tx.add_file_change(
                    self.session_id, change.path, change.before, change.after
                )
                for version in versions:
                    tx.emit("file", "created", version, session_id=self.session_id)
            for path in result.read_paths:
                tx.mark_read(self.session_id, path, read_at_ns)

        self.stage(write)

    def take_staged(self) -> tuple[Commit[None], ...]:
        """Everything staged, to be committed by the caller in this order."""
        staged = tuple(self._staged)
        if self._new_message:
            staged += (lambda tx: commits.touch_session(tx, self.session_id),)
        self._staged.clear()
        self._staged_messages.clear()
        self._new_message = False
        return staged

    async def flush(self) -> None:
        """Make everything staged durable, in one transaction.

        Being cancelled only ends the waiting; `confirm` waits on.

        Raises:
            StoreError: Nothing of it was applied; it stays staged.
        """
        staged = self.take_staged()
        if not staged:
            return
        self._flushed_from = self.feed.last_seq
        try:
            ticket = self.store.commit_nowait(self.workspace_id, lambda tx: _run_all(tx, staged))
        except StoreError:
            self._staged[:0] = staged
            raise
        self._in_flight = (ticket, staged)
        await self.confirm()

    async def save(self) -> None:
        """Make durable what there is so far, before something that may take long (G8): what is
        staged but for the ends of messages, which a cancel would change, and the open text.

        Raises:
            StoreError: As `flush` and `checkpoint`.
        """
        known, staged = dict(self._staged_messages), self._staged
        held = [each for each in staged if each in known.values()]
        self._staged = [each for each in staged if each not in held]
        try:
            await self.flush()
        finally:
            self._staged += held
            self._staged_messages = known
        await self.checkpoint()

    async def confirm(self) -> None:
        """Wait for the commit of the last `flush`, if nobody has seen it end yet.

        Raises:
            StoreError: As `flush`.
        """
        if self._in_flight is None:
            return
        ticket, staged = self._in_flight
        try:
            await ticket.wait()
        except Exception:
            self._in_flight = None
            self._staged[:0] = staged
            raise
        self._in_flight = None
        self.flushed()

    # --- steps ----------------------------------------------------------------------------

    async def begin_step(self, assistant: Message, progress: Progress) -> tuple[Message, ...]:
        """Fold steering prompts and create the assistant message; see `TurnJournal`."""
        # No await between the end of the folding and the commit that `flush` queues: in memory and
        # in the journal the folded prompts end in one step.
        folded = tuple(self._stage_folded(row) for row in await self.fold())
        self.stage_message(assistant, progress)
        await self.flush()
        return folded

    def _stage_folded(self, row: RunRow) -> Message:
        record = row.record
        user = transcript.user_message(
            record.session_id,
            record.id,
            commits.prompt_parts(row.request),
            record.created_at_ms // 1000,
        )
        placed = self.place(user)
        ending = commits.Ending(Outcome.STEERED, steered_into=self.run_id, messages=(placed,))

        def write(tx: Transaction) -> None:
            commits.end_run(tx, record.id, ending)

        self.stage(write)
        return user

    def record_processes(self, live: tuple[LeftProcess, ...]) -> None:
        """Write the run's live processes to its row, without waiting; for recovery (G10).

        That they have ended is not written: recovery looks at their start times, and the run's
        ending clears them.
        """
        if not live:
            return

        def write(tx: Transaction) -> None:
            row = commits.stored_run(tx, self.run_id)
            if row.record.state is not RunState.FINISHED:
                tx.put_run(attrs.evolve(row, processes=live))

        with suppress(StoreError):  # a store that cannot take this cannot end the run either
            self.store.commit_nowait(self.workspace_id, write, relaxed=True)

    # --- live -----------------------------------------------------------------------------

    def open_live(self, live: Live) -> None:
        """Show the message's present state to whoever joins from now on."""
        self.live = live
        self.feed.hold(live.base.id, self.session_ids, self._present, since=self._flushed_from)

    def close_live(self) -> None:
        """Nobody is shown the open state any more. Idempotent."""
        if self.live is not None:
            self.feed.release(self.live.base.id)
            self.live = None

    def open_message(self) -> Message | None:
        """The live message's present state, if one is open."""
        return self.live.present() if self.live is not None else None

    def show_delta(
        self, index: int, part: str, offset: int, text: str, tool_call_id: str | None
    ) -> None:
        """Show a piece of the live message; written by hand because it runs per token."""
        if self.live is None:
            return
        if len(text) > limits.DELTA_CHARS:
            for at, piece in pieces(text):
                self.show_delta(index, part, offset + at, piece, tool_call_id)
            return
        message_id = self.live.base.id
        delta: dict[str, Any] = {
            "type": "message_delta",
            "message_id": message_id,
            "session_id": self.session_id,
            "run_id": self.run_id,
            "index": index,
            "part": part,
            "offset": offset,
            "text": text,
        }
        if tool_call_id is not None:
            delta["tool_call_id"] = tool_call_id
        self.feed.transient(
            FeedEntry(None, "message_delta", self.session_ids, orjson.dumps(delta), message_id)
        )

    async def checkpoint(self) -> None:
        """Write the open text to its row, without an event, and wait until it is there (G8).

        Raises:
            StoreError: It cannot be written. Too long a queue is no such reason: the next
                checkpoint comes soon.
        """
        message = self.open_message()
        if message is None:
            return
        placed = self.place(message)
        open_parts = tuple(part for part in message.parts if not isinstance(part, FinishPart))
        shown = attrs.evolve(message, parts=open_parts)  # a cancel may still make its end another

        def write(tx: Transaction) -> None:
            tx.put_message(shown, accept_seq=placed.accept_seq, ordinal=placed.ordinal)

        try:
            await self.store.commit_nowait(self.workspace_id, write, relaxed=True).wait()
        except StoreError as exc:
            if exc.code != "overloaded":
                raise

    def show_reset(self, reset: StreamReset) -> None:
        """Show the emptied message, and publish the `retry` event that explains it, at once."""
        for entry in self._present():
            self.feed.transient(entry)
        retry = Retry(self.run_id, reset.attempt, reset.max_attempts, reset.delay_s, reset.cause)

        def write(tx: Transaction) -> None:
            tx.emit("retry", "created", retry, session_id=self.session_id, run_id=self.run_id)
            commits.wait_on(tx, self.run_id, "retry")

        with suppress(StoreError):  # the next flush fails the same way, and ends the run
            self.store.commit_nowait(self.workspace_id, write)

    def show_waiting_on(self, waiting_on: str) -> None:
        """Publish what the run waits for now, in a commit that nobody waits for."""

        def write(tx: Transaction) -> None:
            commits.wait_on(tx, self.run_id, waiting_on)

        with suppress(StoreError):  # the next flush fails the same way, and ends the run
            self.store.commit_nowait(self.workspace_id, write)

    def _present(self) -> Sequence[FeedEntry]:
        message = self.open_message()
        if message is None:
            return ()
        return (
            present_message(
                self.workspace_id, message, session_ids=self.session_ids, key=message.id
            ),
        )


def progress_fields(progress: Progress) -> dict[str, Any]:
    """The record's fields that a turn's progress sets."""
    return {
        "steps": progress.steps,
        "tool_calls": progress.tool_calls,
        "denied": progress.denied,
        "usage": progress.usage,
        "cost_usd": progress.cost_usd,
        "message_id": progress.message_id,
        "text": progress.text,
        "waiting_on": progress.waiting_on,
    }


def _run_all(tx: Transaction, staged: Sequence[Commit[None]]) -> None:
    for commit in staged:
        commit(tx)
