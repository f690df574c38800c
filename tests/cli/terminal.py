"""What a terminal would make of bytes: text, and every order that is more than text (ECMA-48)."""

from __future__ import annotations

import re

OURS = frozenset(
    {"\x1b[2K", "\x1b[1A", "\x1b[?25l", "\x1b[?25h", "\x1b[2m", "\x1b[0m", "\x1b[32m", "\x1b[2;32m"}
)
"""What our own progress line sends: rub out a line, one line up, hide and show the cursor, dim."""

EVIL = {
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "title": "\x1b]0;owned\x1b\\",
    "title, 8 bit": "\x9d2;owned\x9c",
    "link": "\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "clear, 8 bit": "\x9b2J",
    "cursor": "\x1b[5A\x1b[10D\x1b7\x1b8\x1bM",
    "colour": "\x1b[35;46;5m",
    "answer of the terminal": "\x1b[6n\x1b[c\x05",
    "device control": "\x1bP$q\x22p\x1b\\",
    "device control, 8 bit": "\x90+q544e\x9c",
    "application": "\x1b_Gf=100;AAAA\x1b\\",
    "message": "\x1b^hidden\x1b\\\x1bXhidden\x1b\\",
    "reset": "\x1bc\x1b[!p",
    "other letters": "\x1b(0\x0e\x0f\x1b%G",
    "mouse and paste": "\x1b[?1000h\x1b[?2004l\x1b[?1049h",
    "keys": "\x1b[>4;2m\x1b[=5u",
    "rubbed out": "rm -rf /\b\b\b\b\b\b\b\bls      ",
    "overwritten": "password\rharmless",
    "bell": "\x07\x07",
    "order": "a\u202etxt.exe\u202c\u2066b\u2069\u200f\u061c",
    "cut off": "\x1b]0;never ended",
    "half": "\x1b[3",
    "delete": "\x7f\x80\x85\x8d",
}

_TOKEN = re.compile(
    r"(?P<csi>(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?)"
    r"|(?P<string>(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?)"
    r"|(?P<escape>\x1b[ -/]*[0-~]?)"
    r"|(?P<control>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069])"
    r"|(?P<back>\r(?!\n))"
)


def orders_in(data: bytes) -> list[str]:
    """Every order in what was written to a terminal, but for those of our own progress line.

    A carriage return counts unless a new line follows, or one of those orders.
    """
    text = data.decode("utf-8", "surrogateescape")
    assert not re.search("[\udc80-\udcff]", text), "bytes that are no UTF-8"
    text = text.replace("\r\x1b", "\x1b").replace("\r\r\n", "\r\n")
    return [match[0] for match in _TOKEN.finditer(text) if match[0] not in OURS]
