"""Whether a command line needs permission: a verdict before anything of it is run.

*Safe* is a plain line (`plain`) that the shell's grammar reads in the same way (`grammar`), in
which every simple command is one of a closed table (`safe_programs`, `safe_git`) and reads nothing
outside the workspace. What is not known to be safe needs permission. `safe_run` then runs what was
judged, not what was written.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from crush_trio.limits import SAFE_COMMAND_BYTES, SAFE_COMMAND_STEPS
from crush_trio.tools.shell.grammar import agrees
from crush_trio.tools.shell.plain import NotPlain, Redirect, Step, read_plain
from crush_trio.tools.shell.safe_git import SafeGit, safe_git
from crush_trio.tools.shell.safe_programs import NotSafe
from crush_trio.tools.shell.safe_repository import stays_inside
from crush_trio.tools.shell.safe_words import BUILTINS, uses_of

_KERNEL: Final = tuple(Path(name) for name in ("/dev", "/proc", "/sys"))
"""Never read without permission, also where the workspace is ``/``."""

_ONLY_HARDENED: Final = frozenset({"git", "printf"})
"""Safe as `safe_run` runs them, and not as a shell would: printf is a builtin that can assign."""

_AS: Final = {"egrep": ("grep", "-E"), "fgrep": ("grep", "-F")}
"""Programs that are scripts around another one, which a PATH would decide."""


@attrs.frozen
class SafeStep:
    """One command that needs no permission: its program's absolute path, and its arguments.

    ``program`` is a bare name for a builtin of the shell. ``git`` is set for git instead.
    """

    joint: str
    program: str
    arguments: tuple[str, ...]
    redirects: tuple[Redirect, ...] = ()
    git: SafeGit | None = None


@attrs.frozen
class SafeLine:
    """A line that needs no permission, and the directory it runs in."""

    directory: Path
    steps: tuple[SafeStep, ...]


@attrs.frozen
class Judgement:
    """What is known of a line.

    Args:
        safe: What to run, if it needs no permission.
        why: The first reason why it needs it.
        harmless: The simple commands in it that do no harm in a shell either.
        writes: The files it writes by redirection, resolved.
    """

    safe: SafeLine | None = None
    why: str = ""
    harmless: frozenset[tuple[str, ...]] = frozenset()
    writes: tuple[str, ...] = ()


def judge(command: str, directory: Path, workspace: Path, path: str) -> Judgement:
    """Judge a command line that would run in ``directory``. Looks at the disk, changes nothing.

    Args:
        directory: Resolved; outside ``workspace`` nothing is safe.
        workspace: Resolved.
        path: The PATH on which its programs would be looked for.
    """
    try:
        written = _plain_steps(command)
        place, steps = _entered(written, directory, workspace)
    except NotPlain as problem:
        return Judgement(why=str(problem))
    writes = [each.path for step in steps for each in step.redirects if each.path is not None]
    if not place.is_relative_to(workspace):
        return Judgement(why="a directory outside the workspace", writes=_resolved(writes, place))
    safe: list[SafeStep] = []
    harmless = {step.argv for step in written[: len(written) - len(steps)]}  # cd, if it is there
    why = ""
    for step in steps:
        try:
            judged = _safe_step(step, place, workspace, path)
            if step.argv[0] not in _ONLY_HARDENED and _same_program(judged, step.argv[0], path):
                harmless.add(step.argv)
            safe.append(
                attrs.evolve(judged, redirects=_safe_redirects(step.redirects, place, workspace))
            )
        except NotSafe as problem:
            why = why or str(problem)
    if len(steps) > len(safe):
        return Judgement(None, why, frozenset(harmless), _resolved(writes, place))
    return Judgement(SafeLine(place, tuple(safe)), "", frozenset(harmless))


def outside_entries(path: str, workspace: Path) -> list[str]:
    """The entries of a PATH that are absolute and lead to nothing inside the workspace."""
    return [
        entry
        for entry in path.split(":")
        if entry.startswith("/") and not Path(entry).resolve().is_relative_to(workspace)
    ]


def program_on(name: str, path: str, workspace: Path) -> str | None:
    """The absolute path of a program on this PATH; one inside the workspace is not taken."""
    entries = outside_entries(path, workspace)
    found = shutil.which(name, path=":".join(entries)) if entries else None
    return None if found is None or _inside(found, workspace) else found


def _plain_steps(command: str) -> tuple[Step, ...]:
    if len(command.encode("utf-8", "replace")) > SAFE_COMMAND_BYTES:
        raise NotPlain("its length")
    steps = read_plain(command)
    if len(steps) > SAFE_COMMAND_STEPS:
        raise NotPlain("the number of commands in it")
    if not agrees(command, steps):
        raise NotPlain("words that a shell may read in another way")
    return steps


def _entered(
    steps: tuple[Step, ...], directory: Path, workspace: Path
) -> tuple[Path, tuple[Step, ...]]:
    """Where the line's commands run: after ``cd DIRECTORY &&`` in front, there."""
    first, rest = steps[0], steps[1:]
    if any(step.argv[0] == "cd" for step in rest):
        raise NotPlain("a change of directory in the middle")
    if first.argv[0] != "cd" or not rest:
        return directory, steps
    if rest[0].joint != "&&" or len(first.argv) != 2 or first.redirects:
        raise NotPlain("a change of directory that may fail")
    try:
        place = _place(first.argv[1], directory, workspace)
    except NotSafe as problem:
        raise NotPlain(str(problem)) from problem
    if first.argv[1][:1] in {"", "-"} or not place.is_dir():
        raise NotPlain(f"the directory {first.argv[1]!r}")
    return place, (attrs.evolve(rest[0], joint=""), *rest[1:])


