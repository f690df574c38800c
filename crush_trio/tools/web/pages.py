"""A page as a model reads it: asked for, decoded, made readable, cut."""

from __future__ import annotations

import json
import re
import sys
from contextlib import aclosing
from typing import Final

import attrs

from crush_trio import limits
from crush_trio.agent.ports import ToolCall, ToolContext
from crush_trio.tools.arguments import ToolProblem
from crush_trio.tools.web.charsets import charset_of, decoded
from crush_trio.tools.web.exchange import Answer, opened
from crush_trio.tools.web.text import cleaned, cut
from crush_trio.tools.web.urls import WebUrl
from crush_trio.tools.web.web import Reach

_TEXTUAL: Final = re.compile(
    r"text/.*|application/(?:.*\+)?(?:json|xml|yaml|toml)|application/(?:x-)?(?:"
    r"javascript|ecmascript|typescript|ndjson|jsonl|json5|json-lines|yaml|sh|sql|graphql|csv|tex|"
    r"www-form-urlencoded|httpd-php|perl|python|ruby|rtf|subrip|xhtml|toml|latex)|image/svg\+xml"
)
_HTML: Final = frozenset({"text/html", "application/xhtml+xml"})
_ACCEPT: Final = "text/html,application/xhtml+xml,text/*;q=0.9,application/json;q=0.9,*/*;q=0.5"
_SNIFF_BYTES: Final = 8_192


@attrs.frozen
class Page:
    """What a URL answered: its text as it came.

    ``url`` is where it came from in the end; ``is_whole`` says whether the body was read to its
    end.
    """

    url: WebUrl
    content_type: str
    text: str
    is_whole: bool

    @property
    def is_html(self) -> bool:
        """Whether it can be made readable."""
        return self.content_type in _HTML


@attrs.frozen
class Readable:
    """A part of a readable text; it ends behind character ``end`` of ``chars``."""

    text: str
    end: int
    chars: int
    title: str = ""


async def get_page(url: WebUrl, reach: Reach, *, within_s: float, any_host: bool = False) -> Page:
    """Ask for a page.

    Raises:
        ToolProblem: There is none, it is no text, or it did not come in time.
    """
    async with opened(url, reach, within_s=within_s, accept=_ACCEPT, any_host=any_host) as answer:
        if not 200 <= answer.status < 300:
            raise ToolProblem(f"Request failed with status code: {answer.status} ({answer.url})")
        if answer.content_type and not _TEXTUAL.fullmatch(answer.content_type):
            raise _no_text(answer)
        body = bytearray()
        is_whole = True
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                body += piece
                if len(body) > limits.FETCH_BODY_BYTES:
                    is_whole = False
                    break
        data = bytes(body[: limits.FETCH_BODY_BYTES])
        if b"\0" in data[:_SNIFF_BYTES] and "utf-16" not in charset_of(data, answer.charset):
            raise _no_text(answer)
        kind = answer.content_type or _sniffed(data)
        return Page(answer.url, kind, decoded(data, answer.charset), is_whole)
    raise AssertionError("the block is left by return or raise")


def _no_text(answer: Answer) -> ToolProblem:
    what = answer.content_type or "binary data"
    return ToolProblem(f"{answer.url} is {what}, which is no text: use the tool download for it.")


def _sniffed(data: bytes) -> str:
    head = data[:_SNIFF_BYTES].lstrip()[:15].lower()
    return "text/html" if head.startswith((b"<!doctype html", b"<html")) else "text/plain"


async def readable(
    page: Page,
    mode: str,
    call: ToolCall,
    context: ToolContext,
    *,
    skip: int = 0,
    most: int = limits.FETCH_TEXT_BYTES,
) -> Readable:
    """A page in a mode (markdown, text, html), from character ``skip`` on, ``most`` bytes of it.

    HTML is made readable by `tools.web.program`; what it cannot do within its bounds is done once
    more in the simplest way.

    Raises:
        ToolProblem: That cannot be done either.
    """
    if mode == "html" or not page.is_html:
        part = cut(page.text[skip:], most)
        return Readable(cleaned(part), skip + len(part), len(page.text))
    for attempt in (mode, "plain"):
        request = {"mode": attempt, "base": str(page.url), "skip": skip, "most": most}
        result = await context.processes.run_argv(
            (sys.executable, "-I", "-m", "crush_trio.tools.web.program", json.dumps(request)),
            cwd=context.workspace_path,
            env=context.env,
            timeout_s=limits.FETCH_CONVERT_S,
            on_output=_unseen,
            spill_name=f"{call.id}-page",
            stdin=page.text.encode("utf-8", "replace"),
        )
        head, newline, text = result.stdout.partition("\n")
        if result.exit_code == 0 and newline:
            said = json.loads(head)
            return Readable(text, skip + len(text), int(said["chars"]), str(said["title"]))
    raise ToolProblem(f"{page.url} cannot be made readable; ask for it with the format html.")


def _unseen(stream: str, text: str) -> None:
    """The page is not shown to subscribers while it is made readable."""
