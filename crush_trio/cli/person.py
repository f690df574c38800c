"""The person at the terminal of a ``run``: asked about what the run waits for."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from crush_trio.cli import asked
from crush_trio.cli.output import note, stderr_is_terminal, warn
from crush_trio.cli.sanitize import for_terminal
from crush_trio.client.api import Api
from crush_trio.client.shapes import JsonObject, child, children, text
from crush_trio.protocol.errors import CrushError

_KINDS = {"permission_request": "permission", "question_batch_request": "question"}
_LINE_BYTES = 64 * 1024


class Person:
    """Shows each request once and takes an answer from the terminal.

    Without a terminal, or after the end of its input, it says once that somebody else has to
    answer. A request that ends in another way is not asked about any more.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._waiting: dict[str, tuple[str, JsonObject]] = {}
        self._changed = trio.Event()
        self._now: str | None = None
        self._scope = trio.CancelScope()
        self._api: Api | None = None
        self._workspace = ""
        self._fd = _terminal()
        self._told = False

    def connect(self, api: Api, workspace: str) -> None:
        """Where answers go."""
        self._api, self._workspace = api, workspace

    def take(self, frame: JsonObject) -> None:
        """Learn from a frame of the run's session; never waits."""
        payload = child(child(frame, "payload"), "payload")
        kind = _KINDS.get(text(frame, "type"))
        if kind is not None:
            self._add(kind, payload)
        elif frame.get("type") == "permission_notification":
            self._remove(text(payload, "tool_call_id"))
        elif frame.get("type") == "question_batch_notification":
            self._remove(text(payload, "batch_id"))
        elif frame.get("type") == "run_complete":
            self._scope.cancel()

    async def adopt(self, run_id: str) -> None:
        """Find what the run waits for already, as after a lost stream."""
        if self._api is None:
            return
        for kind, items in (
            ("permission", await self._api.permissions(self._workspace)),
            ("question", await self._api.questions(self._workspace)),
        ):
            for item in items:
                if text(item, "run_id") == run_id:
                    self._add(kind, child(item, "request"))

    async def serve(self) -> None:
        """Ask about one request after another; ends with the nursery."""
        while True:
            while not self._waiting:
                await self._changed.wait()
            self._now = next(iter(self._waiting))
            kind, request = self._waiting[self._now]
            with trio.CancelScope() as self._scope:
                await self._ask(kind, request)
            self._waiting.pop(self._now, None)
            self._now = None

    def _add(self, kind: str, request: JsonObject) -> None:
        key = text(request, "tool_call_id" if kind == "permission" else "id")
        self._waiting.setdefault(key, (kind, request))
        self._changed.set()
        self._changed = trio.Event()

    def _remove(self, key: str) -> None:
        if key == self._now:
            self._scope.cancel()
        else:
            self._waiting.pop(key, None)

    async def _ask(self, kind: str, request: JsonObject) -> None:
        if self._fd is None:
            self._refer()
            await trio.sleep_forever()
        self._pause()
        try:
            answer = self._permission if kind == "permission" else self._questions
            await answer(request)
        except EOFError:
            self._fd = None
            self._refer()
            await trio.sleep_forever()
        except CrushError as exc:  # who follows the run finds out, too
            warn(str(exc))
        finally:
            self._resume()

    def _refer(self) -> None:
        if not self._told:
            self._told = True
            warn("the run waits for an answer; from another terminal: crush-trio approvals")

    async def _permission(self, request: JsonObject) -> None:
        note(asked.permission_text(request))
        while True:
            said = await self._line(
                "allow? [y]es, [s]ession: all of the above kind, [n]o [reason]: "
            )
            word, _, rest = said.partition(" ")
            action = _ACTIONS.get(word.casefold())
            if action is not None:
                break
        if self._api is not None:
            found = await self._api.grant(self._workspace, request, action, rest.strip())
            _tell_if_late(found)

    async def _questions(self, request: JsonObject) -> None:
        responses: list[dict[str, Any]] = []
        for question in children(request, "questions"):
            note(asked.question_text(question))
            found = None
            while found is None:
                found = asked.response(question, await self._line(f"({asked.hint(question)}): "))
            responses.append(found)
        if self._api is not None:
            batch = text(request, "id")
            _tell_if_late(await self._api.answer_questions(self._workspace, batch, responses))

    async def _line(self, prompt: str) -> str:
        """One line from the terminal; what was typed before the prompt does not count."""
        fd = self._fd
        if fd is None:
            raise EOFError
        with suppress(OSError, termios.error):  # then it is no terminal any more, and reads fail
            termios.tcflush(fd, termios.TCIFLUSH)
        os.write(2, prompt.encode())
        await trio.lowlevel.wait_readable(fd)
        try:
            raw = os.read(fd, _LINE_BYTES)
        except OSError as exc:
            raise EOFError from exc
        if not raw:
            raise EOFError
        return for_terminal(raw.decode("utf-8", "replace")).strip()


_ACTIONS = {
    "y": "allow",
    "yes": "allow",
    "s": "allow_session",
    "session": "allow_session",
    "n": "deny",
    "no": "deny",
}


def _terminal() -> int | None:
    """A descriptor to ask a person through, or ``None`` without one."""
    if not stderr_is_terminal():
        return None
    if os.isatty(0):
        return 0
    try:
        return os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _tell_if_late(resolution: JsonObject) -> None:
    if resolution.get("resolved") is not True:
        who = text(resolution, "decided_by")
        warn(
            f"it was {text(resolution, 'ending') or 'gone'} already" + (f" by {who}" if who else "")
        )