def _safe_step(step: Step, directory: Path, workspace: Path, path: str) -> SafeStep:
    name, *arguments = step.argv
    if name == "git":
        git = safe_git(step.argv, directory, workspace)
        program = program_on("git", path, workspace)
        if git is None or program is None:
            raise NotSafe("git with these arguments")
        if not stays_inside(directory, workspace):
            raise NotSafe("a repository that leads out of the workspace")
        return SafeStep(step.joint, program, (), git=git)
    uses = uses_of(step.argv)
    for word in uses.paths:
        place = _place(word, directory, workspace) if word != "-" else None
        if uses.files and place is not None and not place.is_file():
            raise NotSafe(f"{word!r}, which is no file")
    for word in uses.perhaps:
        _place(word, directory, workspace)
    if name in BUILTINS:
        return SafeStep(step.joint, name, tuple(arguments))
    real, *more = _AS.get(name, (name,))
    program = program_on(real, path, workspace)
    if program is None:
        raise NotSafe(f"the program {name!r}, which is not on the PATH outside the workspace")
    return SafeStep(step.joint, program, (*more, *arguments))


def _same_program(step: SafeStep, name: str, path: str) -> bool:
    """Whether a shell would find this very program under its name."""
    return step.program == name or shutil.which(name, path=path) == step.program


def _safe_redirects(
    redirects: Iterable[Redirect], directory: Path, workspace: Path
) -> tuple[Redirect, ...]:
    safe = []
    for each in redirects:
        if each.operator == "<" and each.fd == 0 and not each.harmless:
            place = _place(each.target, directory, workspace)
            if not place.is_file():
                raise NotSafe(f"{each.target!r}, which is no file")
            safe.append(attrs.evolve(each, target=str(place)))
        elif each.harmless:
            safe.append(each)
        else:
            raise NotSafe(f"the redirection to {each.target!r}")
    return tuple(safe)


def _place(word: str, directory: Path, workspace: Path) -> Path:
    """Where a path leads, links followed; what is not there may be named.

    Raises:
        NotSafe: Outside the workspace, or to no file and no directory.
    """
    try:
        place = Path(os.path.realpath(directory / word))
        mode = place.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except (OSError, ValueError) as problem:
        raise NotSafe(f"the path {word!r}") from problem
    if not place.is_relative_to(workspace) or any(map(place.is_relative_to, _KERNEL)):
        raise NotSafe(f"the path {word!r} outside the workspace")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise NotSafe(f"{word!r}, which is no file and no directory")
    return place


def _inside(program: str, workspace: Path) -> bool:
    return Path(os.path.realpath(program)).is_relative_to(workspace)


def _resolved(targets: Iterable[str], directory: Path) -> tuple[str, ...]:
    return tuple(os.path.realpath(directory / target) for target in targets)
