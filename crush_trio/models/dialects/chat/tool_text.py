"""Tool calls that a model writes as text, because its server does not know how it writes them.

What is done when (`ToolText` finds, the reader decides):

- Only where tools were offered, and only if the answer has no real tool call: then what looked
  like one is text after all.
- A tag of a known family (``<tool_call>``, ``<function=``, ``[TOOL_CALLS]`` …) counts outside of
  code fences and inline code, if what follows looks like a call. A fenced block or a bare object
  counts if it begins like a call of an offered tool; a fence may follow other text but must end
  the answer, a bare object must be all of it. Everything else is prose about tools, and is text.
- From such a place on, the text is held back to the end of the answer. More than
  `limits.TOOL_TEXT_CHARS` is not held: the answer is broken then.
- For a local provider, or with the quirk ``text_tools``, what can be read becomes real calls. Else,
  and where it cannot be read, the answer is malformed, and the error says which setting of the
  server helps: an answer never shows raw markup as if it were the model's word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs

from crush_trio import limits
from crush_trio.agent.ports import ToolSpec
from crush_trio.models.dialects.chat.think_tags import kept_back
from crush_trio.models.dialects.chat.tool_text_parse import TextCall, parse_block

_OPENS_WITH_CALL: Final = ("<tool_call>", "<tool_calls>", "<function_call>", "<|python_tag|>")
_FUNCTION: Final = "<function="
_MISTRAL: Final = "[TOOL_CALLS]"
_CERTAIN: Final = (  # tokens of a model's own; nobody else writes them, and we do not read them
    "<|tool_call|>",
    "<|tool_calls_section_begin|>",  # Kimi
    "<｜tool▁calls▁begin｜>",  # DeepSeek
    "<minimax:tool_call>",
)
_TAGS: Final = (*_OPENS_WITH_CALL, _FUNCTION, _MISTRAL, *_CERTAIN)
_INTEREST: Final = re.compile("`+|\n|" + "|".join(map(re.escape, _TAGS)))
_FENCE_WORDS: Final = frozenset(("", "json", "tool_call", "tool_code", "tool", "xml"))
_UNDECIDED_CHARS: Final = 400  # held back before it must be clear what it is
_FENCE_LINE_CHARS: Final = 40  # of a fence's first line; a longer one opens no call
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{0,64}(?:>|$)", re.ASCII)
_BEGINNINGS: Final = (
    '{"name":"%s"',
    '[{"name":"%s"',
    '{"function":"%s"',
    '{"tool":"%s"',
    '{"tool_name":"%s"',
    '{"function":{"name":"%s"',
    '{"type":"function","name":"%s"',
    '{"type":"function","function":{"name":"%s"',
    '[{"type":"function","function":{"name":"%s"',
    '{"tool_calls":[{"name":"%s"',
)


@attrs.frozen
class Found:
    """What was held back: calls that could be read, and text beside them.

    ``broken`` means that it is a call by all signs, but cannot be read; ``text`` is then all of
    it, as it came.
    """

    calls: tuple[TextCall, ...] = ()
    text: str = ""
    broken: bool = False


@attrs.define(eq=False)
class ToolText:
    """Looks for such calls in one answer as it comes."""

    tools: Sequence[ToolSpec]
    raw: str = attrs.field(default="", init=False)
    """What is held back and may yet be text."""
    too_long: bool = attrs.field(default=False, init=False)
    _kind: str = attrs.field(default="", init=False)  # tag, fence or bare, when one is open
    _certain: bool = attrs.field(default=False, init=False)
    _pieces: list[str] = attrs.field(factory=list, init=False)
    _length: int = attrs.field(default=0, init=False)
    _begun: bool = attrs.field(default=False, init=False)  # the answer has a word
    _blank: bool = attrs.field(default=True, init=False)  # this line has none
    _fenced: bool = attrs.field(default=False, init=False)
    _inline: bool = attrs.field(default=False, init=False)

    def feed(self, text: str) -> str:
        """The next piece of the answer; what of it and of what was held is text for sure."""
        if not self.tools:
            return text
        if self._certain:
            self._pieces.append(text)
            self._length += len(text)
            self.too_long = self._length > limits.TOOL_TEXT_CHARS
            return ""
        self.raw += text
        sure: list[str] = []
        while True:
            if not self._kind:
                sure.append(self._scan())
                if not self._kind:
                    break
            let_go = self._judge()
            if let_go is None:
                break
            sure.append(let_go)
        return "".join(sure)

    def end(self) -> Found:
        """What is held back, now that nothing more comes."""
        held = self.held()
        if self._kind == "tag" and not self._certain:
            tagged = next(tag for tag in _TAGS if held.startswith(tag))
            return Found(text=held, broken=not held[len(tagged) :].strip())
        if not self._certain:
            return Found(text=held)
        block = parse_block(held, self.tools, may_have_text=self._kind == "tag")
        if block is not None:
            return Found(block[0], block[1])
        hints = ('"arguments"', '"parameters"')
        broken = self._kind == "tag" or any(hint in held for hint in hints)
        return Found(text=held, broken=broken and not self._is_followed(held))

    def held(self) -> str:
        """All that is held back, as it came."""
        return self.raw + "".join(self._pieces)

    def _is_followed(self, held: str) -> bool:
        """Whether words come after a fence: then it was an example."""
        _, _, rest = held.partition("\n")
        closed = re.search(r"^\s*```", rest, re.MULTILINE)
        return self._kind == "fence" and closed is not None and bool(rest[closed.end() :].strip())

    def _scan(self) -> str:
        """Text up to where a call may begin; what is left in ``raw`` begins there."""
        if not self._begun:
            word = self.raw.lstrip()
            if word[:1] in ("{", "["):
                self._kind = "bare"
                return ""
            self._begun = bool(word)
        text, line = self.raw, 0
        ticks = len(text) - len(text.rstrip("`"))
        end = len(text) - max(ticks, kept_back(text, _TAGS))
        for mark in _INTEREST.finditer(text, 0, end):
            word = mark[0]
            if word == "\n":
                self._inline, self._blank, line = False, True, mark.end()
            elif word[0] == "`":
                opens = self._blank and not text[line : mark.start()].strip()
                if not opens or len(word) < 3:
                    self._inline = self._inline != (len(word) % 2 == 1)
                elif self._fenced:
                    self._fenced = False
                elif (cut := self._fence(text, line, mark.end())) is not None:
                    return self._cut(cut)
            elif not self._fenced and not self._inline:
                self._kind = "tag"
                return self._cut(mark.start())
        self._blank = self._blank and not text[line:end].strip()
        return self._cut(end)

    def _fence(self, text: str, line: int, end: int) -> int | None:
        """Where to cut for a fence, which opens here; ``None`` if it holds no call."""
        newline = text.find("\n", end)
        if newline < 0 and len(text) - end <= _FENCE_LINE_CHARS:
            return line  # its first line is not complete
        if newline >= 0 and text[end:newline].strip().lower() in _FENCE_WORDS:
            self._kind = "fence"
            return line
        self._fenced = True
        return None

    def _cut(self, place: int) -> str:
        text, self.raw = self.raw[:place], self.raw[place:]
        return text

    def _judge(self) -> str | None:
        """Decide on the place that is open: ``None`` holds on; text is let go, and scanned on."""
        likely = self._likely()
        if likely:
            self._certain = True
            self._pieces, self._length = [self.raw], len(self.raw)
            self.raw = ""
            return None
        if likely is None and len(self.raw) <= _UNDECIDED_CHARS:
            return None
        kind, self._kind, self._begun = self._kind, "", True
        if kind == "bare":
            return ""  # it is looked at again, as text
        if kind == "fence":
            self._fenced, self._blank = True, True
            return self._cut(self.raw.find("\n") + 1)
        self._blank = False
        return self._cut(len(next(tag for tag in _TAGS if self.raw.startswith(tag))))

    def _likely(self) -> bool | None:
        """Whether it begins like a call; ``None`` if more must be seen."""
        if self._kind != "tag":
            start = self.raw.partition("\n")[2] if self._kind == "fence" else self.raw
            return self._begins_call(start)
        tag = next(tag for tag in _TAGS if self.raw.startswith(tag))
        body = self.raw[len(tag) :].lstrip()
        if tag in _CERTAIN:
            return True
        if not body:
            return None
        if tag == _FUNCTION:
            name = _NAME.match(body)
            return (None if not name[0].endswith(">") else len(name[0]) > 1) if name else False
        if body[0] in "{[":
            inner = body[1:].lstrip()
            return None if not inner else inner[0] in '"{'
        if body[0] == "<":
            return None if len(body) < len(_FUNCTION) else body.startswith(_FUNCTION)
        names = [tool.name for tool in self.tools]
        if any(body.startswith(name) for name in names):
            return True
        return None if any(name.startswith(body) for name in names) else False

    def _begins_call(self, text: str) -> bool | None:
        start = "".join(text[:_UNDECIDED_CHARS].split())
        for tag in _OPENS_WITH_CALL:
            start = start.removeprefix(tag)
        likely = None if any(tag.startswith(start) for tag in _OPENS_WITH_CALL) else False
        for pattern in _BEGINNINGS:
            for tool in self.tools:
                wanted = pattern % tool.name
                if start.startswith(wanted):
                    return True
                if wanted.startswith(start):
                    likely = None
        return likely
