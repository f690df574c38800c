"""What the tests of the way to a provider share: models that speak to a provider on loopback."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import orjson

from crush_trio.agent.ports import ModelEvent, StreamReset, TextDelta
from crush_trio.http.connections import Connections
from crush_trio.models.network.attempt import TimeLimits
from crush_trio.models.network.model import NetworkModel
from crush_trio.models.provider import Access
from tests.models.dialects.kit import target
from tests.models.network.provider import (
    Answering,
    FakeProvider,
    event,
    fake_provider,
    provider_in_memory,
)

BASE = {"openai-chat": "/v1", "openai-responses": "/v1", "anthropic": "", "gemini": "/v1beta"}


def say(text: str) -> bytes:
    """A piece of an answer in the Chat Completions protocol."""
    return event(orjson.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).decode())


STOP = event('{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
DONE = event("[DONE]")
HELLO = (say("Hel"), say("lo."), STOP, DONE)


def model_at(
    url: str,
    connections: Connections,
    *,
    dialect: str = "openai-chat",
    times: TimeLimits | None = None,
    key: str = "sk-secret",
    is_local: bool = False,
    headers: Mapping[str, str] | None = None,
) -> NetworkModel:
    """A model of the provider at ``url``; its waits have the same jitter each time."""
    access = Access(f"{url}{BASE[dialect]}", key, headers or {})
    return NetworkModel(
        target(dialect, access=access, is_local=is_local),
        connections,
        times=times,
        random=random.Random(1),
    )


@asynccontextmanager
async def asked(
    answer: Answering, *, dialect: str = "openai-chat", times: TimeLimits | None = None
) -> AsyncIterator[tuple[NetworkModel, FakeProvider, Connections]]:
    """A provider that answers so, and a model that asks it."""
    async with fake_provider(answer) as provider, Connections(environ={}) as connections:
        model = model_at(provider.url, connections, dialect=dialect, times=times)
        yield model, provider, connections


@asynccontextmanager
async def asked_in_memory(
    answer: Answering,
) -> AsyncIterator[tuple[NetworkModel, FakeProvider, Connections]]:
    """The same without sockets, for virtual time."""
    async with (
        provider_in_memory(answer) as (provider, dial),
        Connections(environ={}, dial=dial) as connections,
    ):
        yield model_at(provider.url, connections), provider, connections


def text_of(events: list[ModelEvent]) -> str:
    """What is left of the text after the last reset."""
    text = ""
    for each in events:
        if isinstance(each, StreamReset):
            text = ""
        elif isinstance(each, TextDelta):
            text += each.text
    return text


def resets(events: list[ModelEvent]) -> list[StreamReset]:
    """The resets among these."""
    return [each for each in events if isinstance(each, StreamReset)]
