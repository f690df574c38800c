"""The few git commands that need no permission, and how they are run so that they stay harmless.

A repository is foreign text, and git runs programs that a repository's configuration names. So
such a command is (1) one literal argv from a table, (2) run as `safe_run` does, and (3) with every
configuration that names a program overridden; filter drivers, whose names are free, are looked up
first (`CONFIG_NAMES`, which runs nothing) and overridden one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

_FORMAT: Final = r"(?:[^%]|%(?![-+ ]?G))*"
"""Of a commit, without what checks a signature (``%G?``, ``%+GK``): that starts a program."""

_COMMON_LOG: Final = (
    r"--oneline|--graph|--all|--branches|--tags|--reverse|--no-merges|--merges|--first-parent"
    r"|--stat|--shortstat|--numstat|--name-only|--name-status|--no-decorate"
    r"|--decorate(=(short|full|auto|no))?|--abbrev-commit|--no-abbrev-commit|--follow"
    r"|-\d{1,6}|-n\d{1,6}|--max-count=\d{1,6}|--skip=\d{1,6}"
    r"|--(since|until|after|before|author|committer|grep)=[^\n]*|-i|--date=[a-z-]+"
    r"|--(pretty|format)=(oneline|short|medium|full|fuller|reference|email|raw)"
    rf"|--(pretty|format)=t?format:{_FORMAT}|--format=[^%]*%(?![-+ ]?G){_FORMAT}"
)
FLAGS: Final[Mapping[str, re.Pattern[str]]] = {
    "status": re.compile(
        r"-[sbuz]{1,4}|--short|--branch|--show-stash|--long|--porcelain(=v?[12])?|--null"
        r"|(-u|--untracked-files=)(no|normal|all)|--untracked-files|--no-renames|--ahead-behind"
        r"|--ignored"
    ),
    "log": re.compile(_COMMON_LOG),
    "diff": re.compile(
        r"--stat|--cached|--staged|--shortstat|--numstat|--name-only|--name-status|--no-renames"
        r"|--merge-base"
    ),
    "ls-files": re.compile(
        r"-[cdmosuktz]{1,4}|--cached|--deleted|--modified|--others|--stage|--unmerged|--killed"
        r"|--exclude-standard|--ignored|--full-name|--error-unmatch|--eol|--deduplicate|--directory"
    ),
    "rev-parse": re.compile(
        r"--verify|-q|--quiet|--short(=\d{1,2})?|--abbrev-ref|--symbolic-full-name|--show-toplevel"
        r"|--show-prefix|--show-cdup|--git-dir|--absolute-git-dir|--git-common-dir"
        r"|--is-inside-work-tree|--is-inside-git-dir|--is-bare-repository|--is-shallow-repository"
    ),
}
"""Allowed flags of each allowed command; a flag that is not here needs permission."""

_VALUE_FLAGS: Final = {"log": re.compile(r"-n|--max-count|--skip"), "rev-parse": re.compile("$^")}
_HARD_FLAGS: Final[Mapping[str, tuple[str, ...]]] = {
    "status": ("--ignore-submodules=all",),
    "log": ("--no-ext-diff", "--no-textconv", "--ignore-submodules=all", "--no-show-signature"),
    "diff": ("--no-ext-diff", "--no-textconv", "--ignore-submodules=all"),
    "ls-files": (),
    "rev-parse": (),
}
OVERRIDES: Final[Mapping[str, str]] = {
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.hooksPath": "/dev/null",
    "core.attributesFile": "/dev/null",
    "core.pager": "cat",
    "core.editor": "false",
    "core.askPass": "false",
    "core.sshCommand": "false",
    "core.gitProxy": "false",
    "core.alternateRefsCommand": "false",
    "credential.helper": "",
    "diff.external": "",
    "diff.ignoreSubmodules": "all",
    "diff.submodule": "short",
    "gpg.program": "false",
    "gpg.openpgp.program": "false",
    "gpg.ssh.program": "false",
    "gpg.ssh.defaultKeyCommand": "",
    "gpg.x509.program": "false",
    "log.mailmap": "false",
    "log.showSignature": "false",
    "mailmap.file": "/dev/null",
    "protocol.allow": "never",
    "protocol.ext.allow": "never",
    "protocol.file.allow": "never",
    "safe.bareRepository": "explicit",
    "status.submoduleSummary": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
}
"""Configuration forced upon a safe command; it beats the repository's."""

