"""What can go wrong on the way to an HTTP server, whoever asks."""

from __future__ import annotations

from enum import Enum

from crush_trio.protocol.errors import CrushError


class HttpKind(Enum):
    """The class of a failure, by where it happened."""

    NETWORK = "network"  # no connection, or one that closed without an answer
    NOBODY = "nobody"  # nothing listens on that port of this machine
    ADDRESS = "address"  # a policy refuses the address
    PROXY = "proxy"
    TLS = "tls"
    HEADER = "header"  # a header of the request cannot be sent
    TRUNCATED = "truncated"  # the answer broke off
    MALFORMED = "malformed"  # the answer is not HTTP


class HttpFailure(CrushError):
    """An exchange did not come to its end.

    Args:
        kind: Its class.
        message: One sentence for people; never a key, never a body.
    """

    def __init__(self, kind: HttpKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
