"""Writing to stdout and stderr: whole, flushed, and without ever holding up the event loop."""

from __future__ import annotations

import os
import select
import sys
from contextlib import suppress
from typing import Any

from crush_trio.cli.sanitize import for_terminal
from crush_trio.protocol.errors import CrushError

_PIPE_CHUNK = select.PIPE_BUF  # a pipe that polls as writable takes this much without blocking


class _Stdout:
    """What is known of our stdout."""

    missing = False
    """It was closed before we began."""
    in_a_line = False
    """Part of a line may have been written, the rest not yet."""


class StdoutClosed(Exception):
    """Whoever read our stdout has gone; the command ends with exit code 141."""


class StdoutFailed(CrushError):
    """Our stdout takes nothing more, as a file on a full disk."""


def stdout_is_terminal() -> bool:
    """Whether a person looks at our answer."""
    return os.isatty(1)


def stderr_is_terminal() -> bool:
    """Whether a person looks at our progress."""
    return os.isatty(2)


def say(text: str) -> None:
    """Write ``text`` and a newline to stdout; harmless if that is a terminal.

    Raises:
        StdoutClosed, StdoutFailed: See `write_stdout`.
    """
    if stdout_is_terminal():
        text = for_terminal(text)
    view = memoryview((text + "\n").encode("utf-8", "backslashreplace"))
    while view:
        view = view[_write_some(view) :]


def _write_some(view: memoryview) -> int:
    if _Stdout.missing:
        raise StdoutClosed
    try:
        return os.write(1, view)
    except BrokenPipeError as exc:
        raise StdoutClosed from exc
    except OSError as exc:
        raise StdoutFailed(f"stdout cannot be written: {exc.strerror}") from exc


def warn(text: str) -> None:
    """Write one line to stderr, ``crush-trio: `` in front; a closed stderr is nobody's loss."""
    line = for_terminal(text) if stderr_is_terminal() else text
    note(f"crush-trio: {line}")


def note(text: str) -> None:
    """Write one line to stderr as it is; a closed stderr is nobody's loss."""
    try:
        os.write(2, (text + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        return


async def write_stdout(data: bytes) -> None:
    """Write all of ``data``; a reader that does not read keeps waiting this task alone.

    Raises:
        StdoutClosed: Nobody reads it any more.
        StdoutFailed: It cannot be written for another reason.
    """
    import trio

    poll = select.poll()
    poll.register(1, select.POLLOUT)
    view = memoryview(data)
    _Stdout.in_a_line = True
    while view:
        if not poll.poll(0):
            await trio.lowlevel.wait_writable(1)
        view = view[_write_some(view[:_PIPE_CHUNK]) :]
    _Stdout.in_a_line = False


async def write_lines(items: list[Any]) -> None:
    """Write each of ``items`` as one line of JSON; see `write_stdout`."""
    import orjson

    if items:
        await write_stdout(b"".join(orjson.dumps(item) + b"\n" for item in items))


def write_last_line(item: Any) -> None:
    """Write ``item`` as a line of JSON if that does not wait; for who leaves this instant.

    A signal handler may call it: into the middle of another line nothing is written.
    """
    import orjson

    line = orjson.dumps(item) + b"\n"
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    if not _Stdout.in_a_line and len(line) <= _PIPE_CHUNK and poll.poll(0):
        with suppress(StdoutClosed, StdoutFailed):  # then nobody misses it
            _write_some(memoryview(line))


def keep_standard_streams_open() -> None:
    """Put ``/dev/null`` where stdin, stdout or stderr is closed.

    Otherwise the next socket would get its number, and our answer would go there. An answer that
    has to go to stdout raises `StdoutClosed` then: nobody got it.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            _Stdout.missing |= fd == 1
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
