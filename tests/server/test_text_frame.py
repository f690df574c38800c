"""The one websocket frame that we write ourselves, read by a library that was not written here."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from crush_trio.server.edge.http1 import text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 300_000])
def test_a_text_frame_is_read_as_it_was_meant_whatever_its_length(size: int) -> None:
    """Contract 4: frames are text, whole and not masked."""
    reader = StreamReader()
    reader.feed_data(text_frame(b"x" * size))
    reader.feed_eof()
    parsing = Frame.parse(reader.read_exact, mask=False, max_size=None)
    with pytest.raises(StopIteration) as parsed:
        next(parsing)
    assert parsed.value.value == Frame(Opcode.TEXT, b"x" * size, fin=True)
    assert not reader.buffer
