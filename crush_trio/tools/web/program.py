"""The program that makes HTML readable: runs as ``python -I -m``, bounded, and can be killed.

A page may nest so deep, or be so odd, that parsing it takes for ever or ends the interpreter.
Argument: one JSON object with ``mode`` (markdown, text, plain), ``base`` (its URL), ``skip``
(characters of the result to leave out) and ``most`` (bytes to write). Input: the page, UTF-8.
Output: one line of JSON, ``{"title", "chars"}`` (``chars`` of the whole result), then that part.

``plain`` needs no tree: it is what is tried when the others fail.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.parse
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, Final

from crush_trio.limits import FETCH_DEPTH, FETCH_MEMORY_BYTES
from crush_trio.tools.own_memory import bound_memory
from crush_trio.tools.web.text import cleaned, cut

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_NOISE: Final = (
    *("script", "style", "noscript", "template", "iframe", "object", "embed", "svg", "canvas"),
    *("title", "head", "nav", "footer", "aside", "dialog"),
    *("button", "select", "input", "textarea"),  # and no form, since some pages are all in one
)
_UNSHOWN: Final = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)"
    r"|font-size\s*:\s*0(?:\.0*)?(?:px|em|rem|pt|%)?\s*(?:;|$)",
    re.IGNORECASE,
)
_BLOCKS: Final = frozenset(
    [
        *("address", "article", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figure"),
        *("h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "ol", "p", "pre"),
        *("section", "table", "title", "tr", "ul"),
    ]
)
_VOID: Final = frozenset(
    [
        *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source"),
        *("track", "wbr"),
    ]
)
"""Tags that hold nothing. Those that may be left open nest all the same in the tree we get."""
_FRAMES: Final = 8
"""Frames of the interpreter that a conversion needs for each level, generously."""
_BLANKS: Final = re.compile(r"\n[ \t]*(?:\n[ \t]*)+\n")


def converted(page: str, mode: str, base: str) -> tuple[str, str]:
    """Title and readable text of a page.

    Raises:
        Exception: It is too much, or too odd, for one of the libraries; not in the mode plain.
    """
    page = page.replace("<![", "<! [")  # to browsers a comment; the parser ends at most of them
    plain = _PlainReader()
    plain.feed(page)
    plain.close()
    if mode == "plain" or plain.deepest > FETCH_DEPTH:
        return "", _squeezed("".join(plain.parts))
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(page, "html.parser")
    title = soup.title.get_text(" ", strip=True) if soup.title is not None else ""
    _without_noise(soup)
    if mode == "text":
        for block in soup.find_all(sorted(_BLOCKS)):
            block.append("\n")
        return title, _squeezed(soup.get_text())
    _with_absolute_links(soup, base)
    from markdownify import MarkdownConverter

    whole = MarkdownConverter(heading_style="ATX", bullets="-").convert_soup(soup)
    return title, _squeezed(str(whole))


def _without_noise(soup: BeautifulSoup) -> None:
    for tag in soup.find_all(_is_noise):
        if not tag.decomposed:  # with what stood around it
            tag.decompose()


def _is_noise(tag: Tag) -> bool:
    """Whether a tag holds nothing to read, or what a reader of the page would not see."""
    if tag.name in _NOISE or tag.has_attr("hidden") or tag.get("aria-hidden") == "true":
        return True
    return bool(_UNSHOWN.search(str(tag.get("style") or "")))


def _with_absolute_links(soup: BeautifulSoup, base: str) -> None:
    for name, attribute in (("a", "href"), ("img", "src")):
        for tag in soup.find_all(name):
            link = str(tag.get(attribute) or "")
            try:
                absolute = urllib.parse.urljoin(base, link)
            except ValueError:
                absolute = ""
            if absolute.startswith(("http://", "https://", "mailto:")):
                tag[attribute] = absolute
            elif name == "img":
                tag.decompose()  # a data: URL is no text
            else:
                del tag[attribute]


class _PlainReader(HTMLParser):
    """The text between tags, without what scripts and styles hold; and how deep tags nest."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.deepest = 0
        self._open: Counter[str] = Counter()
        self._unread = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self._open[tag] += 1
            self.deepest = max(self.deepest, self._open.total())
        if not self._unread and tag in ("script", "style", "noscript", "template", "svg"):
            self._unread = tag
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._open[tag] = max(0, self._open[tag] - 1)
        if tag == self._unread:
            self._unread = ""
        elif tag in _BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._unread:
            self.parts.append(data)


def _squeezed(text: str) -> str:
    lines = (line.rstrip() for line in text.replace("\xa0", " ").split("\n"))
    return _BLANKS.sub("\n\n", "\n".join(lines)).strip("\n")


def main() -> None:
    """Answer the request in the first argument."""
    sys.setrecursionlimit(_FRAMES * FETCH_DEPTH)
    bound_memory(FETCH_MEMORY_BYTES)
    request: dict[str, Any] = json.loads(sys.argv[1])
    page = sys.stdin.buffer.read().decode("utf-8", "replace")
    try:
        title, text = converted(page, request["mode"], request["base"])
    except Exception:  # whatever a page brings about in a library, it has text
        title, text = converted(page, "plain", request["base"])
    text = cleaned(text)
    head = json.dumps({"title": cleaned(title)[:300], "chars": len(text)})
    part = cut(text[request["skip"] :], request["most"])
    sys.stdout.buffer.write(f"{head}\n{part}".encode("utf-8", "replace"))


if __name__ == "__main__":
    main()
