"""A command line as a real grammar of the shell's language reads it.

Two uses. `agrees` is the second reading of a line that `plain` has read: where the two differ,
nobody knows what a shell would do. `described` finds every simple command anywhere in a line, in
substitutions, loops and functions too, for rules that forbid; it may find too much, and says when
it does not understand.

The parser takes memory and time that grow with the square of some inputs, in this process and
without a way to stop it. So what it is given is bounded first.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import attrs

from crush_trio.limits import SHELL_PARSE_BYTES, SHELL_PARSE_SIGNS
from crush_trio.tools.shell.plain import NotPlain, Redirect, Step, words

if TYPE_CHECKING:
    from tree_sitter import Language, Node

_SIGNS: Final = re.compile(r"[|&;<>(){}=`$]")
"""Characters of which the parser's cost depends more than on all others."""

_WORDS: Final = frozenset({"word", "number", "string", "raw_string", "concatenation"})
_INNER: Final = words(
    "program list pipeline command command_name redirected_statement test_command "
    "unary_expression binary_expression"
)
"""Nodes of a plain line that hold others; each other kind is refused."""

_LITERAL_PARTS: Final = frozenset({"word", "number", "string", "raw_string", "ansi_c_string"})
_GLOB: Final = re.compile(r"(?<!\\)[*?\[{]")


@attrs.frozen
class Simple:
    """One simple command somewhere in a line; a word is ``None`` where it is not literal."""

    argv: tuple[str | None, ...]


@attrs.frozen
class Description:
    """What a line holds.

    Args:
        commands: Every simple command, however deep, in the order of the text.
        targets: Of redirections, ``None`` where they are not literal.
        understood: Whether all of it was read; if not, it may hold more than this says.
    """

    commands: tuple[Simple, ...]
    targets: tuple[str | None, ...]
    understood: bool


_UNREAD: Final = Description((), (), understood=False)


def described(text: str) -> Description:
    """Everything that a line may run and write, as far as it can be read."""
    root = _parsed(text)
    if root is None:
        return _UNREAD
    commands: list[Simple] = []
    targets: list[str | None] = []
    for node in _all(root):
        if node.type in {"command", "declaration_command", "unset_command", "test_command"}:
            commands.append(Simple(tuple(_command_words(node))))
        elif node.type == "file_redirect":
            targets.extend(_loose(child) for child in node.children_by_field_name("destination"))
    return Description(tuple(commands), tuple(targets), not root.has_error)


def agrees(text: str, steps: tuple[Step, ...]) -> bool:
    """Whether the grammar sees exactly these commands in ``text``, and nothing else."""
    root = _parsed(text)
    if root is None or root.has_error:
        return False
    try:
        return _Flat(root).steps() == steps
    except NotPlain:
        return False


@functools.cache
def _language() -> Language:
    # Imported here: a server that runs no command need not load a parser.
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Language(tree_sitter_bash.language())


def _parsed(text: str) -> Node | None:
    """The root of its tree; ``None`` if it is too long, or no text."""
    data = text.encode("utf-8", "replace")
    signs = sum(1 for _ in _SIGNS.finditer(text))
    if len(data) > SHELL_PARSE_BYTES or signs > SHELL_PARSE_SIGNS or "\0" in text:
        return None
    from tree_sitter import Parser  # as above

    # A new one each time costs a microsecond and is shared with no other thread.
    return Parser(_language()).parse(data).root_node


