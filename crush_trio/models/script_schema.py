"""The shape of a script file: its classes, and the strict loader that names each mistake.

``script.schema.json`` beside this module is the same shape as a JSON schema, for editors.
"""

from __future__ import annotations

import os
import stat
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from crush_trio import limits
from crush_trio.models.strict import read_object, rule
from crush_trio.protocol.codec import parse
from crush_trio.protocol.errors import DecodeError

FINISH: Final = ("end_turn", "tool_use", "max_tokens", "content_filter", "unknown")
THEN: Final = ("error", "end", "repeat")

_ms = rule(at_least=0, at_most=limits.SCRIPT_WAIT_MAX_MS)
_count = rule(at_least=0)
_pieces = rule(at_least=1)


@attrs.frozen
class Text:
    """Streams ``text``, ``tokens`` times, each time whole or cut into ``piece_chars`` characters.

    ``every_ms`` lies between two pieces; the first comes at once.
    """

    text: str
    tokens: int = attrs.field(
        default=1, metadata=rule(at_least=1, at_most=limits.SCRIPT_TOKENS_MAX)
    )
    piece_chars: int | None = attrs.field(default=None, metadata=_pieces)
    every_ms: float = attrs.field(default=0.0, metadata=_ms)


@attrs.frozen
class Reasoning:
    """Streams a thought and ends it; ``signature`` is what the provider wants to see again."""

    reasoning: str
    signature: str = ""
    piece_chars: int | None = attrs.field(default=None, metadata=_pieces)
    every_ms: float = attrs.field(default=0.0, metadata=_ms)


@attrs.frozen
class Tool:
    """Asks for the tool named ``tool``.

    ``raw_input`` is sent as it is, valid JSON or not; ``input`` as compact JSON. Without an
    ``id`` the call gets one that is unique in the session. ``signature`` is what the provider
    wants to see again with it.
    """

    tool: str = attrs.field(metadata=rule(not_empty=True))
    input: dict[str, Any] = attrs.field(factory=dict)
    raw_input: str | None = None
    id: str = ""
    signature: str = ""
    piece_chars: int | None = attrs.field(default=None, metadata=_pieces)
    every_ms: float = attrs.field(default=0.0, metadata=_ms)


@attrs.frozen
class Wait:
    """Sends nothing for a while."""

    wait_ms: float = attrs.field(metadata=_ms)


@attrs.frozen
class Reset:
    """Forgets what the step has streamed, waits ``delay_ms``, and goes on with the next action."""

    reset: str
    attempt: int = attrs.field(default=1, metadata=_pieces)
    max_attempts: int = attrs.field(default=1, metadata=_pieces)
    delay_ms: float = attrs.field(default=0.0, metadata=_ms)


@attrs.frozen
class Error:
    """Ends the step with a provider error whose sentence is ``error``."""

    error: str
    code: str = attrs.field(default="provider_error", metadata=rule(not_empty=True))
    retryable: bool = False
    title: str = "Provider Error"


@attrs.frozen
class Silence:
    """Sends nothing for ever, until the run is cancelled or a limit ends it."""

    silence: bool = attrs.field(metadata=rule(one_of=(True,)))


@attrs.frozen
class Cut:
    """Breaks the stream off without an end: the step fails with code ``truncated``."""

    cut: bool = attrs.field(metadata=rule(one_of=(True,)))


@attrs.frozen
class UsageNumbers:
    """Tokens the step reports; ``estimated`` if the provider did not count all of them."""

    input_tokens: int = attrs.field(default=0, metadata=_count)
    output_tokens: int = attrs.field(default=0, metadata=_count)
    cache_read_tokens: int = attrs.field(default=0, metadata=_count)
    cache_write_tokens: int = attrs.field(default=0, metadata=_count)
    estimated: bool = False


@attrs.frozen
class Counted:
    """Reports what was used so far, ``times`` times, and no content; a provider's ping, too."""

    usage_so_far: UsageNumbers
    times: int = attrs.field(default=1, metadata=rule(at_least=1, at_most=limits.SCRIPT_TOKENS_MAX))
    every_ms: float = attrs.field(default=0.0, metadata=_ms)


Action: TypeAlias = Text | Reasoning | Tool | Wait | Reset | Error | Silence | Cut | Counted
ACTIONS: Final[dict[str, type[Any]]] = {
    "text": Text,
    "reasoning": Reasoning,
    "tool": Tool,
    "wait_ms": Wait,
    "reset": Reset,
    "error": Error,
    "silence": Silence,
    "cut": Cut,
    "usage_so_far": Counted,
}
"""The key that makes an object this action. No action has the key of another."""


@attrs.frozen
class When:
    """Which runs a step is for; every key that is given must hold.

    ``prompt_number`` counts the prompts of the session from 1.
    """

    prompt_contains: str | None = None
    prompt_is: str | None = None
    prompt_number: int | None = attrs.field(default=None, metadata=_pieces)

    def matches(self, prompt: str, number: int) -> bool:
        """Whether a run with this prompt, the ``number``-th of its session, is meant."""
        return (
            (self.prompt_contains is None or self.prompt_contains in prompt)
            and (self.prompt_is is None or self.prompt_is == prompt)
            and (self.prompt_number is None or self.prompt_number == number)
        )


