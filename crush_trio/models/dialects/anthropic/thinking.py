"""How Claude is asked to think: each generation of models takes another form, and refuses others.

From Anthropic's documentation of thinking, effort and preserved thinking (November 2026).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from crush_trio import limits
from crush_trio.models.provider import Target

_CLAUDE = re.compile(r"claude-(?:([a-z]+)-)?(\d{1,2})(?:[-.](\d{1,2}))?(?![\d])(?:-([a-z]+))?")
_ALWAYS = frozenset(("fable", "mythos"))  # lines that think whether they are asked to or not
_LEVELS = ("low", "medium", "high", "xhigh", "max")
_BUDGETS = {
    "minimal": limits.THINKING_TOKENS_MIN,
    "low": limits.THINKING_TOKENS_LOW,
    "medium": limits.THINKING_TOKENS_MEDIUM,
}
_INTERLEAVED = "interleaved-thinking-2025-05-14"
_BINDING = "thinking-binding-controls-2026-08-01"
_Json = dict[str, Any]


@attrs.frozen
class Claude:
    """Which Claude a model is: its line (``opus``, …; "" if not named) and its version."""

    line: str
    version: tuple[int, int]

    @property
    def takes_budget(self) -> bool:
        """It thinks within a number of tokens; later ones decide by themselves (adaptive)."""
        return self.version < (4, 6) and self.line not in _ALWAYS

    @property
    def thinks_by_default(self) -> bool:
        """A request that does not speak of thinking gets it."""
        return self.version >= (5, 0) or self.line in _ALWAYS

    @property
    def interleaves_if_asked(self) -> bool:
        """It thinks between tool calls only with a header; later ones need none."""
        return self.version >= (4, 0) and self.takes_budget

    @property
    def binds_thoughts(self) -> bool:
        """It refuses thoughts whose conversation was changed before them, unless told to drop."""
        return self.version >= ((5, 1) if self.line in _ALWAYS else (5, 5))

    @property
    def samples(self) -> bool:
        """It takes a temperature, ``top_p`` or ``top_k``."""
        return self.version < (4, 7) and self.line not in _ALWAYS

    @property
    def off(self) -> str:
        """The type of ``thinking`` that turns it off; "" if leaving it out does, or nothing."""
        if not self.thinks_by_default or self.line in _ALWAYS:
            return ""
        if self.line == "sonnet" and self.version >= (5, 5):
            return "between_tools"
        if self.line == "haiku" or self.version < (5, 5):
            return "disabled"
        return ""


def claude(model: str) -> Claude | None:
    """Which Claude ``model`` names, in whatever spelling; ``None`` if it is none."""
    found = _CLAUDE.search(model.lower())
    if found is None:
        is_preview = "claude-mythos" in model.lower()
        return Claude("mythos", (4, 6)) if is_preview else None
    line, major, minor, late_line = found.groups()
    return Claude(line or late_line or "", (int(major), int(minor or 0)))


@attrs.frozen
class Thinking:
    """What a request says of thinking: members of its body, beta headers, and what follows.

    ``is_on``: thoughts may come, so that sampling must be left out. ``keeps``: earlier thoughts
    are sent back. ``needs_first``: a turn that has called tools must begin with one.
    """

    body: Mapping[str, Any] = attrs.field(factory=dict)
    betas: tuple[str, ...] = ()
    is_on: bool = False
    keeps: bool = True
    needs_first: bool = False


def thinking(target: Target, max_tokens: int, *, betas: bool) -> Thinking:
    """How a request with this limit of output tokens asks for thinking.

    Args:
        betas: Whether fields that need a beta header may be used.
    """
    for given in (target.provider.extra_body, target.choice.options):
        if "thinking" in given:  # somebody knows better
            configured = given["thinking"]
            kind = configured.get("type") if isinstance(configured, Mapping) else None
            is_on = kind in ("enabled", "adaptive")
            return Thinking(is_on=is_on, keeps=is_on)
    model = claude(target.info.model)
    short = max_tokens < 2 * limits.THINKING_TOKENS_MIN  # a title: thoughts would be all of it
    wish = False if short else _wish(target)
    if model is None or model.takes_budget:
        return _budgeted(model, wish, target, max_tokens, betas=betas)
    return _adaptive(model, wish, target, betas=betas)


def _wish(target: Target) -> bool | None:
    choice = target.choice
    if choice.think is False or choice.reasoning_effort in ("none", "off", "disabled"):
        return False
    asked = choice.think is True or bool(choice.reasoning_effort)
    return True if asked and target.info.can_reason else None


def _budgeted(
    model: Claude | None, wish: bool | None, target: Target, max_tokens: int, *, betas: bool
) -> Thinking:
    effort = target.choice.reasoning_effort or target.info.default_reasoning_effort or "medium"
    wanted = _BUDGETS.get(effort, limits.THINKING_TOKENS_HIGH)
    budget = min(wanted, max_tokens // 2)
    if not wish or budget < limits.THINKING_TOKENS_MIN:
        return Thinking(keeps=model is None)  # others think as they like; a Claude does not
    return Thinking(
        {"thinking": {"type": "enabled", "budget_tokens": budget}},
        (_INTERLEAVED,) if betas and model is not None and model.interleaves_if_asked else (),
        is_on=True,
        needs_first=model is not None,
    )


def _adaptive(model: Claude, wish: bool | None, target: Target, *, betas: bool) -> Thinking:
    effort = _effort(model, target)
    body: _Json = {}
    if wish is False and (model.off or not model.thinks_by_default):
        if model.off:
            body["thinking"] = {"type": model.off}
        return Thinking(body, keeps=False)
    if wish is None and not model.thinks_by_default:
        return Thinking({"output_config": {"effort": effort}} if effort else {}, keeps=False)
    asked: _Json = {"type": "adaptive", "display": "summarized"}
    bound = betas and model.binds_thoughts
    if bound:
        # The system prompt and old tool output change in the course of a session.
        asked["block_binding"] = {"prefix_mismatch_behavior": "drop_block"}
    body["thinking"] = asked
    if wish is False:
        effort = "low"  # it cannot be turned off
    if effort:
        body["output_config"] = {"effort": effort}
    return Thinking(body, (_BINDING,) if bound else (), is_on=True)


def _effort(model: Claude, target: Target) -> str:
    """The effort to ask for, among those the model knows; "" leaves it to the model."""
    wanted = target.choice.reasoning_effort or ""
    known = tuple(level for level in _LEVELS if level in target.info.reasoning_levels)
    if not known:
        known = tuple(level for level in _LEVELS if level != "xhigh" or model.version >= (4, 7))
    if wanted == "minimal":
        wanted = "low"
    if wanted not in _LEVELS or wanted in known:
        return "" if wanted in ("none", "off", "disabled") else wanted
    lower = [level for level in known if _LEVELS.index(level) < _LEVELS.index(wanted)]
    return lower[-1] if lower else known[0]
