"""Text from models and tools, made harmless for a terminal."""

from __future__ import annotations

import re

# Whole sequences first, so that nothing of them stays as text: CSI; OSC, DCS, SOS, PM and APC up
# to their terminator (or the end of the line, when it never comes); two-byte escapes. 8-bit C1
# introducers count as well.
_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
# What is left of control characters (tab and newline stay), and the marks that reorder text so
# that it reads differently from what it is.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def for_terminal(text: str) -> str:
    """``text`` without control sequences, control characters and direction marks.

    Tabs and newlines stay, a carriage return before a newline goes, any other one becomes a
    newline (a progress bar would overwrite what stands before it). Idempotent.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def one_line(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters, harmless; cut with an ellipsis."""
    line = " ".join(for_terminal(text[: width * 8 + 64]).split())
    return line if len(line) <= width else line[: max(0, width - 1)] + "…"
