"""What `write`, `edit` and `multiedit` share: the old contents, freshness, permission, result."""

from __future__ import annotations

import time
from pathlib import Path

import attrs

from crush_trio.agent.ports import FileChange, PermissionAsk, ToolContext, ToolResult
from crush_trio.limits import CONTENTS_CHARS
from crush_trio.tools.arguments import ToolProblem, demand
from crush_trio.tools.files.difference import Difference, difference
from crush_trio.tools.files.landing import Version
from crush_trio.tools.files.text_file import BOM, TextFile, read_text, replace_file
from crush_trio.tools.paths import Place, alter, look, place_of
from crush_trio.tools.sandbox.demands import demand_writable

NOT_READ = "you must read the file before editing it. Use the View tool first"


@attrs.frozen
class Target:
    """The file a call wants to write; ``old`` is ``None`` if it does not exist."""

    place: Place
    old: TextFile | None

    @property
    def path(self) -> str:
        """The absolute path without symbolic links."""
        return str(self.place.path)

    @property
    def shown(self) -> str:
        """The path as a person names it: relative inside the workspace."""
        if not self.place.inside:
            return self.path
        return str(self.place.path.relative_to(self.place.workspace))


@attrs.frozen
class Written:
    """A file that was written: its contents before and after, how they differ, and when that was.

    ``note`` is a sentence the model should know besides, or empty.
    """

    change: FileChange
    difference: Difference
    at_ns: int
    note: str = ""


async def look_at(file_path: str, context: ToolContext) -> Target:
    """Resolve the path and read the file, if it exists.

    Raises:
        ToolProblem: It is a directory, no text, too large, or no path can be meant.
        OSError: It cannot be read.
    """
    if not file_path:
        raise ToolProblem("file_path is empty")
    place = await place_of(file_path, context.workspace_path)
    demand_writable(place.path, context)
    old = await look(_read, place.path)
    return Target(place, old)


def _read(path: Path) -> TextFile | None:
    if path.is_dir():
        raise ToolProblem(f"path is a directory, not a file: {path}")
    return read_text(path)


def demand_fresh(target: Target, context: ToolContext, *, whole: bool = False) -> None:
    """An existing file must have been read in this session and not been changed since.

    Args:
        whole: All of it will be replaced. An edit is applied to what the file holds now, so there
            it is enough that nobody has written into it; here what was put in its place with an
            old time (``mv``, ``cp -p``) would be lost, so any change counts, its mode included.

    Raises:
        ToolProblem: It was not, or was.
    """
    found = None if target.old is None else target.old.version
    demand_fresh_version(target.path, found, context, whole=whole)


def demand_fresh_version(
    path: str, found: Version | None, context: ToolContext, *, whole: bool = True
) -> None:
    """The same for a file of any kind, by its state; ``None``: there is no such file."""
    if found is None:
        return
    read_ns = context.last_read(path)
    if read_ns is None:
        raise ToolProblem(NOT_READ)
    changed_ns = found.changed_ns if whole else found.mtime_ns
    if changed_ns > read_ns:
        raise ToolProblem(
            f"file {path} has been modified since it was last read "
            f"(modified {_clock(changed_ns)}, last read {_clock(read_ns)}). View it again first"
        )


def _clock(unix_ns: int) -> str:
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03}Z"


async def change(target: Target, text: str, tool_name: str, context: ToolContext) -> Written:
    """Ask, then put ``text`` (without byte order mark) into the file; what that changed.

    Raises:
        NotPermitted: The permission was refused; nothing was touched.
        ToolProblem: The file changed while the permission was waited for.
        OSError: It cannot be written.
    """
    old = target.old
    before = old.whole if old is not None else None
    after = BOM + text if old is not None and old.bom else text
    params = {"file_path": target.path, "old_content": before or "", "new_content": after}
    verb = "Create" if old is None else "Write"
    ask = PermissionAsk(
        tool_name=tool_name,
        action="write",
        description=f"{verb} file {target.path}",
        path=str(target.place.path.parent),
        params=params,
        target=target.path,
        inside=target.place.inside,
    )
    demand(await context.permission(ask))
    expected = old.version if old is not None else None
    found = await look(difference, target.shown, before or "", after)
    # The last await: whoever has written a file says so, also when cancelled meanwhile.
    written_ns = await alter(replace_file, target.place.path, after, expected)
    note = ""
    if old is not None and old.links > 1:
        note = (
            f"Note: the file has {old.links - 1} other names (hard links), which keep the old text."
        )
    return Written(FileChange(target.path, before, after), found, written_ns, note)


def contents(made: Written) -> dict[str, object]:
    """The whole contents before and after, for who shows them; not of large files."""
    before, after = made.change.before or "", made.change.after
    if len(before) + len(after) > CONTENTS_CHARS:
        return {}
    return {"old_content": before, "new_content": after}


def changed_result(sentence: str, made: Written, **metadata: object) -> ToolResult:
    """The result of a call that has written one file; ``metadata`` besides the counts."""
    found = made.difference
    shown = {"additions": found.additions, "removals": found.removals, "diff": found.diff}
    if made.note:
        sentence += f"\n{made.note}"
    return ToolResult(
        content=f"<result>\n{sentence}\n</result>\n",
        metadata=shown | metadata,
        read_paths=(made.change.path,),
        read_at_ns=made.at_ns,
        changes=(made.change,),
    )
