"""The end of what a model is writing, as a person at a terminal sees it."""

from __future__ import annotations

from typing import Any

from crush_trio.cli.live_text import LiveText


def delta(said: str, offset: int, *, index: int = 0, part: str = "text") -> dict[str, Any]:
    return {
        "type": "message_delta",
        "message_id": "m",
        "index": index,
        "part": part,
        "offset": offset,
        "text": said,
    }


def after(*frames: dict[str, Any], width: int = 40) -> str:
    live = LiveText()
    for frame in frames:
        live.take(frame)
    return live.end(width)


def test_the_newest_words_are_shown_and_what_is_longer_is_cut_at_its_beginning() -> None:
    assert after(delta("Hello ", 0), delta("wor\nld", 6)) == "Hello wor ld"
    assert after(delta("a" * 30 + " end", 0), width=8) == "…aaa end"
    assert after(delta("word " * 1000, 0), width=12) == "…d word word"
    assert after(delta("Hello", 0), width=0) == ""


def test_an_answer_takes_the_place_of_the_thought_before_it() -> None:
    thought = delta("Let me think", 0, part="reasoning")
    assert after(thought) == "Let me think"
    assert after(thought, delta("It is", 0, index=1)) == "It is"


def test_what_is_over_or_taken_back_is_not_shown() -> None:
    said = delta("I will look", 0)
    assert after(said, {"type": "retry"}) == ""
    assert after(said, {"type": "message"}) == ""
    assert after(said, delta("{", 0, index=1, part="tool_input")) == ""
    assert after(said, {"type": "ping"}) == "I will look"


def test_what_a_model_writes_cannot_move_the_cursor() -> None:
    assert after(delta("a\x1b[2Jb\x07", 0)) == "ab"
