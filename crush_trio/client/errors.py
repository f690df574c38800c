"""What can go wrong between a client and a server, sorted by whose doing it is."""

from __future__ import annotations

from crush_trio.protocol.errors import CrushError


class ServerRefused(CrushError):
    """The server answered and said no.

    Args:
        status: The HTTP status, or 0 for a websocket closed with a final code.
        code: The stable word of the error body; ``http_<status>`` when there was none.
        message: The server's sentence.
        retryable: Whether the same request may succeed later.
    """

    def __init__(self, status: int, code: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retryable = retryable


class Unreachable(CrushError):
    """Nobody answers there, or no longer: what became of the request is not known.

    ``refused`` says that nothing listens (as opposed to a silent or a broken peer).
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class BadAnswer(CrushError):
    """What answered does not speak our protocol."""


class UnsafeSocket(CrushError):
    """The socket, its directory or its peer belongs to somebody else: nothing was sent."""


class CannotStart(CrushError):
    """No server could be started; the text ends with the server's own last words."""


class BadUsage(CrushError):
    """The caller asked for something that cannot be: exit code 2."""


class Misconfigured(CrushError):
    """Something the user keeps in files or in the environment is wrong: exit code 4."""
