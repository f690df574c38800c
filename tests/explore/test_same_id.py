"""The same request again, just when the first one has ended (found by the explorer)."""

from __future__ import annotations

import trio

from crush_trio.protocol.ids import RunId
from crush_trio.protocol.runs import Outcome
from crush_trio.store.contract import RunRow
from tests.explore.engine import Choices, run_schedule
from tests.explore.isolation import start_over
from tests.explore.runner import exploring
from tests.explore.strategies import Recorded
from tests.explore.world import Explored


def test_a_request_that_read_too_early_is_answered_like_the_one_that_has_ended() -> None:
    """G3: it found no run, stored or open; a cancel then ended a run twice, and the workspace."""
    with exploring() as explorer:
        start_over()
        w = Explored(Choices(Recorded({})), explorer.template)
        answers = []

        async def main(_: Choices) -> None:
            async with w.opened():
                read, early, go = w.disk.run, trio.Event(), trio.Event()

                async def late(run_id: RunId) -> RunRow | None:
                    row = await read(run_id)
                    if not early.is_set():
                        early.set()
                        await go.wait()
                    return row

                async def again() -> None:
                    answers.append(await w.post("say a", run_id="a"))

                w.disk.run = late  # type: ignore[method-assign]
                w.go(again)
                await early.wait()
                answers.append(await w.post("say a", run_id="a"))
                await w.all_ended()
                go.set()

        run_schedule(main, Choices(Recorded({})))
    assert answers == ["a", "a"]
    assert not w.ledger.twins
    assert not w.ledger.wrongs
    assert w.ledger.entries[RunId("a")].ended is Outcome.COMPLETED
