"""The tool `download`: what a URL answers, whatever it is, as a file."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from crush_trio import limits
from crush_trio.agent.ports import PermissionAsk, ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered, demand
from crush_trio.tools.files.change import demand_fresh_version
from crush_trio.tools.files.landing import Landing, Version, version_of
from crush_trio.tools.files.text_file import open_regular
from crush_trio.tools.paths import Place, alter, look, place_of
from crush_trio.tools.sandbox.demands import demand_network, demand_writable
from crush_trio.tools.web.exchange import Answer, opened
from crush_trio.tools.web.fetch import url_argument
from crush_trio.tools.web.urls import WebUrl
from crush_trio.tools.web.web import Reach

_SPEC = ToolSpec(
    name="download",
    description=(
        "Download a URL into a file, of any type, at most "
        f"{limits.DOWNLOAD_BYTES // (1024 * 1024)} MiB. An existing file must have been read with "
        "view in this session."
    ),
    parameters=arguments.schema(
        ("url", "file_path"),
        url=arguments.string("The URL, beginning with http:// or https://"),
        file_path=arguments.string("The file, absolute or relative to the workspace"),
        timeout=arguments.integer(f"Seconds it may take (at most {limits.DOWNLOAD_MAX_S})"),
    ),
)


@attrs.frozen
class DownloadTool:
    """Downloads one file; see CW 7.1. It appears complete or not at all."""

    reach: Reach

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Look at the target, ask a person or a rule, then the web."""
        url = url_argument(call)
        text = arguments.text(call, "file_path")
        if not text:
            raise ToolProblem("file_path is empty")
        seconds = arguments.whole(call, "timeout", 0, most=limits.DOWNLOAD_MAX_S)
        place = await place_of(text, context.workspace_path)
        demand_network(context)
        demand_writable(place.path, context)
        old = await look(_version_at, place.path)
        demand_fresh_version(str(place.path), old, context)
        params: dict[str, Any] = {"url": str(url), "file_path": str(place.path)}
        if seconds:
            params["timeout"] = seconds
        demand(await context.permission(_ask(url, place, params)))
        within_s = seconds or limits.DOWNLOAD_S
        async with opened(url, self.reach, within_s=within_s, accept="*/*", packed=False) as answer:
            _check_head(answer)
            async with _landing(place.path, old) as landing:
                size = await _carry(answer, landing)
                await look(landing.sync)  # may take long; who is cancelled does not wait for it
                written_ns = await alter(landing.commit)
            kind = f", {answer.content_type}" if answer.content_type else ""
            return ToolResult(
                content=f"Downloaded {size} bytes to {place.path} ({answer.url}{kind})",
                metadata={"url": str(answer.url), "file_path": str(place.path), "bytes": size},
                read_paths=(str(place.path),),
                read_at_ns=written_ns,
            )
        raise AssertionError("the block is left by return or raise")


def _ask(url: WebUrl, place: Place, params: dict[str, Any]) -> PermissionAsk:
    where = "" if place.inside else " (outside the workspace)"
    return PermissionAsk(
        tool_name="download",
        action="download",
        description=f"Download file from URL: {url} to {place.path}{where}",
        path=str(place.path.parent),
        params=params,
        target=str(place.path),
        inside=place.inside,
    )


def _version_at(path: Path) -> Version | None:
    try:
        with open_regular(path) as file:
            return version_of(os.fstat(file.fileno()))
    except FileNotFoundError:
        return None


def _check_head(answer: Answer) -> None:
    if not 200 <= answer.status < 300:
        raise ToolProblem(f"Request failed with status code: {answer.status} ({answer.url})")
    if answer.length is not None and answer.length > limits.DOWNLOAD_BYTES:
        raise _too_large(answer)


def _too_large(answer: Answer) -> ToolProblem:
    return ToolProblem(
        f"{answer.url} has more than {limits.DOWNLOAD_BYTES} bytes, the most that is downloaded. "
        "Nothing was written."
    )


@asynccontextmanager
async def _landing(path: Path, expected: Version | None) -> AsyncIterator[Landing]:
    landing = await alter(Landing, path, expected)
    try:
        yield landing
    finally:
        with trio.move_on_after(limits.DOWNLOAD_CLEANUP_S, shield=True):
            await trio.to_thread.run_sync(landing.close, abandon_on_cancel=True)


async def _carry(answer: Answer, landing: Landing) -> int:
    """Write the whole body; how many bytes that were."""
    size, held = 0, bytearray()
    async with aclosing(answer.pieces()) as pieces:
        async for piece in pieces:
            size += len(piece)
            if size > limits.DOWNLOAD_BYTES:
                raise _too_large(answer)
            held += piece
            if len(held) >= limits.DOWNLOAD_WRITE_BYTES:
                await alter(landing.write, bytes(held))
                held.clear()
    await alter(landing.write, bytes(held))
    return size