CONFIG_NAMES: Final = ("config", "--null", "--name-only", "--list")
"""Lists the names of all configuration keys; reads files, runs nothing."""

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "false",
    "GIT_SSH_COMMAND": "false",
    "GIT_PAGER": "cat",
    "GIT_ATTR_NOSYSTEM": "1",
}
_FILTER: Final = re.compile(r"filter\.(?P<name>.*)\.[^.]*", re.DOTALL)
_REFUSED_KEYS: Final = re.compile(r"core\.worktree|extensions\.partialclone|remote\..*\.promisor")


@attrs.frozen
class SafeGit:
    """A git command that needs no permission: its subcommand and the arguments after it."""

    subcommand: str
    arguments: tuple[str, ...]


def safe_git(argv: tuple[str, ...], directory: Path, workspace: Path) -> SafeGit | None:
    """The safe git command that these words are, if they are one; else it needs permission.

    Args:
        directory: Where it would run, resolved; outside ``workspace`` nothing is safe.
    """
    if argv[0] != "git" or not directory.is_relative_to(workspace):
        return None
    rest = argv[2:] if argv[1:2] == ("--no-pager",) else argv[1:]
    if not rest or rest[0] not in FLAGS:
        return None
    subcommand, arguments = rest[0], rest[1:]
    if not _arguments_allowed(subcommand, arguments, directory, workspace):
        return None
    if subcommand == "diff" and "--stat" not in arguments:
        return None
    return SafeGit(subcommand, arguments)


def _arguments_allowed(
    subcommand: str, arguments: tuple[str, ...], directory: Path, workspace: Path
) -> bool:
    only_paths = value = False
    for argument in arguments:
        if value:
            value = False
            if not re.fullmatch(r"\d{1,6}", argument):
                return False
        elif argument.startswith("-") and not only_paths:
            flag = _VALUE_FLAGS.get(subcommand)
            if argument == "--":
                only_paths = True
            elif flag is not None and flag.fullmatch(argument):
                value = True
            elif not FLAGS[subcommand].fullmatch(argument):
                return False
        elif not _stays_inside(argument, directory, workspace):
            return False
    return not value


def _stays_inside(argument: str, directory: Path, workspace: Path) -> bool:
    """Whether a revision or path names nothing outside the workspace.

    Pathspec magic (``:/``), absolute paths and ``..`` as a path component are out, and so is a
    symbolic link that leads out. ``main..topic`` and ``HEAD:src/x`` are in.
    """
    if (
        not argument
        or argument[0] in ":/~"
        or any(part == ".." for part in re.split("[/:]", argument))
    ):
        return False
    if ":/" in argument:
        return False
    try:
        return (directory / argument.partition(":")[2]).resolve().is_relative_to(workspace) and (
            directory / argument
        ).resolve().is_relative_to(workspace)
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long, a NUL
        return False


def filter_names(config_names: str) -> frozenset[str] | None:
    """The filter drivers among the NUL-separated output of `CONFIG_NAMES`.

    ``None`` if the configuration moves the working tree or fetches what is missing: then nothing
    is safe.
    """
    names = [name for name in config_names.split("\0") if name]
    if any(_REFUSED_KEYS.fullmatch(name.lower()) for name in names):
        return None
    found = (_FILTER.fullmatch(name) for name in names)
    return frozenset(match["name"] for match in found if match is not None)


def hardened_argv(program: str, git: SafeGit) -> tuple[str, ...]:
    """What is executed: the program by its absolute path."""
    hard = _HARD_FLAGS[git.subcommand]
    if git.subcommand != "rev-parse":
        return (program, "--no-pager", git.subcommand, *hard, *git.arguments)
    return (program, "--no-pager", git.subcommand, *git.arguments)


def hardened_environment(env: Mapping[str, str], filters: Iterable[str] = ()) -> dict[str, str]:
    """The environment for `CONFIG_NAMES` and for the command: its overrides, from git 2.31 on."""
    forced = dict(OVERRIDES)
    for name in sorted(filters):
        forced |= {f"filter.{name}.{key}": "" for key in ("clean", "smudge", "process")}
        forced[f"filter.{name}.required"] = "false"
    numbered = {"GIT_CONFIG_COUNT": str(len(forced))}
    for number, (key, value) in enumerate(forced.items()):
        numbered |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    own = {name: value for name, value in env.items() if not name.startswith("GIT_CONFIG")}
    return own | dict(_ENVIRONMENT) | numbered
