"""The tool `web_fetch`: a page for a sub-agent that somebody allowed to read the web."""

from __future__ import annotations

import attrs

from crush_trio import limits
from crush_trio.agent.ports import ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.tools import arguments
from crush_trio.tools.arguments import answered
from crush_trio.tools.sandbox.demands import demand_network
from crush_trio.tools.web.fetch import page_note, url_argument
from crush_trio.tools.web.framing import framed
from crush_trio.tools.web.pages import get_page, readable
from crush_trio.tools.web.web import Reach

_SPEC = ToolSpec(
    name="web_fetch",
    description=(
        "Get a page of the web as Markdown. A long page comes in parts of "
        f"{limits.FETCH_TEXT_BYTES // 1024} KiB: ask again with the offset that is named."
    ),
    parameters=arguments.schema(
        ("url",),
        url=arguments.string("The URL, beginning with http:// or https://"),
        offset=arguments.integer("Characters of the page to leave out (default 0)"),
    ),
    for_sub_agents=True,
)


@attrs.frozen
class WebFetchTool:
    """Gets pages without asking: what allowed the sub-agent allowed that (CW 7.1).

    Redirects are followed to any public host, since the sub-agent may ask for any of them.
    """

    reach: Reach

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Ask the web."""
        arguments.demand_tool(call, context)
        url = url_argument(call)
        demand_network(context)
        skip = arguments.whole(call, "offset", 0, most=limits.FETCH_BODY_BYTES)
        page = await get_page(url, self.reach, within_s=limits.FETCH_S, any_host=True)
        part = await readable(page, "markdown", call, context, skip=skip)
        note = page_note(page, part, url, skip)
        if part.end < part.chars:
            note += f" For more, call web_fetch with offset {part.end}."
        title = f"Title: {part.title}\n" if part.title else ""
        content = framed(f"{title}{part.text}", page.url, "markdown" if page.is_html else "")
        return ToolResult(
            content=content + (f"\n\n({note})" if note else ""),
            metadata={"url": str(page.url), "content_type": page.content_type},
        )
