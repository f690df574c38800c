"""A workspace with an author of messages, to subscribe to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest

from crush_trio.journal import Feed, Journal, JournalReader
from crush_trio.store.memory import MemoryStore, open_memory_store
from tests.journal.subscriber import SESSIONS, Author, Subscriber, settle

A = SESSIONS[0]


@attrs.define
class Desk:
    """A workspace with an author, and the way to subscribe to it."""

    store: MemoryStore
    journal: Journal
    author: Author

    @property
    def feed(self) -> Feed:
        return self.author.feed

    def join(self, cursor: int | None = None, **more: Any) -> Subscriber:
        return Subscriber(JournalReader(self.store, self.feed, cursor=cursor, **more))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    journal = Journal()
    async with open_memory_store(publish=journal.publish) as store:
        yield Desk(store, journal, await Author.start(store, journal))


async def notes(desk: Desk, count: int, session: Any = A) -> None:
    for _ in range(count):
        desk.author.note(session)
    await settle()
