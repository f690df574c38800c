"""A network model: one request with all its attempts."""

from __future__ import annotations

from crush_trio.agent.ports import ModelEvent
from tests.models.kit import request
from tests.models.network.kit import HELLO, asked, text_of
from tests.models.network.provider import streaming


async def test_an_answer_is_streamed_piece_by_piece() -> None:
    async with asked(streaming(*HELLO)) as (model, provider, connections):
        events: list[ModelEvent] = []
        end = await model.stream(request(), events.append)
        assert text_of(events) == "Hello."
        assert end.reason == "end_turn"
        assert connections.open_connections == (0, 1)
    assert provider.exchanges[0].target == "/v1/chat/completions"
    assert provider.exchanges[0].headers["user-agent"].startswith("crush-trio/")
