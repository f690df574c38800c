"""``read``, ``outline``, ``list``, ``what changed``, ``run`` and ``replace``."""

from __future__ import annotations

import re
from collections.abc import Generator

from crush_trio.models.scout.facts import count
from crush_trio.models.scout.outputs import (
    GENERATED,
    lines_of,
    paths_of,
    shell_failed,
    shell_output,
)
from crush_trio.models.scout.plan import Answer, Call, Plan, bash, fenced, view

_OUTLINE_LINES = 5_000
_READ_LINES = 400
_CHANGED = 40
_LOG = "--date=short --format=%h%x09%ad%x09%an%x09%s"
_DECLARES = re.compile(
    r"^\s*(?:(?:export|default|public|private|protected|static|abstract|async|pub(?:\([a-z]+\))?"
    r"|final|unsafe|extern|override|inline)\s+)*"
    r"(?:def|class|func|fn|function|interface|struct|enum|trait|impl|type|mod|module|namespace"
    r"|record|macro_rules!)(?:\s+[\w(*<&~]|<).*|^(?:export )?const \w+ = (?:async )?\(.*"
)
_HEADING = re.compile(r"#{1,6} .+")
_PLAIN = re.compile(r"[\w./:@%+, -]+")  # a command that a permission pattern can name


def read(file: str, first: str | None, last: str | None) -> Plan:
    """A file, or some of its lines."""
    start = int(first) if first else 1
    limit = max(1, int(last) - start + 1) if last else (1 if first else _READ_LINES)
    path, found = yield from _view(file, limit, max(0, start - 1))
    if not found.ok:
        return f"{file} cannot be read: {found.text.strip()}"
    lines = lines_of(found)
    if not lines:
        return f"`{path}` has no text there."
    where = f"`{path}`, lines {lines[0][0]} to {lines[-1][0]}"
    after = lines[-1][0] + 1
    more = f"\n\nThere is more: `read {path} lines {after}-{after + _READ_LINES - 1}`."
    cut = not last and re.search(r"^\(File has more lines", found.text, re.MULTILINE)
    text = "\n".join(f"{number:>5}  {text}" for number, text in lines)
    return f"{where}\n\n{fenced(text)}{more if cut else ''}"


def outline(file: str) -> Plan:
    """The lines of a file that declare something."""
    path, found = yield from _view(file, _OUTLINE_LINES, 0)
    if not found.ok:
        return f"{file} cannot be read: {found.text.strip()}"
    wanted = _HEADING if path.endswith((".md", ".markdown")) else _DECLARES
    declared = [f"{n:>5}  {text}" for n, text in lines_of(found) if wanted.match(text)]
    if not declared:
        return f"`{path}` declares nothing this version recognises."
    shown = fenced("\n".join(declared))
    return f"`{path}` declares {count(len(declared), 'thing')}\n\n{shown}"


def listing(directory: str) -> Plan:
    """What is in a directory, two levels deep."""
    (found,) = yield (Call("ls", {"path": directory, "depth": 2, "ignore": sorted(GENERATED)}),)
    return fenced(found.text) if found.ok else f"Cannot list {directory}: {found.text.strip()}"


def what_changed() -> Plan:
    """Status, difference and log of git, or the sentence why there are none."""
    status, diff, log = yield (
        bash("git status --short --branch -- .", "See what is changed in the working tree"),
        bash("git diff --stat -- .", "See how much is changed in the working tree"),
        bash(f"git log -n 15 {_LOG} -- .", "See the newest commits"),
    )
    if shell_failed(status):
        reason = shell_output(status).splitlines()[:1]
        return f"What changed is not known here: {''.join(reason) or 'git gave no answer'}"
    branch, *changed = shell_output(status).splitlines() or [""]
    parts = [f"**Branch** {branch.removeprefix('## ')}"]
    if changed:
        more = [f"… and {len(changed) - _CHANGED} more"] if len(changed) > _CHANGED else []
        shown = fenced("\n".join(changed[:_CHANGED] + more))
        parts += [f"**Working tree** ({len(changed)} changed):", shown]
    else:
        parts.append("**Working tree** has no changes.")
    if not shell_failed(diff) and shell_output(diff):
        parts.append(fenced(shell_output(diff)))
    if shell_failed(log):
        parts.append("There are no commits yet.")
    else:
        parts += ["**Newest commits that touch this directory**", fenced(shell_output(log))]
    return "\n\n".join(parts)


def run(command: str) -> Plan:
    """The output of a command."""
    (done,) = yield (bash(command, "Run the command of the prompt"),)
    if not done.ok:
        alone = f"--allow-tool 'bash({command})'" if _PLAIN.fullmatch(command) else ""
        return f"`{command}` was not run: {_reason(done, alone)}"
    ended = "failed" if shell_failed(done) else "ended well"
    return f"`{command}` {ended}\n\n{fenced(shell_output(done) or 'no output')}"


def replace(old: str, new: str, file: str) -> Plan:
    """Every ``old`` in a file becomes ``new``."""
    path, found = yield from _view(file, 1, 0)
    if not found.ok:
        return f"{file} cannot be read: {found.text.strip()}"
    edit = {"file_path": path, "old_string": old, "new_string": new, "replace_all": True}
    (done,) = yield (Call("edit", edit),)
    if done.ok:
        changed = count(int(done.metadata.get("additions", 0)), "new line")
        return f"Replaced every `{old}` with `{new}` in `{path}`: {changed}."
    alone = f"--allow-tool 'write({path})'"
    return f"`{path}` was not changed: {_reason(done, alone)}"


def _reason(refused: Answer, alone: str) -> str:
    """Why a call failed and, if for want of a permission, the flags that would give it."""
    # What follows the first sentence is advice to a language model.
    reason = refused.text.partition(" Do not repeat")[0].strip()
    if "nobody is there to allow it" not in reason:  # a rule, a person, a hook, the file system
        return reason
    only = f", or with `{alone}` for this alone" if alone else ""
    return f"{reason}\n\nRepeat the prompt with `--permission-mode allow`{only}."


def _view(
    file: str, limit: int, offset: int
) -> Generator[tuple[Call, ...], tuple[Answer, ...], tuple[str, Answer]]:
    """View ``file``; if it is not there, the only file with that name."""
    (found,) = yield (view(file, limit, offset),)
    if found.ok or "/" in file:
        return file, found
    (named,) = yield (Call("glob", {"pattern": f"**/{file}"}),)
    candidates = paths_of(named)
    if len(candidates) != 1:
        several = f"; there are: {', '.join(candidates[:10])}" if candidates else ""
        return file, Answer(False, found.text.strip() + several)
    (found,) = yield (view(candidates[0], limit, offset),)
    return candidates[0], found
