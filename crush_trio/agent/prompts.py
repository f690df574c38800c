"""The system prompt: who the agent is, where it works, and what the project's own files tell it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import attrs

from crush_trio import limits

_ROLE = """\
You are crush-trio, a coding agent. You work in one directory on a person's machine, with tools \
that read, search and change files and run commands there. Do what was asked, completely and \
nothing else. Look before you change: read a file before you edit it, and check your work with the \
project's own tests where that is quick. Say plainly what you did, what you saw, and what you \
could not do. When a tool is refused, do not try to reach the same end another way; say what is \
needed. Answer in the language you were asked in, in Markdown, without preamble."""

_SUB_AGENT_ROLE = """\
You are a sub-agent of crush-trio, a coding agent: it has given you one task, and reads nothing of \
your work but your last message. You cannot ask anybody. Use your tools to find out what the task \
needs; then answer completely and concisely, with the paths and lines that you found. Say plainly \
what you could not find or were refused. Answer in the language of the task, without preamble."""

_PASSED_OVER = (OSError, RuntimeError, ValueError)  # no access, a loop of links, a NUL in a name


@attrs.frozen
class ContextFile:
    """A project file that speaks to the agent; ``path`` is relative to the workspace."""

    path: str
    text: str
    cut: bool = False


def read_context_files(workspace: Path, names: Sequence[str]) -> tuple[ContextFile, ...]:
    """The context files that exist, in the given order; blocking.

    Each is cut at `limits.CONTEXT_FILE_BYTES`; all together end at `limits.CONTEXT_FILES_BYTES`
    and `limits.CONTEXT_FILES`. A name that leads out of the workspace, that cannot be read, or
    that is anything but a regular file, is passed over. A directory stands for the files right
    in it.
    """
    found: list[ContextFile] = []
    seen: set[tuple[int, int]] = set()
    room = limits.CONTEXT_FILES_BYTES
    root = workspace.resolve()
    for path in _candidates(workspace, root, names):
        if room <= 0 or len(found) >= limits.CONTEXT_FILES:
            break
        with suppress(OSError):  # gone or unreadable: the run can do without it
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in seen:  # CRUSH.md and crush.md may be one file
                continue
            size = min(limits.CONTEXT_FILE_BYTES, room)
            with path.open("rb") as file:
                raw = file.read(size + 1)
            seen.add(identity)
            room -= len(raw)
            text = raw[:size].decode("utf-8", errors="replace")
            name = os.fsencode(path.relative_to(root)).decode("utf-8", errors="replace")
            found.append(ContextFile(name, text, len(raw) > size))
    return tuple(found)


def _candidates(workspace: Path, root: Path, names: Sequence[str]) -> Iterator[Path]:
    """Regular files inside ``root`` that the names stand for, symlinks resolved."""
    for name in names:
        if not os.path.lexists(os.path.join(workspace, name)):
            continue  # most names, and resolving each would cost more than all the rest
        with suppress(*_PASSED_OVER):
            target = (workspace / name).resolve()
            if target.is_relative_to(root):
                first: tuple[Path, ...] = (target,)
                if target.is_dir():
                    first = tuple(sorted(islice(target.iterdir(), limits.CONTEXT_DIRECTORY)))
                yield from _regular(root, first)


def _regular(root: Path, paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        with suppress(*_PASSED_OVER):
            resolved = path.resolve()
            if resolved.is_relative_to(root) and resolved.is_file():
                yield resolved


def system_prompt(
    workspace: Path,
    *,
    is_git: bool,
    today: str,
    files: Sequence[ContextFile],
    sub_agent: str | None = None,
) -> str:
    """The whole system prompt; pure.

    Args:
        workspace: Absolute path of the directory.
        is_git: Whether it lies in a git work tree.
        today: The date as ``YYYY-MM-DD``.
        files: From `read_context_files`.
        sub_agent: What a sub-agent is told besides what all are; ``None`` for who is none.
    """
    facts = (
        f"Working directory: {workspace}\n"
        f"Git repository: {'yes' if is_git else 'no'}\n"
        f"Platform: {platform.system()} {platform.machine()}\n"
        f"Date: {today}"
    )
    role = _ROLE if sub_agent is None else f"{_SUB_AGENT_ROLE} {sub_agent}".rstrip()
    sections = [role, f"<environment>\n{facts}\n</environment>"]
    for file in files:
        note = "\n[cut here: the file is longer]" if file.cut else ""
        sections.append(f'<file path="{file.path}">\n{file.text}{note}\n</file>')
    return "\n\n".join(sections)
