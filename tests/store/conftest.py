"""Both stores, for tests of what they promise alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from crush_trio.protocol.ids import WorkspaceId
from crush_trio.store.contract import Store, StoredEvent
from crush_trio.store.memory import open_memory_store
from crush_trio.store.sqlite import open_store
from tests.store.samples import W, founding


@attrs.define
class Bench:
    """A store with a workspace and a session in it, a clock to turn, and what it published."""

    store: Store = attrs.field(init=False)
    now_ms: int = 1_000_000
    published: list[tuple[WorkspaceId, StoredEvent]] = attrs.field(factory=list)

    def publish(self, workspace_id: WorkspaceId, events: Sequence[StoredEvent]) -> None:
        """The store's way out."""
        self.published += [(workspace_id, event) for event in events]

    def clock(self) -> int:
        """The time that is written down."""
        return self.now_ms

    async def commit(self, commit: Any, workspace_id: WorkspaceId = W) -> Any:
        """Commit and wait; gives the function's value."""
        return (await self.store.commit_nowait(workspace_id, commit).wait()).value


@pytest.fixture(params=["sqlite", "memory"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """The same test against the store on a disk and the one in memory."""
    made = Bench()
    if request.param == "sqlite":
        opened = open_store(tmp_path / "data", publish=made.publish, now_ms=made.clock)
        async with opened as store:
            made.store = store
            await made.commit(founding)
            yield made
    else:
        async with open_memory_store(publish=made.publish, now_ms=made.clock) as memory:
            made.store = memory
            await made.commit(founding)
            yield made
