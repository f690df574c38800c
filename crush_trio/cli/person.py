"""The person at the terminal of a ``run``: asked about what the run waits for."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import trio

from crush_trio.cli import asked, shown
from crush_trio.cli.escaped import folded
from crush_trio.cli.output import note, stderr_is_terminal, warn
from crush_trio.cli.sanitize import for_terminal
from crush_trio.client.api import Api
from crush_trio.client.errors import ServerRefused
from crush_trio.client.shapes import JsonObject, child, children, text
from crush_trio.limits import ASK_QUIET_S
from crush_trio.protocol.errors import CrushError

_KINDS = {"permission_request": "permission", "question_batch_request": "question"}
_LINE_BYTES = 64 * 1024
_BESIDE_ROWS = 3
"""Rows of the terminal that a page leaves to its prompt."""
_KEYS = "[y]es, [s]ession, [n]o, [d]eny and say why, [?] help: "
_HELP = """\
  y  allow this one call
  s  allow it, and for the rest of this session {covers}
  n  deny it
  d  deny it and tell the model why (also: n and the reason)"""


class Person:
    """Shows each request once, whole, and takes an answer from the terminal.

    Without a terminal, or after the end of its input, it says for each request where else it can
    be answered. One that ends in another way is not asked about any more.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause = pause
        self._resume = resume
        self._waiting: dict[str, tuple[str, JsonObject, bool]] = {}
        self._changed = trio.Event()
        self._now: str | None = None
        self._answering = False
        self._scope = trio.CancelScope()
        self._api: Api | None = None
        self._workspace = ""
        self._fd = _terminal()

    def connect(self, api: Api, workspace: str) -> None:
        """Where answers go."""
        self._api, self._workspace = api, workspace

    def take(self, frame: JsonObject) -> None:
        """Learn from a frame of the run's session, or of one below it; never waits."""
        payload = child(child(frame, "payload"), "payload")
        kind = _KINDS.get(text(frame, "type"))
        if kind is not None:
            self._add(kind, payload, cut="truncated" in frame)
        elif frame.get("type") == "permission_notification":
            self._remove(text(payload, "request_id"), payload)
        elif frame.get("type") == "question_batch_notification":
            self._remove(text(payload, "batch_id"), payload)

    async def adopt(self, is_ours: Callable[[str], bool]) -> None:
        """Find what the run waits for already, as after a lost stream, and what no longer."""
        if self._api is None:
            return
        found: set[str] = set()
        for kind, items in (
            ("permission", await self._api.permissions(self._workspace)),
            ("question", await self._api.questions(self._workspace)),
        ):
            for item in items:
                if is_ours(text(item, "run_id")):
                    found.add(self._add(kind, child(item, "request"), cut=False))
        for gone in self._waiting.keys() - found:
            self._remove(gone, {})

    async def serve(self) -> None:
        """Ask about one request after another; ends with the nursery."""
        while True:
            while not self._waiting:
                await self._changed.wait()
            self._now = next(iter(self._waiting))
            kind, request, cut = self._waiting[self._now]
            with trio.CancelScope() as self._scope:
                await self._ask(kind, request, cut=cut)
            self._waiting.pop(self._now, None)
            self._now = None

    def _add(self, kind: str, request: JsonObject, *, cut: bool) -> str:
        key = text(request, "id")
        self._waiting.setdefault(key, (kind, request, cut))
        self._changed.set()
        self._changed = trio.Event()
        return key

    def _remove(self, key: str, ended: JsonObject) -> None:
        if key != self._now:
            self._waiting.pop(key, None)
        elif not self._answering:  # else our answer says what became of it
            if self._fd is not None:
                note(f"\n── {_how(ended)}")
            self._scope.cancel()

    async def _ask(self, kind: str, request: JsonObject, *, cut: bool) -> None:
        if self._fd is None:
            self._refer(kind, request)
            await trio.sleep_forever()
        self._pause()
        try:
            if cut and self._api is not None:  # nobody allows what he has seen a part of
                item = await self._api.permission(self._workspace, text(request, "id"))
                request = child(item, "request")
            answer = self._permission if kind == "permission" else self._questions
            await answer(request)
        except EOFError:
            self._fd = None
            self._refer(kind, request)
            await trio.sleep_forever()
        except ServerRefused as exc:
            if exc.code != "request_not_found":  # it has ended meanwhile
                warn(str(exc))
        except CrushError as exc:  # who follows the run finds out, too
            warn(str(exc))
        finally:
            self._answering = False
            self._resume()

    def _refer(self, kind: str, request: JsonObject) -> None:
        about = "a permission" if kind == "permission" else "an answer"
        name = text(request, "id")
        warn(f"the run waits for {about}; from another terminal: crush-trio approvals show {name}")

    async def _permission(self, request: JsonObject) -> None:
        action, message = await self._shown_whole(shown.permission_lines(request))
        while not action:
            word, _, rest = (await self._line(f"allow? {_KEYS}")).partition(" ")
            word = word.casefold()
            if word in ("y", "yes"):
                action = "allow"
            elif word in ("s", "session"):
                action = await self._session(request)
            elif word in ("n", "no"):
                action, message = "deny", rest.strip()
            elif word in ("d", "deny"):
                action, message = "deny", rest.strip() or await self._line("tell the model: ")
            elif word == "?":
                note(_HELP.format(covers=shown.for_session(request)))
        if self._api is not None:
            self._answering = True
            _tell_if_late(await self._api.grant(self._workspace, request, action, message))

    async def _session(self, request: JsonObject) -> str:
        """The second step of what lasts: what would be covered, and whether that was meant."""
        covers = shown.for_session(request)
        said = await self._line(f"for the rest of this session {covers}? [y]es, else back: ")
        return "allow_session" if said.casefold() in ("y", "yes") else ""

    async def _shown_whole(self, lines: Sequence[str]) -> tuple[str, str]:
        """Show all of it, page by page if it is long; an action if it was denied on the way."""
        columns, rows = _terminal_size()
        folds = folded(lines, columns - 1)
        page = max(5, rows - _BESIDE_ROWS)
        if len(folds) <= page:
            page = len(folds)
        for at in range(0, len(folds), page):
            note("\n".join(folds[at : at + page]))
            left = len(folds) - at - page
            if left <= 0:
                break
            said = ""
            while not said:
                said = await self._line(
                    f"-- {left} more row{'' if left == 1 else 's'}: [m]ore, [a]ll, [n]o -- "
                )
                word, _, rest = said.partition(" ")
                if word.casefold() in ("n", "no", "d", "deny"):
                    return "deny", rest.strip()
                if word.casefold() in ("a", "all"):
                    note("\n".join(folds[at + page :]))
                    return "", ""
                said = said if word.casefold() in ("m", "more") else ""
        return "", ""

    async def _questions(self, request: JsonObject) -> None:
        responses: list[dict[str, Any]] = []
        for question in children(request, "questions"):
            note(asked.question_text(question))
            found = None
            while found is None:
                found = asked.response(question, await self._line(f"({asked.hint(question)}): "))
            responses.append(found)
        if self._api is not None:
            self._answering = True
            batch = text(request, "id")
            _tell_if_late(await self._api.answer_questions(self._workspace, batch, responses))

    async def _line(self, prompt: str) -> str:
        """One line from the terminal; what was typed before the prompt does not count.

        The prompt comes a moment after what it is about, so that a key that was meant for
        something else has been pressed by then.
        """
        fd = self._fd
        if fd is None:
            raise EOFError
        await trio.sleep(ASK_QUIET_S)
        with suppress(OSError, termios.error):  # then it is no terminal any more, and reads fail
            termios.tcflush(fd, termios.TCIFLUSH)
        os.write(2, prompt.encode("utf-8", "backslashreplace"))
        await trio.lowlevel.wait_readable(fd)
        try:
            raw = os.read(fd, _LINE_BYTES)
        except OSError as exc:
            raise EOFError from exc
        if not raw:
            raise EOFError
        return for_terminal(raw.decode("utf-8", "replace")).strip()


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


def _terminal_size() -> tuple[int, int]:
    """Columns and rows; those of a usual terminal where it does not say."""
    try:
        columns, rows = os.get_terminal_size(2)
    except OSError:
        columns = rows = 0
    return max(20, columns or 80), rows or 24


def _how(ended: JsonObject) -> str:
    ending = text(ended, "ending")
    who = text(ended, "decided_by")
    by = f" by {who}" if who else ""
    match ending:
        case "withdrawn":  # our own Ctrl-C, too
            return f"withdrawn, since the run was ended{by}"
        case "expired":
            return "expired: nobody answered in time"
        case "allowed_session":
            return f"allowed for the session, elsewhere{by}"
    return f"{ending or 'ended'} elsewhere{by}"


def _tell_if_late(resolution: JsonObject) -> None:
    if resolution.get("resolved") is not True:
        who = text(resolution, "decided_by")
        ending = text(resolution, "ending").replace("_", " ") or "gone"
        warn(f"it was {ending} already" + (f" by {who}" if who else ""))
