"""Thoughts that a server leaves in the text, between tags at its beginning."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Final

import attrs

_TAGS: Final = {
    "<think>": "</think>",  # DeepSeek, Qwen
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",  # Gemma
    "[THINK]": "[/THINK]",  # Mistral
}
_BLANKS_MAX = 64  # before the tag; more belong to the text


@attrs.define
class ThinkTags:
    """Divides a text into thoughts and answer as it comes.

    Only tags before the first word of the answer count: further on they are what it talks about.
    What may be the beginning of a tag is held back, which is never more than `_BLANKS_MAX` blanks
    and a tag. A thought whose end never comes is a thought to the end.
    """

    _held: str = attrs.field(default="", init=False)
    _close: str = attrs.field(default="", init=False)
    _past: bool = attrs.field(default=False, init=False)
    _after: bool = attrs.field(default=False, init=False)

    def feed(self, text: str) -> Iterator[tuple[bool, str]]:
        """What is certain now, in order: whether it is a thought, and its text (never empty)."""
        if self._past:
            if text:
                yield False, text
            return
        self._held += text
        while self._held and not self._past:
            if self._close:
                thought, is_over = self._thought()
                if thought:
                    yield True, thought
                if not is_over:
                    return
            else:
                if self._may_begin():
                    return
                if not self._close:
                    self._past = True
                    answer = self._held.lstrip() if self._after else self._held
                    self._held = ""
                    if answer:
                        yield False, answer

    def end(self) -> Iterator[tuple[bool, str]]:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        if held and not (self._after and held.isspace()):
            yield bool(self._close), held

    def _may_begin(self) -> bool:
        """Whether more must be seen; opens the thought if a tag is there."""
        word = self._held.lstrip()
        if not word:
            return len(self._held) <= _BLANKS_MAX
        for tag, close in _TAGS.items():
            if word.startswith(tag):
                self._held, self._close = word[len(tag) :], close
                return False
        return any(tag.startswith(word) for tag in _TAGS)

    def _thought(self) -> tuple[str, bool]:
        """More of the open thought, and whether it is over."""
        place = self._held.find(self._close)
        if place >= 0:
            thought = self._held[:place]
            self._held = self._held[place + len(self._close) :]
            self._close, self._after = "", True
            return thought, True
        keep = kept_back(self._held, (self._close,))
        cut = len(self._held) - keep
        thought, self._held = self._held[:cut], self._held[cut:]
        return thought, False


def kept_back(text: str, tags: tuple[str, ...]) -> int:
    """How many characters at the end of ``text`` may be the beginning of one of ``tags``."""
    longest, firsts = _shape(tags)
    tail = text[-longest:]
    if not any(first in tail for first in firsts):  # nearly always, and this is asked per token
        return 0
    for length in range(len(tail), 0, -1):
        ending = text[-length:]
        if any(len(tag) > length and tag.startswith(ending) for tag in tags):
            return length
    return 0


@functools.cache
def _shape(tags: tuple[str, ...]) -> tuple[int, frozenset[str]]:
    """The longest proper beginning of any of ``tags``, and the characters they begin with."""
    return max(len(tag) for tag in tags) - 1, frozenset(tag[0] for tag in tags)
