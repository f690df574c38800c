"""What a hook's exit code and output say. Pure (CW 7.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import orjson

from crush_trio.agent.ports import HookDecision, HookSays, ShellResult
from crush_trio.limits import HOOK_PROBLEM_CHARS, HOOK_TEXT_CHARS
from crush_trio.tools.hooks.configured import Hook

DENY_CODE: Final = 2
HALT_CODE: Final = 49

_DECISIONS: Final[Mapping[str, HookDecision]] = {
    "": "none",
    "none": "none",
    "ask": "none",
    "allow": "allow",
    "approve": "allow",
    "deny": "deny",
    "block": "deny",
}
"""``ask`` leaves it to the permissions, which is what happens without a hook."""


def read_answer(hook: Hook, result: ShellResult) -> HookSays:
    """What a hook that has ended says.

    Exit code 0: what its JSON says, if it wrote any; 2: deny; 49: deny and halt. Anything else is
    a hook that failed, and decides nothing.
    """
    says = HookSays(hook.name, hook.matcher)
    if result.timed_out:
        return attrs.evolve(says, problem=f"ended after {hook.timeout_s:g} s")
    if result.exit_code in (DENY_CODE, HALT_CODE):
        halt = result.exit_code == HALT_CODE
        reason = _cut(result.stderr.strip())
        return attrs.evolve(says, decision="deny", halt=halt, reason=reason)
    if result.exit_code != 0:
        last = result.stderr.strip().rpartition("\n")[2][:HOOK_PROBLEM_CHARS]
        problem = f"exit code {result.exit_code}"
        return attrs.evolve(says, problem=f"{problem}: {last}" if last else problem)
    return _read_output(says, result)


def _read_output(says: HookSays, result: ShellResult) -> HookSays:
    text = result.stdout.strip()
    if not text.startswith("{"):  # a hook may say what it likes; only an object is an answer
        return says
    if result.stdout_dropped:
        return attrs.evolve(says, problem="its output is too long to be read")
    try:
        answer = orjson.loads(text)
    except orjson.JSONDecodeError:
        return attrs.evolve(says, problem="its output is not JSON")
    return _Reading(answer).says(says)


@attrs.define
class _Reading:
    """An answer object while its members are read; ``wrong`` names those of another type."""

    answer: Mapping[str, Any]
    wrong: list[str] = attrs.field(factory=list)

    def says(self, blank: HookSays) -> HookSays:
        """Both forms of an answer: our members, and those inside ``hookSpecificOutput``.

        What is malformed does not count. Then an ``allow`` does not count either: it may have
        been meant for other arguments. A ``deny`` and a ``halt`` do.
        """
        inner = self._of(self.answer, "hookSpecificOutput", dict, {})
        decisions = {
            self._decision(self.answer, "decision"),
            self._decision(inner, "permissionDecision"),
        }
        halt = (
            self._of(self.answer, "halt", bool, False)
            or self._of(self.answer, "continue", bool, True) is False
        )
        reasons = (
            self._of(self.answer, "reason", str, ""),
            self._of(self.answer, "stopReason", str, "") if halt else "",
            self._of(inner, "permissionDecisionReason", str, ""),
        )
        contexts = (
            self._context(self.answer, "context"),
            self._context(inner, "additionalContext"),
        )
        changes = (
            self._of(self.answer, "updated_input", dict, None),
            self._of(inner, "updatedInput", dict, None),
        )
        changed = [change for change in changes if change is not None]
        decision: HookDecision = "none"
        if "deny" in decisions:
            decision = "deny"
        elif "allow" in decisions and not self.wrong:
            decision = "allow"
        wrong = ", ".join(dict.fromkeys(self.wrong))
        return attrs.evolve(
            blank,
            decision=decision,
            halt=halt,
            reason=_cut("\n".join(reason for reason in reasons if reason)),
            context=_cut("\n".join(context for context in contexts if context)),
            updated_input={k: v for c in changed for k, v in c.items()} if changed else None,
            problem=f"these members of its answer cannot be read: {wrong}" if wrong else "",
        )

    def _of(self, table: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
        value = table.get(name)
        if value is None:
            return default
        if type(value) is not kind:
            self.wrong.append(name)
            return default
        return value

    def _decision(self, table: Mapping[str, Any], name: str) -> HookDecision:
        said = self._of(table, name, str, "")
        if said not in _DECISIONS:
            self.wrong.append(name)
        return _DECISIONS.get(said, "none")

    def _context(self, table: Mapping[str, Any], name: str) -> str:
        value = table.get(name)
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return "\n".join(value)
        said: str = self._of(table, name, str, "")
        return said


def _cut(text: str) -> str:
    return text if len(text) <= HOOK_TEXT_CHARS else f"{text[:HOOK_TEXT_CHARS]}…"