def _all(root: Node) -> Iterator[Node]:
    """Every node in the order of the text; without recursion, a tree may be deep."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


class _Flat:
    """The commands of a tree in the order of the text, if it has only kinds that are known."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._joint: str | None = ""
        self._words: list[str] = []
        self._redirects: list[Redirect] = []
        self._steps: list[Step] = []

    def steps(self) -> tuple[Step, ...]:
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if node.is_missing or node.is_error:
                raise NotPlain("what cannot be read")
            if node.type in _WORDS:
                self._words.append(_strict(node))
            elif node.type == "file_redirect":
                self._redirects.append(_redirect(node))
            elif node.type in {";", "&&", "||", "|", "\n"}:
                self._end()
                self._joint = ";" if node.type == "\n" else node.type
            elif node.type in _INNER:
                if node.type in {"command", "test_command"}:
                    self._begin()
                waiting.extend(reversed(node.children))
            elif self._is_test_word(node):  # plain has seen that there is no glob in it
                self._words.append(_text(node))
            else:
                raise NotPlain(f"a {node.type}")
        self._end()
        return tuple(self._steps)

    def _begin(self) -> None:
        """A command begins; without an operator before it there was the end of a line."""
        self._end()
        if self._joint is None:
            self._joint = ";"

    def _end(self) -> None:
        if self._words:
            step = Step(self._joint or "", tuple(self._words), tuple(self._redirects))
            self._steps.append(step)
            self._joint = None
            self._words, self._redirects = [], []
        elif self._redirects:
            raise NotPlain("a redirection without a command")

    def _is_test_word(self, node: Node) -> bool:
        """Whether this is a word of ``[``, which the grammar takes for an expression."""
        if node.type == "[":
            return not self._words
        return self._words[:1] == ["["] and (
            node.type in {"test_operator", "]", "!", "=", "==", "!=", "-a", "-o"}
            or (node.type == "extglob_pattern" and not node.children)
        )


def _redirect(node: Node) -> Redirect:
    parts = list(node.children)
    fd: int | None = None
    if parts and parts[0].type == "file_descriptor":
        fd = int(_text(parts.pop(0)))
    if len(parts) != 2 or parts[1].type not in _WORDS:
        raise NotPlain("a redirection")
    operator = parts[0].type
    return Redirect(int(operator != "<") if fd is None else fd, operator, _strict(parts[1]))


def _strict(node: Node) -> str:
    """The literal word a node spells.

    Raises:
        NotPlain: It is more than that.
    """
    text = _text(node)
    if node.type == "concatenation":
        return "".join(_strict(child) for child in node.children)
    if node.type in {"word", "number"} and not node.children:
        return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "string" and all(n.type in {'"', "string_content"} for n in node.children):
        return re.sub(r'\\([$`"\\])', r"\1", text[1:-1])
    raise NotPlain(f"a {node.type}")


def _command_words(node: Node) -> Iterator[str | None]:
    """The words of a simple command, without the assignments in front of it."""
    for child in node.children:
        if child.type == "command_name":
            yield _loose(child.children[0] if child.children else child)
        elif child.type not in {"variable_assignment", "file_redirect"}:
            yield _loose(child)


def _loose(node: Node) -> str | None:
    """The word a node means, or ``None`` if that depends on more than its text."""
    text = _text(node)
    bare = all(child.type in {"word", "number"} for child in node.children)
    if "{}" in text and bare and not _GLOB.search(text.replace("{}", "")):
        return _unescaped(text)  # as in -I{}: nothing between the braces is no expansion
    if node.type == "concatenation":
        parts = [_loose(child) for child in node.children]
        return None if None in parts else "".join(part for part in parts if part is not None)
    if node.type == "ansi_c_string":
        return _ansi(text[2:-1])
    if node.type in {"word", "number"}:
        return None if _GLOB.search(text) or node.children else _unescaped(text)
    try:
        return _strict(node) if node.type in _LITERAL_PARTS or not node.is_named else None
    except NotPlain:
        return text if not node.is_named else None


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text.replace("\\\n", ""), flags=re.DOTALL)


def _ansi(text: str) -> str | None:
    """What ``$'…'`` means; ``None`` for its rarer escapes."""

    def one(match: re.Match[str]) -> str:
        octal, hexadecimal, other = match.group(1, 2, 3)
        return chr(int(octal, 8)) if octal else chr(int(hexadecimal, 16)) if hexadecimal else other

    pattern = r"\\(?:([0-7]{1,3})|[xuU]([0-9A-Fa-f]{1,8})|([\\'\"?]))"
    try:
        plain = re.sub(pattern, one, text)
    except (ValueError, OverflowError):
        return None
    return None if "\\" in re.sub(pattern, "", text) else plain


def _text(node: Node) -> str:
    return (node.text or b"").decode("utf-8", "replace")
