"""The tool `fetch`: one page of the web, as Markdown, text or HTML."""

from __future__ import annotations

from typing import Any

import attrs

from crush_trio import limits
from crush_trio.agent.ports import PermissionAsk, ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered, demand
from crush_trio.tools.sandbox.demands import demand_network
from crush_trio.tools.web.framing import framed
from crush_trio.tools.web.pages import Page, Readable, get_page, readable
from crush_trio.tools.web.urls import WebUrl, read_url
from crush_trio.tools.web.web import Reach

FORMATS = ("text", "markdown", "html")

_SPEC = ToolSpec(
    name="fetch",
    description=(
        "Get a page of the web as text, Markdown or HTML, at most "
        f"{limits.FETCH_TEXT_BYTES // 1024} KiB of it. Use agentic_fetch to have a question "
        "answered from long pages, and download for files that are no text."
    ),
    parameters=arguments.schema(
        ("url", "format"),
        url=arguments.string("The URL, beginning with http:// or https://"),
        format={
            "type": "string",
            "enum": list(FORMATS),
            "description": "What to make of a web page: text, markdown or html",
        },
        timeout=arguments.integer(f"Seconds it may take (at most {limits.FETCH_MAX_S})"),
    ),
)


def url_argument(call: ToolCall) -> WebUrl:
    """The argument ``url``.

    Raises:
        ToolProblem: It is none that may be asked for.
    """
    try:
        return read_url(arguments.text(call, "url"))
    except ValueError as problem:
        raise ToolProblem(f"{call.name}: {problem}") from None


def page_note(page: Page, part: Readable, asked: WebUrl, skipped: int = 0) -> str:
    """What a model should know besides the text; "" if it has everything it asked for."""
    notes = []
    if page.url != asked:
        notes.append(f"{asked} redirected to {page.url}.")
    if part.end < part.chars:
        shown = f"{skipped} to {part.end}" if skipped else f"{part.end}"
        notes.append(f"Shown are characters {shown} of {part.chars}.")
    if not page.is_whole:
        mib = limits.FETCH_BODY_BYTES // (1024 * 1024)
        notes.append(f"The page is longer than {mib} MiB; the rest was not read.")
    return " ".join(notes)


@attrs.frozen
class FetchTool:
    """Gets one page; see CW 7.1 and 7.5."""

    reach: Reach

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Ask a person or a rule, then the web."""
        url = url_argument(call)
        demand_network(context)
        form = arguments.text(call, "format", "markdown").lower()
        if form not in FORMATS:
            raise ToolProblem(f"fetch: the argument 'format' must be one of {', '.join(FORMATS)}")
        seconds = arguments.whole(call, "timeout", 0, most=limits.FETCH_MAX_S)
        params: dict[str, Any] = {"url": str(url), "format": form}
        if seconds:
            params["timeout"] = seconds
        demand(await context.permission(_ask(url, params)))
        page = await get_page(url, self.reach, within_s=seconds or limits.FETCH_S)
        part = await readable(page, form, call, context)
        language = form if page.is_html and form != "text" else ""
        note = page_note(page, part, url)
        content = framed(part.text, page.url, language) + (f"\n\n({note})" if note else "")
        return ToolResult(
            content=content,
            metadata={
                "url": str(page.url),
                "content_type": page.content_type,
                "truncated": part.end < part.chars or not page.is_whole,
            },
        )


def _ask(url: WebUrl, params: dict[str, Any]) -> PermissionAsk:
    return PermissionAsk(
        tool_name="fetch",
        action="fetch",
        description=f"Fetch content from URL: {url}",
        path=url.origin,  # so "for this session" covers this host and no other
        params=params,
        target=str(url),
        inside=False,
    )
