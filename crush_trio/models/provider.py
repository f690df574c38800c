"""A provider and one of its models as they are configured: what a request needs to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from crush_trio.protocol.models import ModelInfo


@attrs.frozen
class Access:
    """Where a provider is and how we show who we are; templates are expanded.

    ``headers`` come last, so they may replace what a dialect sends. Nothing here is ever logged.
    """

    base_url: str
    api_key: str = attrs.field(default="", repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.frozen(eq=False)
class Provider:
    """One provider.

    Args:
        id: The part of a model's name before the first slash.
        name: What people read.
        dialect: A name of `models.dialects.DIALECTS`: which protocol it speaks.
        access: Expands address, key and headers. May block (a ``$(command)``), so it is called in
            a thread; called again after a 401 (CW 5.6). Raises `ConfigError`.
        extra_body: Members added to each request's JSON body, over everything else.
        system_prompt_prefix: Put before the system prompt.
        quirks: Names of what differs from the dialect's own provider, see the dialect.
        is_local: It runs on this machine: no key, no price, short time limits to connect.
    """

    id: str
    name: str
    dialect: str
    access: Callable[[], Access]
    extra_body: Mapping[str, Any] = attrs.field(factory=dict)
    system_prompt_prefix: str = ""
    quirks: frozenset[str] = frozenset()
    is_local: bool = False


@attrs.frozen
class Choice:
    """How a model was chosen to answer (CW 10.2, SelectedModel); ``None`` leaves it to the model.

    ``options`` go into the request's body unchanged.
    """

    reasoning_effort: str | None = None
    think: bool | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Target:
    """What a request goes to: a model of a provider, and how it was chosen to answer."""

    provider: Provider
    info: ModelInfo
    choice: Choice = Choice()
