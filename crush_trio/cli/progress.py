"""What a run is doing, on stderr: a status line and one line per tool call, for people only."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import TYPE_CHECKING

from crush_trio.cli.live_text import LiveText
from crush_trio.cli.output import note, stderr_is_terminal
from crush_trio.cli.render import ToolLines, current_todo, status_text
from crush_trio.client.shapes import JsonObject, child, text

if TYPE_CHECKING:
    from rich.status import Status
    from rich.text import Text

_LINE_CHARS = 100
_BESIDE_CHARS = 6  # the moving sign, and what stands between it, what is done and what is said


class Progress:
    """Shows itself on a terminal unless ``quiet``; with ``verbose`` tool lines go anywhere.

    The status line needs `rich`, which is imported only when it is really shown.
    """

    def __init__(self, quiet: bool, verbose: bool, color: bool) -> None:
        self._lines = verbose or (stderr_is_terminal() and not quiet)
        self._spin = stderr_is_terminal() and not quiet
        self._color = color
        self._tools = ToolLines(_LINE_CHARS)
        self._said = LiveText()
        self._record: JsonObject = {}
        self._at = ""
        self._sandbox = ""
        self._began = 0.0
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        if self._spin:
            from rich.console import Console
            from rich.status import Status

            console = Console(stderr=True, no_color=not self._color, highlight=False)
            self._status = Status("", console=console)
            self._status.update(self._text())
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def take(self, frame: JsonObject) -> None:
        """Show what ``frame`` changes."""
        if not self._lines:
            return
        if frame.get("type") == "run":
            record = child(child(frame, "payload"), "payload")
            # A sub-agent's tools are shown; what the run itself waits for is its own.
            self._record = self._record if text(record, "parent_run") else record
            self._tell_sandbox(text(self._record, "sandbox"))
        if frame.get("type") == "session":
            session = child(child(frame, "payload"), "payload")
            if not text(session, "parent_session_id"):
                self._at = current_todo(session)
        for line in self._tools.take(frame):
            self._print(line)
        self._said.take(frame)
        if self._status is not None:
            self._status.update(self._text())

    def _tell_sandbox(self, mode: str) -> None:
        """Say once what the run may touch, if that is not everything."""
        if mode not in ("", "off", self._sandbox):
            self._sandbox = mode
            self._print(f"sandbox: {mode}")

    def pause(self) -> None:
        """Leave the terminal to a question, until `resume`."""
        if self._status is not None:
            self._status.stop()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._status is not None:
            self._status.start()

    def _print(self, line: str) -> None:
        if self._status is None:
            note(line)
            return
        with contextlib.suppress(OSError):  # a terminal that went away is nobody's loss
            self._status.console.print(line, markup=False, style="dim", soft_wrap=True)

    def _text(self) -> Text:
        """The status line: what it does, and the end of what the model is writing.

        As plain text, because a model's brackets are not markup.
        """
        from rich.text import Text

        doing = status_text(self._record, self._tools.running, time.monotonic() - self._began)
        doing = f"{doing} · {self._at}" if self._at else doing
        width = self._status.console.width if self._status is not None else 0
        said = self._said.end(width - len(doing) - _BESIDE_CHARS)
        line = Text(doing, no_wrap=True, overflow="ellipsis")
        return line.append(f" · {said}", "dim") if said else line
