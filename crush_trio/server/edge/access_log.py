"""The access log: one JSON line per request, in a file only we can read, of bounded size.

It never holds a header value, a query or a path: the route's template stands for the path.
"""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs
import orjson

from crush_trio.limits import ACCESS_LOG_BYTES, ACCESS_LOG_FILES

ACCESS_LOG_FILE: Final = "access.log"
"""Name of the access log in the data directory."""

CLIENT_GONE: Final = 499
"""Logged as the status when the client left before an answer was begun."""


@attrs.frozen
class Access:
    """One finished request.

    Attributes:
        peer: ``unix pid=… uid=…`` or an IP address.
        principal: Who acted, or ``None`` if nobody was authenticated.
        method: Of the request.
        route: The template it matched, as in ``/v1/runs/<run_id>``, or ``None``.
        status: Of the answer; 101 for a websocket that was accepted.
        run_id: Of the run it was about, if any.
        duration_ms: From the head of the request to the end of the answer.
    """

    peer: str
    principal: str | None
    method: str
    route: str | None
    status: int
    run_id: str | None
    duration_ms: float


class JsonLines(logging.Formatter):
    """A record whose ``args`` is an `Access`, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: Access = record.__dict__["access"]
        return orjson.dumps({"time": time, **attrs.asdict(entry)}).decode()


class PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """A rotating log file that is 0600 from the start, whatever the umask, and never a link."""

    def _open(self) -> io.TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.baseFilename, flags, 0o600)
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:
        """Says once that lines are missing; a full disk must not stop the serving of requests."""
        if not self._failed:
            self._failed = True
            log = logging.getLogger("crush_trio.http")
            log.exception("%s cannot be written", self.baseFilename)

    _failed = False


class AccessLog:
    """Writes `Access` lines to a file; 4 old files of 8 MiB are kept.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._handler = PrivateRotatingFile(
            path, maxBytes=ACCESS_LOG_BYTES, backupCount=ACCESS_LOG_FILES, encoding="utf-8"
        )
        self._handler.setFormatter(JsonLines())

    def write(self, entry: Access) -> None:
        """Appends one line; does not wait and does not raise."""
        record = logging.LogRecord("crush_trio.access", logging.INFO, "", 0, "", None, None)
        record.access = entry
        self._handler.handle(record)

    def close(self) -> None:
        """Closes the file."""
        self._handler.close()
