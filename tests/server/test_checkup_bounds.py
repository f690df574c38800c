"""A checkup that takes too long or breaks ends with a check that says so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from crush_trio import limits
from crush_trio.config.load import Config
from crush_trio.protocol.checks import Check
from crush_trio.server.checkup import Checkup
from crush_trio.server.services import Services


def checkup(choose: Callable[..., Awaitable[Any]]) -> Checkup:
    """One whose model is chosen by ``choose``."""
    settings = SimpleNamespace(read=lambda path: Config({}))
    services = SimpleNamespace(settings=settings, kit=SimpleNamespace(model=choose))
    return Checkup(cast("Services", services), Path("/w"), None, {}, local=True, offline=False)


async def all_of(made: Checkup) -> list[Check]:
    """Its checks, to the end."""
    found: list[Check] = []
    while (step := await made.next()) is not None:
        found.extend(step)
    return found


async def test_after_its_time_the_rest_is_not_made(mock_clock: MockClock) -> None:
    begun = trio.Event()

    async def never(*args: Any, **more: Any) -> None:
        begun.set()
        await trio.sleep_forever()

    async def pass_time() -> None:
        await begun.wait()
        mock_clock.jump(limits.DOCTOR_TOTAL_S + 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_time)
        [check] = await all_of(checkup(never))
    assert (check.name, check.status) == ("checkup", "fail")
    assert f"longer than {limits.DOCTOR_TOTAL_S:g} s" in check.seen


async def test_a_mistake_of_ours_is_a_check_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*args: Any, **more: Any) -> None:
        raise RuntimeError("sk-secret")

    [check] = await all_of(checkup(broken))
    assert (check.name, check.status, check.code) == ("checkup", "fail", "internal")
    assert "sk-secret" not in str(check)
    assert "a checkup failed" in caplog.text
