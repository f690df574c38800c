"""What a command wrote, as text that a model can read and a store can hold."""

from __future__ import annotations

import re

# Whole sequences, so that nothing of them stays as text: CSI; OSC, DCS, SOS, PM and APC up to their
# terminator or the end of the line; two-byte escapes.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)"
)
# Unicode has a visible sign for each control character: one for one, harmless everywhere.
_SIGNS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
_SIGNS |= {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def plain_output(text: str) -> str:
    """``text`` as a terminal would leave it, without what only a terminal understands.

    Colours and other escape sequences go. Of a line that was written over after carriage returns
    the last state stays, as with a progress bar. Other control characters, NUL among them, become
    their visible signs (U+2400 and on), so that what is not text is seen to be none.
    """
    if text.isprintable():
        return text
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = "\n".join(map(_last_state, text.split("\n")))
    return text.translate(_SIGNS)


def _last_state(line: str) -> str:
    """What stands in a line after its last carriage return that something follows."""
    if "\r" not in line:
        return line
    return line.rstrip("\r").rpartition("\r")[2]
