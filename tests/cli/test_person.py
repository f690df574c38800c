"""What a run without a terminal says about requests, and which of them it takes for its own."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
import trio.testing

from crush_trio.cli.person import Person
from crush_trio.client.api import Api


class Waiting:
    """The two lists of a server."""

    def __init__(self, **runs: str) -> None:
        self.runs = runs

    async def permissions(self, workspace: str) -> list[dict[str, Any]]:
        await trio.lowlevel.checkpoint()
        return [
            {"request": {"id": name, "tool_call_id": "call_0"}, "run_id": run}
            for name, run in self.runs.items()
        ]

    async def questions(self, workspace: str) -> list[dict[str, Any]]:
        await trio.lowlevel.checkpoint()
        return []


def frame(kind: str, **payload: Any) -> dict[str, Any]:
    """A frame of the stream."""
    return {"type": kind, "payload": {"payload": payload}}


def test_each_request_is_referred_to_another_terminal_as_long_as_it_waits(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """T26, R69: also a sub-agent's, whose calls may have the ids of ours; a lost end is found."""

    async def main() -> None:
        person = Person(lambda: None, lambda: None)
        server = Waiting(ours="run", theirs="other", below="sub")
        person.connect(cast("Api", server), "w")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(person.serve)
            await person.adopt(lambda run: run in ("run", "sub"))
            person.take(frame("run_complete", run_id="sub"))  # not ours to end with
            await trio.testing.wait_all_tasks_blocked()
            assert said() == ["ours"]
            person.take(frame("permission_notification", request_id="ours", tool_call_id="call_0"))
            await trio.testing.wait_all_tasks_blocked()
            assert said() == ["below"]
            person.take(frame("permission_request", id="next", tool_call_id="call_0"))
            server.runs = {"next": "run"}  # the end of `below` was lost with the stream
            await person.adopt(lambda run: run == "run")
            await trio.testing.wait_all_tasks_blocked()
            assert said() == ["next"]
            nursery.cancel_scope.cancel()

    def said() -> list[str]:
        lines = capfd.readouterr().err.splitlines()
        assert all("the run waits for a permission; from another terminal" in x for x in lines)
        return [line.rpartition(" ")[2] for line in lines]

    trio.run(main)
