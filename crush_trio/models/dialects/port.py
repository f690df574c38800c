"""What a dialect is: pure translation, without sockets, clocks or retries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import attrs

from crush_trio.agent.ports import Emit, ModelRequest, StepEnd
from crush_trio.models.failures import Failure
from crush_trio.models.provider import Access, Target


@attrs.frozen
class HttpCall:
    """One HTTP POST whose answer is streamed; ``body`` is sent as JSON."""

    url: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: Mapping[str, Any] = attrs.field(repr=False)


class AnswerReader(Protocol):
    """Reads one answer of a provider, event by event."""

    def feed(self, event: str, data: str) -> None:
        """Take the next server-sent event: its name (``message`` if it has none) and its data.

        Emits at once what it can. What it does not understand but may ignore, it ignores.

        Raises:
            Failure: The provider reports an error inside the stream, or the data is broken.
        """
        ...

    @property
    def is_done(self) -> bool:
        """The provider has said that nothing more comes; the rest need not be waited for."""
        ...

    def end(self) -> StepEnd:
        """The stream is over: close what is open, and say how the answer ended.

        Raises:
            Failure: It broke off (`Kind.TRUNCATED`), or is empty (`Kind.EMPTY`).
        """
        ...


class Dialect(Protocol):
    """One protocol. Every method is pure."""

    def call(self, request: ModelRequest, target: Target, access: Access) -> HttpCall:
        """The HTTP request for one step; ``request.messages`` are valid (G7).

        Images go along only if the model takes them; reasoning with its signature only if the
        same provider and model wrote it.
        """
        ...

    def reader(self, request: ModelRequest, target: Target, emit: Emit) -> AnswerReader:
        """What reads the answer to one such call for ``request``."""
        ...

    def failure(
        self, status: int, headers: Mapping[str, str], body: bytes, target: Target
    ) -> Failure:
        """What an answer with an error status means (keys of ``headers`` are lower case).

        ``body`` is the beginning of it, whatever that is: JSON of the dialect, of a proxy, HTML.
        """
        ...

    def models_call(self, access: Access) -> HttpCall:
        """The GET request that lists the provider's models; its body is empty."""
        ...

    def models(self, body: bytes) -> tuple[str, ...]:
        """Model ids from the answer to that.

        Raises:
            Failure: It is not such a list.
        """
        ...
