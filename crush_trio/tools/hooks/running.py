"""Runs the user's hooks among the run's own processes, so that they end with it (G10)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from crush_trio.agent.ports import HookPlace, HookSays, ProcessHost
from crush_trio.limits import HOOK_ENV_BYTES, HOOKS_AT_ONCE
from crush_trio.protocol.errors import Refused
from crush_trio.tools.hooks.answer import read_answer
from crush_trio.tools.hooks.configured import AFTER_TOOL, BEFORE_TOOL, RUN_ENDED, Hook, chosen
from crush_trio.tools.processes.run_processes import shell

logger = logging.getLogger(__name__)

_FROM_INPUT = {
    "command": "CRUSH_TOOL_INPUT_COMMAND",
    "file_path": "CRUSH_TOOL_INPUT_FILE_PATH",
}
"""Arguments that a hook also gets as a variable (CW 7.6)."""


@attrs.frozen
class CommandHooks:
    """An `agent.ports.Hooks` of commands; ``hooks`` are those of the configuration, in order."""

    hooks: tuple[Hook, ...]
    processes: ProcessHost
    place: HookPlace

    @property
    def hears_ends(self) -> bool:
        """See `agent.ports.Hooks`."""
        return any(hook.event == RUN_ENDED for hook in self.hooks)

    async def before_tool(
        self, tool_name: str, tool_input: Mapping[str, Any]
    ) -> tuple[HookSays, ...]:
        """See `agent.ports.Hooks`."""
        about = {"tool_name": tool_name, "tool_input": dict(tool_input)}
        return await self._ask(BEFORE_TOOL, about, _variables(tool_name, tool_input), tool_name)

    async def after_tool(
        self, tool_name: str, tool_input: Mapping[str, Any], content: str, *, is_error: bool
    ) -> tuple[HookSays, ...]:
        """See `agent.ports.Hooks`."""
        about = {
            "tool_name": tool_name,
            "tool_input": dict(tool_input),
            "tool_response": {"content": content, "is_error": is_error},
        }
        return await self._ask(AFTER_TOOL, about, _variables(tool_name, tool_input), tool_name)

    async def run_ended(self, outcome: str, text: str, error: str) -> None:
        """See `agent.ports.Hooks`."""
        about = {"outcome": outcome, "text": text, "error": error}
        await self._ask(RUN_ENDED, about, {"CRUSH_OUTCOME": outcome}, None)

    async def _ask(
        self,
        event: str,
        about: Mapping[str, Any],
        variables: Mapping[str, str],
        tool_name: str | None,
    ) -> tuple[HookSays, ...]:
        """Run the hooks of this moment side by side; what they say, in their order."""
        hooks = chosen(self.hooks, event, tool_name)
        if not hooks:
            return ()
        cwd = str(self.place.workspace_path)
        ids = {"session_id": self.place.session_id, "run_id": self.place.run_id}
        payload = json.dumps({"event": event, **ids, "cwd": cwd, **about}).encode()
        env = {
            **self.place.env,
            "CRUSH_EVENT": event,
            "CRUSH_SESSION_ID": self.place.session_id,
            "CRUSH_RUN_ID": self.place.run_id,
            "CRUSH_CWD": cwd,
            "CRUSH_PROJECT_DIR": cwd,
            **variables,
        }
        said: dict[int, HookSays] = {}
        room = trio.CapacityLimiter(HOOKS_AT_ONCE)

        async def ask(number: int, hook: Hook) -> None:
            async with room:
                said[number] = await self._run(hook, payload, env)

        async with trio.open_nursery() as nursery:
            for number, hook in enumerate(hooks):
                nursery.start_soon(ask, number, hook)
        return tuple(said[number] for number in range(len(hooks)))

    async def _run(self, hook: Hook, payload: bytes, env: Mapping[str, str]) -> HookSays:
        try:
            # Not as a command of the model's, of which a long output is kept for it to look at.
            result = await self.processes.run_argv(
                (shell(), "-c", hook.command),
                cwd=self.place.workspace_path,
                env=env,
                timeout_s=hook.timeout_s,
                on_output=lambda _stream, _text: None,
                spill_name="hook",
                stdin=payload,
            )
        except (OSError, Refused) as exc:
            why = exc.strerror if isinstance(exc, OSError) else exc.message
            says = HookSays(hook.name, hook.matcher, problem=f"cannot be started: {why}")
        else:
            says = read_answer(hook, result)
        if says.problem:  # what it wrote may repeat what the model or a file said: not for the log
            problem, run_id = says.problem.partition(":")[0], self.place.run_id
            logger.warning("run %s: hook %r (%s): %s", run_id, hook.name, hook.event, problem)
        return says


def _variables(tool_name: str, tool_input: Mapping[str, Any]) -> dict[str, str]:
    """The variables of one call; an argument that is too long for one, or none, is left out."""
    found = {"CRUSH_TOOL_NAME": tool_name}
    for name, variable in _FROM_INPUT.items():
        value = tool_input.get(name)
        if isinstance(value, str) and "\0" not in value:
            text = value.encode("utf-8", "replace")
            if len(text) <= HOOK_ENV_BYTES:
                found[variable] = text.decode()
    return found
