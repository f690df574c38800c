"""Bytes that are no text, from a pipe to subscribers, the model and the store (T50)."""

from __future__ import annotations

import orjson
import pytest

from crush_trio.agent.ports import ShellResult
from crush_trio.tools.processes.capture import HeadTail, StreamCapture
from crush_trio.tools.shell.command_answer import output_of
from crush_trio.tools.shell.plain_output import plain_output

NASTY = {
    "latin-1": b"caf\xe9 \xe9t\xe9\n",
    "a character of each length": "aé€😀z".encode(),
    "a surrogate": b"a\xed\xa0\x80b\xed\xb0\x80c",
    "too long, too large": b"\xc0\x80 \xe0\x80\x80 \xf4\x90\x80\x80 \xf8\x88\x80\x80\x80",
    "cut off": b"ok \xf0\x9f\x98",
    "NUL and other controls": b"a\0b\x07c\x08d\x7fe\x9bf\xc2\x9bg",
    "escape sequences": b"\x1b[1;31mred\x1b[0m \x1b]0;title\x07x \x1b]8;;http://a\x1b\\y\x1b(B",
    "a cut escape sequence": b"x\x1b[",
    "a byte order mark": b"\xef\xbb\xbfbom",
    "marks that turn text around": "a\u202eb\u2066c".encode(),
    "carriage returns": b"one\r\n 10%\r 55%\r100%\rdone\n\r\r\nnext\r",
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in NASTY.items()])
def test_wrong_bytes_come_out_the_same_wherever_they_are_cut(data: bytes) -> None:
    whole = data.decode("utf-8", "replace")
    for first in range(len(data) + 1):
        for second in range(first, len(data) + 1):
            shown: list[str] = []
            stream = StreamCapture("stdout", lambda _name, text, to=shown: to.append(text))  # type: ignore[misc]
            for piece in (data[:first], data[first:second], data[second:]):
                stream.feed(piece)
            assert stream.finish() == whole
            assert "".join(shown) == whole
            assert all(shown), "an empty frame says nothing"
    orjson.dumps(whole)
    result = output_of(ShellResult(0, whole, ""))
    orjson.dumps(result)
    assert not any((ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0 for c in result)


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in NASTY.items()])
def test_a_gap_shows_no_damage_of_its_own(data: bytes) -> None:
    """Only what was wrong already is shown as wrong: not the cuts at the gap."""
    padded = "é€😀".encode() * 40 + data + "é€😀".encode() * 40
    wrong = data.decode("utf-8", "replace").count("\ufffd")
    for limit in range(16, 120):
        kept = HeadTail(limit)
        for at in range(0, len(padded), 7):
            kept.feed(padded[at : at + 7])
        text = kept.text()
        assert text.count("\ufffd") <= wrong
        assert f"[{kept.dropped} bytes dropped]" in text
        assert kept.dropped == len(padded) - limit // 2 * 2


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("plain\n\ttext\n", "plain\n\ttext\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        (" 10%\r 55%\r100%\n", "100%\n"),
        ("working\rdone\r", "done"),
        ("old\r\r\nnew", "old\nnew"),
        ("\x1b[2K\r\x1b[32mok\x1b[0m\n", "ok\n"),
        ("a\0b\x07", "a\u2400b\u2407"),
        ("\x1b]0;title\x07x\x1b]8;;u\x1b\\y\x1b]8;;\x1b\\", "xy"),
        ("no end \x1b]0;title\nnext", "no end \nnext"),
        ("\x85\x9b31m", "\ufffd\ufffd31m"),
    ],
)
def test_a_model_reads_what_a_terminal_would_leave(written: str, read: str) -> None:
    assert plain_output(written) == read
