"""Keys taken out of what a provider, or what stands before it, says back about a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from crush_trio.models.failures import Failure
from crush_trio.models.masking import masked, secrets_among
from crush_trio.models.provider import Provider

_PLAIN: Final = frozenset(
    [
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "content-type",
        "user-agent",
        "x-title",
    ]
)
"""Headers that hold no secret; any other may."""


@contextmanager
def hidden(headers: Mapping[str, str], provider: Provider) -> Iterator[None]:
    """Failures raised inside quote nothing of what was sent with ``headers``.

    A value that is part of its provider's name, as a local server's key may be, is no secret.
    """
    try:
        yield
    except Failure as failure:
        sent = (value for name, value in headers.items() if name.lower() not in _PLAIN)
        names = f"{provider.id} {provider.name}".casefold()
        secrets = [each for each in secrets_among(sent) if each.casefold() not in names]
        failure.message = masked(failure.message, secrets)
        raise
