"""Characters beyond the basic plane that a server has cut in two, put together again.

A server that cuts its text by UTF-16 units sends ``"\\\\ud83d"`` in one event and ``"\\\\ude00"``
in the next. Neither half can be stored or sent to anybody.
"""

from __future__ import annotations

import attrs


@attrs.define
class Halves:
    """One text as it comes."""

    _half: str = attrs.field(default="", init=False)

    def whole(self, text: str) -> str:
        """The next piece, with whole characters only; half a one at its end waits for the rest."""
        if self._half:
            text, self._half = self._half + text, ""
        try:
            text.encode()
        except UnicodeEncodeError:
            if "\ud800" <= text[-1] <= "\udbff":
                text, self._half = text[:-1], text[-1]
            return encodable(text)
        return text

    def end(self) -> str:
        """What is left: a replacement for half a character, or nothing."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""


def encodable(text: str) -> str:
    """The text with halves joined where both are there, and replaced where not."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
