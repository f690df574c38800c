"""``session summarize`` and ``session shell`` at work: submit, stay until the end, tell of it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

import trio

from crush_trio.cli import exit_codes
from crush_trio.cli.brought import bring_here
from crush_trio.cli.group import code_of
from crush_trio.cli.interrupts import Interrupts
from crush_trio.cli.link import Link, linked
from crush_trio.cli.options import ServerFlags
from crush_trio.cli.output import (
    StdoutClosed,
    StdoutFailed,
    say,
    warn,
    write_last_line,
    write_lines,
)
from crush_trio.cli.render import failure_sentence
from crush_trio.cli.result import ERROR_WORDS, error_object, result_line
from crush_trio.cli.sanitize import for_terminal
from crush_trio.cli.session_flow import find_session, workspace_id
from crush_trio.cli.wait_flow import finished
from crush_trio.client.errors import ServerRefused
from crush_trio.client.shapes import JsonObject, child, children, number, required, text
from crush_trio.limits import CANCEL_FOLLOW_S, RECONNECT_TIMEOUT_S
from crush_trio.protocol.errors import CrushError


class KindOptions(NamedTuple):
    """What ``session summarize`` or ``session shell`` was asked for; ``kind`` is the route."""

    flags: ServerFlags
    cwd: str
    session: str
    kind: str
    body: Mapping[str, Any]
    as_json: bool


async def run_kind(options: KindOptions) -> int:
    """Carry it out; the exit code is the run's, as for ``run``."""
    running = _Running(options)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.interrupts.listen)
        code = await running.go()
        nursery.cancel_scope.cancel()
    return code


class _Running:
    """One such command, from its flags to its last line."""

    def __init__(self, options: KindOptions) -> None:
        self.options = options
        self.run_id = uuid.uuid4().hex
        self.interrupts = Interrupts(self._interrupted, self._last_words)
        self._scope = trio.CancelScope()
        self._link: Link | None = None
        self._session = ""
        self._told = False

    async def go(self) -> int:
        try:
            return await self._to_the_end()
        except StdoutClosed:
            return exit_codes.STDOUT_CLOSED
        except CrushError as exc:
            return await self._finish_in_error(exc)

    async def _finish_in_error(self, exc: CrushError) -> int:
        code = self.interrupts.exit_code or code_of(exc)
        warn(str(exc))
        word, retryable = ERROR_WORDS.get(code, "failed"), False
        if isinstance(exc, ServerRefused):
            word, retryable = exc.code, exc.retryable
        error = error_object(word, str(exc), retryable=retryable)
        reason = "refused" if isinstance(exc, ServerRefused) else word
        try:
            await self._tell_no_end(code, reason, error)
        except StdoutClosed:
            return exit_codes.STDOUT_CLOSED
        except StdoutFailed:
            return exit_codes.FAILED
        return code

    async def _tell_no_end(
        self, code: int, reason: str, error: dict[str, Any] | None = None
    ) -> None:
        if self.options.as_json:
            self._told = True
            await write_lines([self._no_end(code, reason, error)])

    def _no_end(
        self, code: int, reason: str, error: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return result_line(
            run_id=self.run_id,
            session_id=self._session or None,
            record=None,
            exit_code=code,
            reason=reason,
            error=error,
        )

    def _last_words(self, code: int) -> None:
        """At the second signal: the result line even now, if stdout takes it without waiting."""
        if self.options.as_json and not self._told:
            write_last_line(self._no_end(code, "interrupted"))

    async def _to_the_end(self) -> int:
        with self._scope:
            async with linked(self.options.flags) as self._link:
                brought = await trio.to_thread.run_sync(
                    bring_here, self._link.target, self.options.cwd
                )
                workspace = await workspace_id(self._link, self.options.cwd, brought)
                found = await find_session(self._link, workspace, self.options.session)
                self._session = required(found, "id", "the session")
                body = {**self.options.body, "run_id": self.run_id, "wait": False}
                if brought.client_id is not None:
                    body["client_id"] = brought.client_id
                await self._link.api.start(workspace, self._session, self.options.kind, body)
                record = await finished(self._link, self.run_id, RECONNECT_TIMEOUT_S)
                return await self._tell(self._link, workspace, record)
        warn(f"it has not ended yet; for its end: crush-trio wait {self.run_id}")
        code = self.interrupts.exit_code or exit_codes.FAILED
        await self._tell_no_end(code, "interrupted")
        return code

    async def _interrupted(self) -> None:
        """The first Ctrl-C: cancel the run and wait for its end, for a few seconds."""
        self._scope.deadline = trio.current_time() + CANCEL_FOLLOW_S
        if self._link is None:
            return
        try:
            await self._link.api.cancel_run(self.run_id)
        except ServerRefused:  # it has not been accepted yet: then it is left alone
            self._scope.cancel()

    async def _tell(self, link: Link, workspace: str, record: JsonObject) -> int:
        code = exit_codes.exit_code(record)
        code = code if self.interrupts.exit_code is None else self.interrupts.exit_code
        process = await self._process_exit_code(link, workspace, record)
        if self.options.as_json:
            line = result_line(
                run_id=self.run_id, session_id=self._session, record=record, exit_code=code
            )
            self._told = True
            await write_lines([line | process])
        else:
            self._say(record, process)
        return code

    async def _process_exit_code(
        self, link: Link, workspace: str, record: JsonObject
    ) -> dict[str, int]:
        """What the command itself ended with, if it was one."""
        if self.options.kind != "shell":
            return {}
        for message in reversed(await link.api.messages(workspace, self._session)):
            if text(message, "id") == text(record, "message_id"):
                for part in children(message, "parts"):
                    if text(part, "type") == "shell_command":
                        return {"process_exit_code": number(child(part, "data"), "exit_code")}
        return {}

    def _say(self, record: JsonObject, process: Mapping[str, int]) -> None:
        if self.options.kind == "shell":
            output = text(record, "text").removesuffix("\n")
        else:
            output = text(record, "text") if record.get("outcome") == "completed" else ""
        if output:
            say(for_terminal(output))
        if record.get("outcome") != "completed":
            warn(failure_sentence(record))
        elif process.get("process_exit_code"):
            warn(f"the command ended with exit code {process['process_exit_code']}")
        elif self.options.kind == "summarize" and not number(record, "steps"):
            warn("there is nothing to summarise")