@attrs.frozen
class Step:
    """What the model does in one request.

    Without ``finish`` it is ``tool_use`` if a tool was asked for, else ``end_turn``.
    """

    actions: tuple[Action, ...]
    when: When | None = None
    usage: UsageNumbers | None = None
    cost_usd: float | None = attrs.field(default=None, metadata=_count)
    finish: str | None = attrs.field(default=None, metadata=rule(one_of=FINISH))


@attrs.frozen
class Title:
    """What the script answers when it is asked for a session's title, after ``delay_ms``.

    ``error`` fails instead, ``silence`` never answers.
    """

    text: str = ""
    delay_ms: float = attrs.field(default=0.0, metadata=_ms)
    error: str | None = None
    silence: bool = False
    usage: UsageNumbers | None = None
    cost_usd: float | None = attrs.field(default=None, metadata=_count)


@attrs.frozen
class ModelFacts:
    """What the script says it is: the fields of `ModelInfo` with the same names."""

    name: str = ""
    context_window: int = attrs.field(default=0, metadata=_count)
    max_output_tokens: int = attrs.field(default=0, metadata=_count)
    cost_per_1m_in: float | None = attrs.field(default=None, metadata=_count)
    cost_per_1m_out: float | None = attrs.field(default=None, metadata=_count)
    cost_per_1m_in_cached: float | None = attrs.field(default=None, metadata=_count)
    cost_per_1m_out_cached: float | None = attrs.field(default=None, metadata=_count)
    can_reason: bool = False
    reasoning_levels: tuple[str, ...] = ()
    default_reasoning_effort: str = ""
    supports_attachments: bool | None = None
    supports_tools: bool | None = None


@attrs.frozen
class Script:
    """A whole file. ``then`` says what comes when a run asks for more steps than there are.

    Without ``title`` it offers no titles. The n-th summary that a run asks for plays the n-th step
    of ``summary``, further ones the last. Runs of sub-agents play ``sub_agents``, all others
    ``steps``.
    """

    steps: tuple[Step, ...]
    version: int = attrs.field(default=1, metadata=rule(one_of=(1,)))
    model: ModelFacts = ModelFacts()
    then: str = attrs.field(default="error", metadata=rule(one_of=THEN))
    title: Title | None = None
    summary: tuple[Step, ...] = ()
    sub_agents: tuple[Step, ...] = ()


def load_script(path: Path) -> Script:
    """The script in a file.

    Raises:
        DecodeError: The file cannot be read, is larger than `limits.SCRIPT_FILE_BYTES`, or is no
            script; names the file and every wrong place in it.
    """
    try:
        raw = _read_regular(path)
        script = parse_script(raw)
    except OSError as exc:
        raise DecodeError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except DecodeError as exc:
        raise DecodeError(f"{path} is not a script: {exc}") from exc
    return script


def parse_script(raw: bytes | str) -> Script:
    """The script in JSON text.

    Raises:
        DecodeError: Names every wrong place by its path, as in ``$.steps[0].actions: …``.
    """
    value = parse(raw)
    mistakes: list[str] = []
    if type(value) is dict:
        value = {key: item for key, item in value.items() if key != "$schema"}
    script = read_object(Script, value, "$", mistakes, {Action: _read_action})
    if isinstance(script, Script):
        _check_order(script, mistakes)
    if mistakes or not isinstance(script, Script):
        raise DecodeError("; ".join(mistakes))
    return script


def schema_text() -> str:
    """The JSON schema of a script file, as text."""
    return resources.files(__package__).joinpath("script.schema.json").read_text("utf-8")


def _read_regular(path: Path) -> bytes:
    # Without O_NONBLOCK opening a named pipe would wait for a writer, for ever.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DecodeError("it is not a regular file")
        raw = file.read(limits.SCRIPT_FILE_BYTES + 1)
    if len(raw) > limits.SCRIPT_FILE_BYTES:
        raise DecodeError(f"it is larger than {limits.SCRIPT_FILE_BYTES} bytes")
    return raw


def _read_action(value: Any, path: str, mistakes: list[str]) -> Any:
    if type(value) is not dict:
        mistakes.append(f"{path}: expected an object")
        return None
    kinds = [key for key in ACTIONS if key in value]
    if len(kinds) != 1:
        found = " and ".join(kinds) if kinds else "none"
        mistakes.append(f"{path}: expected exactly one of {', '.join(ACTIONS)}, found {found}")
        return None
    action = read_object(ACTIONS[kinds[0]], value, path, mistakes, {})
    if isinstance(action, Tool) and "input" in value and "raw_input" in value:
        mistakes.append(f"{path}: expected input or raw_input, not both")
    return action


def _check_order(script: Script, mistakes: list[str]) -> None:
    for where in ("steps", "summary", "sub_agents"):
        steps: tuple[Step, ...] = getattr(script, where)
        for number, step in enumerate(steps):
            for place, action in enumerate(step.actions[:-1]):
                if isinstance(action, Error | Silence | Cut):
                    mistakes.append(
                        f"$.{where}[{number}].actions[{place}]: nothing is reached after it"
                    )
