"""``read``, ``outline``, ``list``, ``what changed``, ``run`` and ``replace``."""

from __future__ import annotations

import re
from collections.abc import Generator

from crush_trio.models.scout.outputs import lines_of, paths_of, shell_failed, shell_output
from crush_trio.models.scout.plan import Answer, Call, Plan, bash, fenced, view

_OUTLINE_LINES = 5_000
_READ_LINES = 400
_LOG = "--date=short --format=%h%x09%ad%x09%an%x09%s"
_DECLARES = re.compile(
    r"^\s*(?:(?:export|default|public|private|protected|static|abstract|async|pub(?:\([a-z]+\))?"
    r"|final|unsafe|extern|override|inline)\s+)*"
    r"(?:def|class|func|fn|function|interface|struct|enum|trait|impl|type|mod|module|namespace"
    r"|record|macro_rules!)\b.+|^(?:#{1,6} .+)|^(?:export )?const \w+ = (?:async )?\(.*"
)


def read(file: str, first: str | None, last: str | None) -> Plan:
    """A file, or some of its lines."""
    start = int(first) if first else 1
    limit = max(1, int(last) - start + 1) if last else (1 if first else _READ_LINES)
    path, found = yield from _view(file, limit, max(0, start - 1))
    if not found.ok:
        return f"{file} cannot be read: {found.text.strip()}"
    lines = lines_of(found.text)
    if not lines:
        return f"`{path}` has no text there."
    where = f"`{path}`, lines {lines[0][0]} to {lines[-1][0]}"
    hint = re.search(r"^\(?(File has more lines.*?)\)?$", found.text, re.MULTILINE)
    more = f"\n\nThere is more: `read {path} lines {lines[-1][0] + 1}-…`." if hint else ""
    text = "\n".join(f"{number:>5}  {text}" for number, text in lines)
    return f"{where}\n\n{fenced(text)}{more if not last else ''}"


def outline(file: str) -> Plan:
    """The lines of a file that declare something."""
    path, found = yield from _view(file, _OUTLINE_LINES, 0)
    if not found.ok:
        return f"{file} cannot be read: {found.text.strip()}"
    declared = [f"{n:>5}  {text}" for n, text in lines_of(found.text) if _DECLARES.match(text)]
    if not declared:
        return f"`{path}` declares nothing this version recognises."
    shown = fenced("\n".join(declared))
    return f"`{path}` declares {len(declared)} things\n\n{shown}"


def listing(directory: str) -> Plan:
    """What is in a directory, two levels deep."""
    (found,) = yield (Call("ls", {"path": directory, "depth": 2}),)
    return fenced(found.text) if found.ok else f"Cannot list {directory}: {found.text.strip()}"


def what_changed() -> Plan:
    """Status, difference and log of git, or the sentence why there are none."""
    status, diff, log = yield (
        bash("git status --short --branch", "See what is changed in the working tree"),
        bash("git diff --stat", "See how much is changed in the working tree"),
        bash(f"git log -n 15 {_LOG} -- .", "See the newest commits"),
    )
    if shell_failed(status):
        reason = shell_output(status.text).splitlines()[:1]
        return f"What changed is not known here: {''.join(reason) or 'git gave no answer'}"
    branch, *changed = shell_output(status.text).splitlines() or [""]
    parts = [f"**Branch** {branch.removeprefix('## ')}"]
    if changed:
        parts += [f"**Working tree** ({len(changed)} changed):", fenced("\n".join(changed))]
    else:
        parts.append("**Working tree** has no changes.")
    difference = shell_output(diff.text)
    if not shell_failed(diff) and difference not in ("", "no output"):
        parts.append(fenced(difference))
    if shell_failed(log):
        parts.append("There are no commits yet.")
    else:
        parts += ["**Newest commits that touch this directory**", fenced(shell_output(log.text))]
    return "\n\n".join(parts)


def run(command: str) -> Plan:
    """The output of a command."""
    (done,) = yield (bash(command, "Run the command of the prompt"),)
    if not done.ok:
        return (
            f"`{command}` was not run: {done.text.strip()}\n\nCommands need a permission: repeat "
            f"the prompt with `--permission-mode allow`, or with `--allow-tool 'bash({command})'` "
            "for this command alone."
        )
    ended = "failed" if shell_failed(done) else "ended well"
    return f"`{command}` {ended}\n\n{fenced(shell_output(done.text) or 'no output')}"


def replace(old: str, new: str, file: str) -> Plan:
    """Every ``old`` in a file becomes ``new``."""
    path, found = yield from _view(file, 1, 0)
    if not found.ok:
        return f"{file} cannot be read: {found.text.strip()}"
    edit = {"file_path": path, "old_string": old, "new_string": new, "replace_all": True}
    (done,) = yield (Call("edit", edit),)
    if done.ok:
        changed = done.metadata.get("additions")
        count = f", {changed} lines changed" if type(changed) is int else ""
        return f"Replaced every `{old}` with `{new}` in `{path}`{count}."
    reason = done.text.strip()
    flags = "`--permission-mode allow`, or with `--allow-tool edit` for edits alone"
    hint = f"\n\nEdits need a permission: repeat the prompt with {flags}." if _refused(done) else ""
    return f"`{path}` was not changed: {reason}{hint}"


def _refused(answer: Answer) -> bool:
    return re.search(r"permission|denied|refused", answer.text, re.IGNORECASE) is not None


def _view(
    file: str, limit: int, offset: int
) -> Generator[tuple[Call, ...], tuple[Answer, ...], tuple[str, Answer]]:
    """View ``file``; if it is not there, the only file with that name."""
    (found,) = yield (view(file, limit, offset),)
    if found.ok or "/" in file:
        return file, found
    (named,) = yield (Call("glob", {"pattern": f"**/{file}"}),)
    candidates = paths_of(named.text) if named.ok else []
    if len(candidates) != 1:
        several = f"; there are: {', '.join(candidates[:10])}" if candidates else ""
        return file, Answer(False, found.text.strip() + several)
    (found,) = yield (view(candidates[0], limit, offset),)
    return candidates[0], found
