"""The hooks of a configuration, and which of them want to know of a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from crush_trio.limits import HOOK_TIMEOUT_MAX_S, HOOK_TIMEOUT_S

BEFORE_TOOL: Final = "PreToolUse"
AFTER_TOOL: Final = "PostToolUse"
RUN_ENDED: Final = "Stop"
ANY_TOOL: Final = "*"


@attrs.frozen
class Hook:
    """One command and when it runs; ``name`` is what is shown of it, never the command."""

    event: str
    name: str
    command: str
    matcher: str = ""
    timeout_s: float = HOOK_TIMEOUT_S

    def wants(self, tool_name: str) -> bool:
        """Whether it wants to know of this tool: its matcher occurs in the name, or it has none."""
        if self.matcher in ("", ANY_TOOL):
            return True
        # Here: it costs 10 ms, and most users have no hooks. RE2 takes linear time, whatever the
        # expression; the configuration has been checked with the same engine.
        import re2  # type: ignore[import-untyped]  # it has no stubs

        options = re2.Options()
        options.log_errors = False
        return re2.compile(self.matcher, options).search(tool_name) is not None


def configured(hooks: Mapping[str, Sequence[Mapping[str, Any]]]) -> tuple[Hook, ...]:
    """The hooks of the checked table ``hooks``, in its order; events we do not know are left out.

    One without a name is called by its event and place, as in ``PreToolUse 2``.
    """
    return tuple(
        Hook(
            event,
            each.get("name") or f"{event} {number}",
            each["command"],
            each.get("matcher", ""),
            min(each.get("timeout") or HOOK_TIMEOUT_S, HOOK_TIMEOUT_MAX_S),
        )
        for event in (BEFORE_TOOL, AFTER_TOOL, RUN_ENDED)
        for number, each in enumerate(hooks.get(event, ()), start=1)
    )


def chosen(hooks: Sequence[Hook], event: str, tool_name: str | None) -> tuple[Hook, ...]:
    """Those that run at this moment, in order; of several with one command only the first."""
    found: dict[str, Hook] = {}
    for hook in hooks:
        if hook.event == event and (tool_name is None or hook.wants(tool_name)):
            found.setdefault(hook.command, hook)
    return tuple(found.values())
