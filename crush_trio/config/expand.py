"""Expansion of ``$VAR``, ``${VAR}``, ``${VAR:-default}`` and ``$(command)`` in values (CW 10.3).

Configuration keeps the template; it is expanded each time the value is used, so that a changed
variable counts. No message quotes a template or a value: either may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import attrs

from crush_trio import limits
from crush_trio.protocol.errors import ConfigError

RunCommand: TypeAlias = Callable[[str, Mapping[str, str]], str]
"""Runs the text of a ``$(command)`` in an environment and gives its output.

`config.command.run_command` is the real one; it blocks, so who passes it expands in a thread.
"""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def layered(*environs: Mapping[str, str]) -> dict[str, str]:
    """One environment out of several: of a variable that several have, the first one counts."""
    found: dict[str, str] = {}
    for environ in reversed(environs):
        found.update(environ)
    return found


def expand(
    template: str,
    environ: Mapping[str, str],
    *,
    run_command: RunCommand | None = None,
    where: str = "the configuration",
) -> str:
    r"""The value of ``template``; an unset variable is empty, ``\$`` is a dollar sign.

    Args:
        environ: Where variables are looked up; see `layered`.
        run_command: Runs each ``$(command)`` whose value is needed. ``None`` if the template does
            not come from a trusted file: then a command is an error. With the real one this call
            blocks up to `limits.CONFIG_COMMAND_S` per command.
        where: File, if it is known, and path of the value, for messages.

    Raises:
        ConfigError: A lone ``$``, an unfinished or unknown ``${…}``, a ``$(command)`` that is
            unfinished, not allowed or failed, or more than `limits.CONFIG_COMMANDS` of them.
    """
    return _Expansion(template, environ, run_command, where).run()


def has_command(template: str, *, where: str = "the configuration") -> bool:
    """Whether a ``$(command)`` stands in ``template``, needed or not; runs nothing.

    Raises:
        ConfigError: The template is broken.
    """
    expansion = _Expansion(template, {}, lambda command, environ: "", where)
    expansion.run()
    return expansion.commands > 0


def literal(text: str) -> str:
    r"""The template whose value is ``text`` whatever it holds: each ``$`` becomes ``\$``."""
    return text.replace("$", r"\$")


@attrs.define
class _Expansion:
    template: str
    environ: Mapping[str, str]
    run_command: RunCommand | None
    where: str
    at: int = 0
    commands: int = 0

    def run(self) -> str:
        return self._until("", depth=0, needed=True)

    def _until(self, end: str, depth: int, *, needed: bool) -> str:
        """Expanded text up to the character ``end``, which is consumed; ``""`` is the end.

        What is not ``needed`` is read, and no command in it is run.
        """
        if depth > limits.CONFIG_DEPTH:
            raise self._error(f"defaults nested deeper than {limits.CONFIG_DEPTH} levels")
        pieces: list[str] = []
        while self.at < len(self.template):
            char = self.template[self.at]
            self.at += 1
            if char == end:
                return "".join(pieces)
            if char == "\\" and self.template.startswith("$", self.at):
                self.at += 1
                pieces.append("$")
            elif char != "$":
                pieces.append(char)
            elif self.template.startswith("(", self.at):
                pieces.append(self._command(needed=needed))
            else:
                pieces.append(self._variable(depth, needed=needed))
        if end:
            raise self._error("a ${ without its }")
        return "".join(pieces)

    def _command(self, *, needed: bool) -> str:
        if self.run_command is None:
            raise self._error("$(command) is allowed in your own and in trusted files only")
        end = _end_of_command(self.template, self.at + 1)
        if end is None:
            raise self._error("a $( without its )")
        command, self.at = self.template[self.at + 1 : end], end + 1
        self.commands += 1
        if self.commands > limits.CONFIG_COMMANDS:
            raise self._error(f"more than {limits.CONFIG_COMMANDS} commands in one value")
        if not needed:
            return ""
        try:
            return self.run_command(command, self.environ)
        except ConfigError as exc:
            raise ConfigError(f"{self.where}: {exc}") from exc

    def _variable(self, depth: int, *, needed: bool) -> str:
        braced = self.template.startswith("{", self.at)
        name = _NAME.match(self.template, self.at + braced)
        if name is None:
            raise self._error(r"a $ without the name of a variable; write \$ for a dollar sign")
        self.at = name.end()
        value = self.environ.get(name.group(), "")
        if not braced:
            return value
        if self.template.startswith("}", self.at):
            self.at += 1
            return value
        if self.template.startswith(":-", self.at):
            self.at += 2
            default = self._until("}", depth + 1, needed=needed and not value)
            return value or default
        raise self._error("only ${NAME} and ${NAME:-default} are understood")

    def _error(self, words: str) -> ConfigError:
        return ConfigError(f"{self.where}: {words}.")


def _end_of_command(text: str, at: int) -> int | None:
    """Where the ``)`` is that ends the command beginning at ``at``; quoting is the shell's.

    The parentheses of a ``case`` pattern have to be written in pairs, ``(pattern)``.
    """
    inside = ["("]  # what is open: a parenthesis, or a double quote
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\":
            at += 1
        elif char == '"':
            if inside[-1] == '"':
                inside.pop()
            else:
                inside.append('"')
        elif inside[-1] == '"':
            if char == "$" and text.startswith("(", at):
                inside.append("(")
                at += 1
        elif char == "'":
            at = text.find("'", at) + 1
            if at == 0:
                return None
        elif char == "(":
            inside.append("(")
        elif char == ")":
            inside.pop()
            if not inside:
                return at - 1
    return None
