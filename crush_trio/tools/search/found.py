"""Running a search in a process of its own: what was found, also if the time ran out."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from crush_trio.agent.ports import PermissionAsk, ToolCall, ToolContext
from crush_trio.tools.arguments import ToolProblem, demand
from crush_trio.tools.paths import Place, look, place_of
from crush_trio.tools.sandbox.demands import demand_readable


@attrs.frozen
class Found:
    """Rows of a search; ``truncated`` if there are more, or may be."""

    rows: tuple[list[Any], ...]
    truncated: bool
    timed_out: bool = False
    summary: Mapping[str, Any] | None = None


async def searched_place(
    text: str, call: ToolCall, context: ToolContext, params: Mapping[str, Any], action: str
) -> Place:
    """Where to search; outside the workspace only with permission.

    Raises:
        NotPermitted: It was refused.
        ToolProblem: Nothing is there.
    """
    place = await place_of(text or ".", context.workspace_path)
    demand_readable(place.path, context)
    doing = "List" if action == "list" else "Search"
    ask = PermissionAsk(
        tool_name=call.name,
        action=action,
        description=f"{doing} outside the workspace: {place.path}",
        path=str(place.path),
        params=dict(params),
        target=str(place.path),
        inside=place.inside,
    )
    demand(context.forbidden(ask) if place.inside else await context.permission(ask))
    if not await look(place.path.exists):
        raise ToolProblem(f"path does not exist: {place.path}")
    return place


async def run_search(
    request: Mapping[str, Any],
    place: Place,
    call: ToolCall,
    context: ToolContext,
    timeout_s: float,
) -> Found:
    """Run `tools.search.program` on a place.

    Raises:
        ToolProblem: The pattern is wrong, or the search failed.
    """
    root = str(place.workspace if place.inside else place.path)
    whole = {**request, "start": str(place.path), "root": root}
    program = (sys.executable, "-I", "-X", "utf8", "-m", "crush_trio.tools.search.program")
    result = await context.processes.run_argv(
        (*program, json.dumps(whole)),
        cwd=place.workspace,
        env=context.env,
        timeout_s=timeout_s,
        on_output=_unseen,
        spill_name=f"{call.id}-search",
    )
    rows: list[list[Any]] = []
    truncated: bool | None = None
    summary: Mapping[str, Any] | None = None
    for line in result.stdout.split("\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue  # cut in two: by the time limit, or because it did not fit into memory
        if isinstance(value, list):
            rows.append(value)
        elif isinstance(value, dict) and "error" in value:
            raise ToolProblem(str(value["error"]))
        elif isinstance(value, dict):
            truncated = bool(value.get("truncated"))
            summary = value.get("summary")
    if truncated is None and not result.timed_out:
        reason = result.stderr.strip().rpartition("\n")[2] or f"exit code {result.exit_code}"
        raise ToolProblem(f"the search failed: {reason}")
    cut = bool(truncated) or truncated is None or result.stdout_dropped > 0
    return Found(tuple(rows), cut, result.timed_out, summary)


def _unseen(stream: str, text: str) -> None:
    """A search's raw rows are not shown to subscribers."""
