"""The tool `view`: a section of a text file, or an image."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import attrs

from crush_trio.agent.ports import PermissionAsk, ToolCall, ToolContext, ToolResult, ToolSpec
from crush_trio.limits import (
    VIEW_IMAGE_BYTES,
    VIEW_LINE_CHARS,
    VIEW_LINES,
    VIEW_SCAN_BYTES,
    VIEW_SECTION_BYTES,
)
from crush_trio.tools import arguments
from crush_trio.tools.arguments import ToolProblem, answered, demand
from crush_trio.tools.files.landing import version_of
from crush_trio.tools.files.text_file import looks_binary, open_regular
from crush_trio.tools.paths import Place, look, place_of
from crush_trio.tools.sandbox.demands import demand_readable

_SPEC = ToolSpec(
    name="view",
    description=(
        "Read a section of a text file with line numbers, or look at an image. Long lines and "
        "long sections are cut; go on with offset."
    ),
    parameters=arguments.schema(
        ("file_path",),
        file_path=arguments.string("The file, absolute or relative to the workspace"),
        offset=arguments.integer("Lines to skip from the start (default 0)"),
        limit=arguments.integer(f"Lines to show (default {VIEW_LINES})"),
    ),
)
_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"RIFF": "image/webp",
}
NUL_SIGN = "\u2400"  # some providers refuse a request with a NUL in it
COARSE_CLOCK_NS = 10_000_000
"""File times may lag behind the clock by a kernel tick. A read is dated back by this much, so
that a change right after it is newer than it."""
_MANY = 10**9  # beyond any line number that can be reached


@attrs.frozen
class Section:
    """Consecutive lines of a file, ``more`` if others follow, or the image that it is; and when
    the file was changed last.
    """

    lines: tuple[str, ...]
    more: bool
    changed_ns: int
    image: ToolResult | None = None


class ViewTool:
    """Shows a file; see CW 7.4."""

    @property
    def spec(self) -> ToolSpec:
        """How the model sees it."""
        return _SPEC

    @answered
    async def run(self, call: ToolCall, context: ToolContext) -> ToolResult:
        """Read the section; outside the workspace only with permission."""
        file_path = arguments.text(call, "file_path")
        if not file_path:
            raise ToolProblem("file_path is empty")
        offset = arguments.whole(call, "offset", 0, most=_MANY)
        limit = arguments.whole(call, "limit", 0, most=_MANY) or VIEW_LINES
        place = await place_of(file_path, context.workspace_path)
        demand_readable(place.path, context)
        params = {"file_path": str(place.path), "offset": offset, "limit": limit}
        if place.inside or _is_own_output(place, context):
            demand(context.forbidden(_ask(place, params)))
        else:
            demand(await context.permission(_ask(place, params)))
        path = str(place.path)
        began_ns = time.time_ns()
        try:
            section = await look(_look, place.path, offset, limit)
        except FileNotFoundError:
            raise ToolProblem(f"File not found: {path}") from None
        read_at_ns = max(section.changed_ns, began_ns - COARSE_CLOCK_NS)
        if section.image is not None:
            return attrs.evolve(section.image, read_paths=(path,), read_at_ns=read_at_ns)
        body = "\n".join(f"{n:6}|{line}" for n, line in enumerate(section.lines, offset + 1))
        last = offset + len(section.lines)
        if section.more:
            body += f"\n\n(File has more lines. Use 'offset' {last} to read beyond line {last})"
        elif not section.lines:
            body = f"(no lines from offset {offset} on)" if offset else "(the file is empty)"
        return ToolResult(
            content=f"<file>\n{body}\n</file>\n",
            metadata={"file_path": path, "content": "\n".join(section.lines)},
            read_paths=(path,),
            read_at_ns=read_at_ns,
        )


def _is_own_output(place: Place, context: ToolContext) -> bool:
    """Whether it is what a command of this session wrote, which the session was told of."""
    return context.outputs is not None and place.path.is_relative_to(context.outputs)


def _ask(place: Place, params: dict[str, object]) -> PermissionAsk:
    outside = "" if place.inside else " outside the workspace"
    return PermissionAsk(
        tool_name="view",
        action="read",
        description=f"Read file{outside}: {place.path}",
        path=str(place.path.parent),
        params=params,
        target=str(place.path),
        inside=place.inside,
    )


def _look(path: Path, offset: int, limit: int) -> Section:
    """An image, whatever the file is called, or a section of the text; blocks on the disk."""
    return _image(path) or read_section(path, offset, limit)


def read_section(path: Path, offset: int, limit: int) -> Section:
    """Up to ``limit`` lines after the first ``offset``; blocks on the disk.

    Lines are cut at `VIEW_LINE_CHARS` characters, the section at `VIEW_SECTION_BYTES`, and at
    most `VIEW_SCAN_BYTES` are read to get there.

    Raises:
        ToolProblem: No regular file, a binary one, or the offset is too far.
        OSError: It cannot be read.
    """
    with open_regular(path) as file:
        if looks_binary(file.peek(1)):
            raise ToolProblem(f"{path} is a binary file; view shows text and images")
        lines: list[str] = []
        changed_ns = version_of(os.fstat(file.fileno())).changed_ns
        size = scanned = number = 0
        while True:
            # A few bytes more than a shown line can have, so that a cut is seen as one.
            raw = file.readline(VIEW_LINE_CHARS * 4 + 2)
            if not raw or len(lines) == limit or size >= VIEW_SECTION_BYTES:
                return Section(tuple(lines), bool(raw), changed_ns)
            scanned += len(raw)
            whole = raw
            while whole and not whole.endswith(b"\n") and scanned <= VIEW_SCAN_BYTES:
                whole = file.readline(65_536)  # the rest of a line that is too long to show
                scanned += len(whole)
            if number >= offset:
                shown = _line(raw)
                lines.append(shown)
                size += len(shown.encode("utf-8", "replace")) + 1
            number += 1
            if scanned > VIEW_SCAN_BYTES and lines:
                return Section(tuple(lines), True, changed_ns)
            if scanned > VIEW_SCAN_BYTES:
                raise ToolProblem(
                    f"offset {offset} of {path} lies more than {VIEW_SCAN_BYTES} bytes into the "
                    "file; use grep, or bash with sed or tail"
                )


def _line(raw: bytes) -> str:
    line = raw.rstrip(b"\r\n").decode("utf-8", "replace").removeprefix("\ufeff")
    line = line.replace("\0", NUL_SIGN)
    return line if len(line) <= VIEW_LINE_CHARS else line[:VIEW_LINE_CHARS] + "..."


def _image(path: Path) -> Section | None:
    """The image as a result; ``None`` if its bytes are of no known kind."""
    with open_regular(path) as file:
        head = file.peek(12)
        kind = next((mime for magic, mime in _IMAGES.items() if head.startswith(magic)), None)
        if kind is None or (kind == "image/webp" and head[8:12] != b"WEBP"):
            return None
        changed_ns = version_of(os.fstat(file.fileno())).changed_ns
        data = file.read(VIEW_IMAGE_BYTES + 1)
    if len(data) > VIEW_IMAGE_BYTES:
        raise ToolProblem(f"{path} is an image over {VIEW_IMAGE_BYTES} bytes; it is not shown")
    shown = ToolResult(
        content=f"Loaded {kind} content",
        metadata={"file_path": str(path), "content": ""},
        data=base64.b64encode(data).decode("ascii"),
        mime_type=kind,
    )
    return Section((), False, changed_ns, shown)
