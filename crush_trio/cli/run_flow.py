"""``crush-trio run`` at work: follow, submit, stay until the end, and say how it ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import trio

from crush_trio.cli import exit_codes
from crush_trio.cli.brought import Brought, bring_here
from crush_trio.cli.group import code_of
from crush_trio.cli.interrupts import Interrupts
from crush_trio.cli.link import Link, linked
from crush_trio.cli.output import (
    StdoutClosed,
    StdoutFailed,
    say,
    warn,
    write_last_line,
    write_lines,
)
from crush_trio.cli.person import Person
from crush_trio.cli.progress import Progress
from crush_trio.cli.render import failure_sentence
from crush_trio.cli.result import ERROR_WORDS, error_object, result_line, start_line
from crush_trio.cli.run import RunOptions
from crush_trio.cli.run_checks import check_model, earlier
from crush_trio.cli.run_watch import RunWatch
from crush_trio.cli.session_flow import find_session
from crush_trio.client.autostart import wait_gone
from crush_trio.client.errors import ServerRefused, Unreachable
from crush_trio.client.follow import Follow, Subscription, backoff, follow
from crush_trio.client.shapes import JsonObject, number, required, text
from crush_trio.limits import CANCEL_FOLLOW_S, CLIENT_CANCEL_REQUEST_S
from crush_trio.protocol.errors import CrushError

T = TypeVar("T")
SESSION_TITLE = "non-interactive"
_LEAVING = frozenset({"server_stopping", "workspace_closing"})


async def run_prompt(options: RunOptions) -> int:
    """Carry out ``run``; the exit code. Every expected failure has been told by then."""
    running = _Running(options)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.interrupts.listen)
        if running.person is not None:
            nursery.start_soon(running.person.serve)
        code = await running.go()
        nursery.cancel_scope.cancel()
    return code


class _Running:
    """One ``run`` command, from its flags to its last line."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.interrupts = Interrupts(self._interrupted, self._last_words)
        self._scope = trio.CancelScope()
        self._watch = RunWatch(options.run_id)
        self._progress = Progress(options.quiet, options.verbose, options.color)
        asks = options.body.get("permission_mode") == "ask" and not options.detach
        self.person = Person(self._progress.pause, self._progress.resume) if asks else None
        self._link: Link | None = None
        self._workspace: str | None = None
        self._session: str | None = None
        self._receipt: JsonObject = {}
        self._submitting = False
        self._started = False
        self._ended = False
        self._cancel_told = False
        self._notices: list[str] = []
        self._made_session: str | None = None
        self._brought = Brought()
        self._sent = False

    async def go(self) -> int:
        try:
            return await self._to_the_end()
        except StdoutClosed:
            self._say_where_it_is("nobody reads stdout any more")
            return exit_codes.STDOUT_CLOSED
        except CrushError as exc:
            return await self._finish_in_error(exc)

    async def _to_the_end(self) -> int:
        with self._scope:
            async with linked(self.options.flags, quiet=self.options.quiet) as self._link:
                await self._prepare(self._link)
                if self.options.detach:
                    await self._submit(self._link)
                    return await self._detached()
                async with follow(self._subscription(self._link)) as stream:
                    begin = stream.cursor or 0
                    await self._submit(self._link)
                    if number(self._receipt, "seq") < begin:
                        # The run is older than our stream, its end perhaps too (G3).
                        self._watch.adopt(await self._link.api.run(self.options.run_id))
                        await self._adopt_asked()
                    with self._progress:
                        record = await self._follow(self._link, stream)
                if record is not None:
                    return await self._finish(record)
        return await self._left_early()

    # --- before -------------------------------------------------------------------------

    async def _prepare(self, link: Link) -> None:
        self._brought = await trio.to_thread.run_sync(
            bring_here, link.target, self.options.cwd, self.options.body.get("client_id")
        )
        workspace = await self._patiently(lambda: self._open(link))
        self._workspace = required(workspace, "id", "the workspace")
        if self.person is not None:
            self.person.connect(link.api, self._workspace)
        if self.options.require_model:
            wanted = self.options.body.get("model")
            await check_model(link, self._workspace, wanted, self._brought.client_id)
        self._session = await self._choose_session(link, self._workspace)
        self._notices = _sentences(workspace)

    async def _open(self, link: Link) -> JsonObject:
        brought = self._brought
        return await link.api.open_workspace(self.options.cwd, brought.client_id, brought.env)

    async def _choose_session(self, link: Link, workspace: str) -> str:
        wanted = self.options.session
        if wanted is not None:
            return required(await find_session(link, workspace, wanted), "id", "the session")
        if self.options.named:
            before = await earlier(link, self.options.run_id)
            if before is not None:  # the same command again: the same prompt in the same session
                return required(before, "session_id", "the run")
        made = await link.api.create_session(workspace, SESSION_TITLE)
        self._made_session = required(made, "id", "the session")
        return self._made_session

    def _subscription(self, link: Link) -> Subscription:
        workspace, session = self._workspace or "", self._session
        return Subscription(
            endpoint=link.target.endpoint,
            token=link.target.token,
            workspace=workspace,
            session=session,
            snapshot=lambda: link.api.snapshot(workspace, session),
            revive=link.revive if link.autostart and link.target.data_dir else None,
            reconnect_timeout=self.options.reconnect_timeout,
            client_id=self.options.body.get("client_id"),
        )

    async def _submit(self, link: Link) -> None:
        body = {
            **self.options.body,
            "run_id": self.options.run_id,
            "session_id": self._session,
            "prompt": self.options.prompt,
        }
        if self._brought.client_id is not None:
            body["client_id"] = self._brought.client_id
        self._submitting = True
        workspace = self._workspace or ""
        refused: ServerRefused | None = None
        try:
            self._receipt = await self._patiently(lambda: self._send(link, workspace, body))
        except ServerRefused as exc:
            refused = exc
        if refused is not None:
            await self._undo_session(link, workspace)
            raise refused
        if not self.options.quiet:
            for notice in (*self._notices, *_sentences(self._receipt)):
                warn(notice)
        await self._let_go(link, workspace)
        if self.interrupts.signum is not None:
            await self._ask_to_cancel()  # the first request may have come before the run
        await self._start_line()

    async def _send(self, link: Link, workspace: str, body: JsonObject) -> JsonObject:
        if self._sent and self._brought.env:
            await self._open(link)  # another server by now, perhaps, which has not got it
        self._sent = True
        return await link.api.submit(workspace, body)

    async def _let_go(self, link: Link, workspace: str) -> None:
        """The run has what we brought; only a stream of ours may have to hold the workspace."""
        if self._brought.client_id is not None and "client_id" not in self.options.body:
            with suppress(CrushError):  # then the hold ends by itself
                await link.api.release(workspace, self._brought.client_id)

    async def _undo_session(self, link: Link, workspace: str) -> None:
        """A refusal changes nothing (G14): the session made for the prompt goes again."""
        if self._made_session is not None:
            # If this fails too, the refusal is still what there is to tell.
            with suppress(CrushError):
                await link.api.delete_session(workspace, self._made_session)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """``call`` until it is answered, across a server that is just leaving or has died.

        Only a server of ours is found again; what was sent twice is harmless (G3).
        """
        deadline = trio.current_time() + self.options.reconnect_timeout
        attempt = 0
        while True:
            try:
                return await call()
            except (ServerRefused, Unreachable) as exc:
                link = self._link
                leaving = isinstance(exc, Unreachable) or exc.code in _LEAVING
                if link is None or not (leaving and link.autostart and link.target.data_dir):
                    raise
                pause = backoff(attempt, lambda: 1.0)
                if trio.current_time() + pause > deadline:
                    raise
                if isinstance(exc, ServerRefused) and exc.code == "server_stopping":
                    await wait_gone(link.http)
                await trio.sleep(pause)
                attempt += 1
                await link.revive()

    # --- during -------------------------------------------------------------------------

    async def _follow(self, link: Link, stream: Follow) -> JsonObject | None:
        """The record of the run that counts, or ``None`` when the patience of the caller ended."""
        limit = self.options.wait_timeout
        with trio.move_on_after(float("inf") if limit is None else limit):
            while not self._watch.ended:
                await self._take_batch(link, await stream.receive_batch())
            return self._watch.record or await link.api.run(self._watch.current)
        return None

    async def _take_batch(self, link: Link, batch: list[JsonObject]) -> None:
        shown = []
        for frame in batch:
            before = self._watch.current
            if self._watch.take(frame):
                shown.append(frame)
                self._progress.take(frame)
                if self.person is not None:
                    self.person.take(frame)
            if frame.get("type") == "resync" or self._watch.current != before:
                self._watch.adopt(await link.api.run(self._watch.current))
                await self._adopt_asked()
            if self._watch.ended:
                break
        if self.options.format == "stream-json":
            await write_lines(shown)

    async def _adopt_asked(self) -> None:
        if self.person is not None:
            await self.person.adopt(self._watch.is_ours)

    async def _interrupted(self) -> None:
        """The first Ctrl-C: cancel the run and follow it to its end, for a few seconds."""
        if not self._submitting:
            self._scope.cancel()
            return
        self._scope.deadline = trio.current_time() + CANCEL_FOLLOW_S
        await self._ask_to_cancel()

    async def _ask_to_cancel(self) -> None:
        if self._link is None:
            return
        with trio.move_on_after(CLIENT_CANCEL_REQUEST_S):
            try:
                await self._link.api.cancel_run(self.options.run_id)
                self._cancel_told = True
            except CrushError:
                # Not accepted yet (then it is asked again), or out of reach (then we say so).
                self._cancel_told = False

    # --- after --------------------------------------------------------------------------

    async def _detached(self) -> int:
        if self.options.format == "text":
            say(self.options.run_id)
        await self._result_line(None, exit_codes.COMPLETED, reason="detached")
        return exit_codes.COMPLETED

    async def _finish(self, record: JsonObject) -> int:
        code = exit_codes.exit_code(record)
        code = code if self.interrupts.exit_code is None else self.interrupts.exit_code
        answer = text(record, "text")
        self._write_last_message(answer)
        if self.options.format == "text" and answer:
            say(answer)
        sentence = failure_sentence(record)
        if sentence:
            warn(sentence)
        await self._result_line(record, code)
        return code

    async def _left_early(self) -> int:
        """No record: interrupted, or ``--wait-timeout`` passed."""
        code = self.interrupts.exit_code
        if code is None:
            self._say_where_it_is("it has not ended yet")
            await self._result_line(None, exit_codes.WAIT_TIMEOUT, reason="wait_timeout")
            return exit_codes.WAIT_TIMEOUT
        if self._submitting:
            told = "was asked to stop" if self._cancel_told else "could not be asked to stop"
            self._say_where_it_is(f"it {told}")
        await self._result_line(None, code, reason="interrupted")
        return code

    async def _finish_in_error(self, exc: CrushError) -> int:
        code = self.interrupts.exit_code or code_of(exc)
        refused = isinstance(exc, ServerRefused)
        warn(str(exc))
        if self._submitting and isinstance(exc, Unreachable):
            self._say_where_it_is("its outcome is not known")
        word = exc.code if isinstance(exc, ServerRefused) else ERROR_WORDS.get(code, "failed")
        error = error_object(
            word, str(exc), retryable=isinstance(exc, ServerRefused) and exc.retryable
        )
        try:
            await self._result_line(None, code, reason="refused" if refused else word, error=error)
        except StdoutClosed:
            return exit_codes.STDOUT_CLOSED
        except StdoutFailed:
            return exit_codes.FAILED
        return code

    def _say_where_it_is(self, what: str) -> None:
        if self._submitting:
            warn(f"{what}; for its end: crush-trio wait {self.options.run_id}")

    def _write_last_message(self, answer: str) -> None:
        if self.options.last_message is not None:
            try:
                with open(self.options.last_message, "w", encoding="utf-8") as file:
                    file.write(answer)
            except OSError as exc:
                warn(f"{self.options.last_message} could not be written: {exc.strerror}")

    async def _start_line(self) -> None:
        if self.options.format == "stream-json" and not self._started:
            self._started = True
            await write_lines([self._first_line()])

    def _first_line(self) -> JsonObject:
        return start_line(
            run_id=self.options.run_id,
            session_id=self._session,
            workspace_id=self._workspace,
            receipt=self._receipt,
            server=self._link.version if self._link is not None else {},
        )

    async def _result_line(
        self,
        record: JsonObject | None,
        code: int,
        *,
        reason: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        if self.options.format == "text":
            return
        await self._start_line()
        line = self._last_line(record, code, reason, error)
        self._ended = True
        await write_lines([line])

    def _last_line(
        self,
        record: JsonObject | None,
        code: int,
        reason: str | None = None,
        error: dict[str, Any] | None = None,
    ) -> JsonObject:
        return result_line(
            run_id=self.options.run_id,
            session_id=self._session,
            record=record,
            exit_code=code,
            steered_into=self._watch.steered_into,
            reason=reason,
            error=error,
        )

    def _last_words(self, code: int) -> None:
        """At the second signal: the last line even now, if stdout takes it without waiting."""
        if self.options.format == "text" or self._ended:
            return
        if self.options.format == "stream-json" and not self._started:
            write_last_line(self._first_line())
        write_last_line(self._last_line(None, code, "interrupted"))


def _sentences(answer: JsonObject) -> list[str]:
    return [note for note in answer.get("notices", []) if type(note) is str]
