"""A command that a person typed, as a run of its own: no model, no permission asked (CW 2.5)."""

from __future__ import annotations

from contextlib import suppress

import attrs
import trio

from crush_trio import limits
from crush_trio.agent import shell_text
from crush_trio.agent.budget import LimitReached, Progress
from crush_trio.agent.ports import ShellResult
from crush_trio.agent.turn import TurnEnd
from crush_trio.host.kit import WorkspaceSetup
from crush_trio.host.runs import kind_commits
from crush_trio.host.runs.desk import Desk, now_s
from crush_trio.protocol.errors import CrushError, Refused, StoreError
from crush_trio.protocol.messages import Message
from crush_trio.protocol.runs import Limits, Outcome
from crush_trio.store.contract import Transaction

COLOURS = {"COLORTERM": "truecolor", "CLICOLOR_FORCE": "1", "FORCE_COLOR": "1"}
"""Set on top of the fixed environment: the output is for a person's terminal (CW 2.5)."""


class ShellError(CrushError):
    """A person's command that could not be started."""

    code = "shell_failed"


@attrs.define(eq=False)
class ShellRun:
    """Runs one command; implements `host.runs.desk.Work` and `host.runs.run_journal.Live`.

    Its message is the run's only one. While the command runs it is open, and its row gets the
    output so far at most once a second; the output is shown live under the run's id.
    """

    desk: Desk
    progress: Progress | None = attrs.field(default=None, init=False)
    failure: Exception | None = attrs.field(default=None, init=False)
    base: Message = attrs.field(init=False)
    _pieces: list[str] = attrs.field(factory=list, init=False)
    _lengths: dict[str, int] = attrs.field(factory=dict, init=False)
    _changed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        record = self.desk.row.record
        self.base = shell_text.opened(record.session_id, record.id, record.prompt, now_s())

    async def take(self, wanted: Limits) -> TurnEnd:
        """Run the command to its end; a non-zero exit code is an end like any other.

        Raises:
            LimitReached: ``timeout``.
            ShellError: It cannot be started.
            Refused: ``sandbox_unavailable``, only now.
        """
        journal = self.desk.journal
        placed = journal.place(self.base)
        run_id, command = journal.run_id, shell_text.part_of(self.base).command
        journal.stage(lambda tx: kind_commits.begin_kind(tx, run_id, "shell", (placed,)))
        self.progress = Progress(message_id=self.base.id, waiting_on="shell")
        journal.open_live(self)
        await journal.flush()
        setup = await trio.to_thread.run_sync(self._read_setup, abandon_on_cancel=True)
        result = await self._run(command, setup.environment() | COLOURS)
        if result.timed_out:
            raise LimitReached(
                "timeout", f"The command reached its limit of {limits.SHELL_TIMEOUT_S:g} s."
            )
        self._end(result)
        return TurnEnd(Outcome.COMPLETED)

    def _read_setup(self) -> WorkspaceSetup:
        setup = self.desk.home.kit.setup(self.desk.home.path)
        self.desk.read_sandbox()
        return setup

    async def _run(self, command: str, env: dict[str, str]) -> ShellResult:
        processes = self.desk.open_processes()
        result: ShellResult | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._checkpoint_while_open)
            try:
                result = await processes.run_shell(
                    command,
                    cwd=self.desk.home.path,
                    env=env,
                    timeout_s=limits.SHELL_TIMEOUT_S,
                    on_output=self._take_output,
                    spill_name=self.desk.journal.run_id,
                )
            except OSError as exc:
                self.failure = ShellError(f"The command cannot be started: {exc.strerror}.")
            except Refused as exc:  # as it is, and not in a group
                self.failure = exc
            nursery.cancel_scope.cancel()
        if result is None:
            raise self.failure or ShellError("The command cannot be started.")
        return result

    def _take_output(self, stream: str, text: str) -> None:
        self._pieces.append(text)
        self._lengths[stream] = self._lengths.get(stream, 0) + len(text)
        self._changed = True
        self.desk.output(self.desk.journal.run_id).show(stream, text)

    async def _checkpoint_while_open(self) -> None:
        while True:
            await trio.sleep(limits.TEXT_CHECKPOINT_S)
            if self._changed:
                self._changed = False
                with suppress(StoreError):  # its ending fails the same way, and waits for room
                    await self.desk.journal.checkpoint()

    def present(self) -> Message:
        """The message with what the command has written so far."""
        output = shell_text.head_and_tail(self._pieces, limits.TOOL_OUTPUT_COLUMNS)
        return shell_text.with_output(self.base, output, now_s())

    def _end(self, result: ShellResult) -> None:
        output = self._output_of(result)
        message = shell_text.with_output(self.base, output, now_s())
        code = 0 if result.exit_code is None else result.exit_code
        message = shell_text.closed(message, code, now_s())
        self.progress = Progress(message_id=message.id, text=output)
        self.desk.journal.close_live()
        self.desk.journal.stage_message(message, self.progress)

    def _output_of(self, result: ShellResult) -> str:
        """Both streams as they came, unless that was too much to be shown live."""
        texts = {"stdout": result.stdout, "stderr": result.stderr}
        whole = all(len(text) == self._lengths.get(name, 0) for name, text in texts.items())
        pieces = self._pieces if whole else [*texts.values()]
        output = shell_text.head_and_tail(pieces, limits.TOOL_OUTPUT_COLUMNS)
        if result.spill_path is not None:
            less = f"all but {result.spill_dropped} bytes of " if result.spill_dropped else ""
            where = f"output {result.output_id}, in {result.spill_path}"
            output += f"\n({less}the whole output is {where})"
        return output

    def started_calls(self, *, cancelled: bool) -> frozenset[str]:
        """See `host.runs.desk.Work`: there are no tool calls."""
        return frozenset()

    def settle(self, tx: Transaction, outcome: Outcome) -> None:
        """A command costs nothing."""
