"""What reaches a terminal from a model or a tool."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crush_trio.cli.sanitize import for_terminal, one_line
from tests.cli.terminal import EVIL, orders_in

ESCAPES = st.sampled_from(
    ["\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\x1bP1$r\x1b\\", "\x9b2J", "\x1b",
     "\x1b[", "\x1b]", "\x9d0;x\x9c", "\r", "\x08", "\x07", "\u202e", "\x1bc", "\x1b(0"]
)  # fmt: skip
ANYTHING = st.lists(st.one_of(ESCAPES, st.text(max_size=8)), max_size=12).map("".join)
HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@given(ANYTHING)
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    assert HARMFUL.search(for_terminal(text)) is None


@given(
    st.lists(st.one_of(st.sampled_from([*EVIL.values()]), st.text(max_size=5)), max_size=9),
    st.integers(0, 40),
)
def test_a_terminal_finds_no_order_in_it_wherever_it_was_cut(parts: list[str], at: int) -> None:
    """T54."""
    text = "".join(parts)
    for shown in (for_terminal(text[at:]), for_terminal(text[:at]), one_line(text[at:], 30)):
        assert orders_in(shown.encode("utf-8", "backslashreplace")) == []


@given(ANYTHING)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert for_terminal(for_terminal(text)) == for_terminal(text)


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs", "Cf"]) | st.sampled_from("\n\t"))
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert for_terminal(text) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\x1b[1;31mred\x1b[0m b", "ared b"),
        ("\x1b]0;owned\x07title", "title"),
        ("\x1b]52;c;cm0gLXJm\x1b\\clipboard", "clipboard"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]never ended\nnext line", "\nnext line"),
        ("10%\r20%\r\ndone", "10%\n20%\ndone"),
        ("\x9b31mred", "red"),
        ("abc\x1b", "abc"),
        ("rm -rf /\b\b\b\b\b\b\b\bls", "rm -rf /ls"),
        ("x\u202efdp.exe", "xfdp.exe"),
    ],
)
def test_known_tricks_come_out_harmless(text: str, clean: str) -> None:
    assert for_terminal(text) == clean


@given(ANYTHING, st.integers(1, 40))
def test_one_line_is_one_line_of_at_most_that_width(text: str, width: int) -> None:
    line = one_line(text, width)
    assert len(line) <= width
    assert "\n" not in line
    assert HARMFUL.search(line) is None


def test_a_cut_line_says_so() -> None:
    assert one_line("a  b\nc", 10) == "a b c"
    assert one_line("abcdef", 4) == "abc…"
