"""What a sandboxed run may touch; part of `agent.ports`, through which it is imported."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

PROTECTED: Final = (
    ".crush.json",
    "crush.json",
    ".crush-trio.json",
    ".crush-trio",
    ".crush",
    ".vscode",
    ".idea",
    ".envrc",
    ".claude",
    ".codex",
    ".cursor",
    ".gemini",
    ".mcp.json",
)
"""At the top of a writable directory: what other programs obey without being asked (T30)."""

PROTECTED_IN_GIT: Final = ("hooks", "config", "config.worktree", "commondir", "info/attributes")
"""In a ``.git``: what git runs, or reads to know what to run."""


@attrs.frozen
class Sandbox:
    """What one run may touch, whatever its permissions say; ``None`` in its place is no sandbox.

    All paths are absolute and, but for some of ``readable``, without symbolic links; each stands
    for all below it.

    Args:
        mode: ``read-only`` or ``workspace-write``.
        workspace: Where the run works.
        writable: What may be written: nothing, or the workspace and what its user added.
        hidden: What may not be read.
        readable: What may be read all the same, though below something hidden; a place also by
            the name that its programs have in it.
        network: Whether the network may be used.
    """

    mode: str
    workspace: Path
    writable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    network: bool = False

    def why_not_read(self, path: Path) -> str | None:
        """A sentence if a path without links may not be read, else ``None``."""
        if not _below(path, self.hidden) or _below(path, self.readable):
            return None
        return f"The sandbox of this run hides {path}."

    def why_not_write(self, path: Path) -> str | None:
        """A sentence if a path without links may not be written, else ``None``."""
        if self.mode != "workspace-write":
            return f"The sandbox of this run is read-only: {path} cannot be written."
        hidden = self.why_not_read(path)
        if hidden is not None:
            return hidden
        if not _below(path, self.writable):
            return (
                f"The sandbox of this run lets it write in {self.workspace} and not in {path}; "
                "whoever started it can add directories (options.sandbox.writable)."
            )
        if self._is_protected(path):
            return (
                f"The sandbox of this run protects {path}: other programs obey that file without "
                "being asked. Say what should be in it instead."
            )
        return None

    def _is_protected(self, path: Path) -> bool:
        parts = [part.casefold() for part in path.parts]
        if ".git" in parts:
            inside = "/".join(parts[parts.index(".git") + 1 :])
            return not inside or _is_one_of(inside, PROTECTED_IN_GIT)
        tops = (path.relative_to(root) for root in self.writable if path.is_relative_to(root))
        return any(_is_one_of(str(top).casefold(), PROTECTED) for top in tops)


def _below(path: Path, roots: Iterable[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _is_one_of(path: str, names: Iterable[str]) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in names)
