"""Expansion of ``$VAR``, ``${VAR}`` and ``${VAR:-default}`` in values that allow it (CW 10.3).

Configuration keeps the template; it is expanded each time the value is used, so that a changed
variable counts. No message quotes a template or a value: either may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from crush_trio import limits
from crush_trio.protocol.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(
    template: str,
    environ: Mapping[str, str],
    *,
    allow_commands: bool = False,
    where: str = "the configuration",
) -> str:
    r"""The value of ``template``; an unset variable is empty, ``\$`` is a dollar sign.

    Args:
        allow_commands: Whether the template comes from a trusted file.
        where: The path of the value, for messages.

    Raises:
        ConfigError: A lone ``$``, an unfinished or unknown ``${…}``, or ``$(command)``, which
            this version never runs.
    """
    return _Expansion(template, environ, allow_commands, where).run()


@attrs.define
class _Expansion:
    template: str
    environ: Mapping[str, str]
    allow_commands: bool
    where: str
    at: int = 0

    def run(self) -> str:
        return self._until("", depth=0)

    def _until(self, end: str, depth: int) -> str:
        """Expanded text up to the character ``end``, which is consumed; ``""`` is the end."""
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
            elif char == "$":
                pieces.append(self._variable(depth))
            else:
                pieces.append(char)
        if end:
            raise self._error("a ${ without its }")
        return "".join(pieces)

    def _variable(self, depth: int) -> str:
        if self.template.startswith("(", self.at):
            raise self._error(
                "$(command) is not supported by this version; put the value into a variable"
                if self.allow_commands
                else "$(command) is allowed in your own configuration files only"
            )
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
            default = self._until("}", depth + 1)
            return value or default
        raise self._error("only ${NAME} and ${NAME:-default} are understood")

    def _error(self, words: str) -> ConfigError:
        return ConfigError(f"{self.where}: {words}.")
