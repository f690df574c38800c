"""How a line that needs no permission is run: as it was judged, not as it was written.

One command runs without a shell. Several are written down anew for a shell, every word in quotes
and every program by its absolute path, so that there is nothing left to read in another way. The
environment is a part of the fixed list: nothing that changes what these programs do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from crush_trio.agent.ports import ShellResult, ToolCall, ToolContext
from crush_trio.limits import BASH_TIMEOUT_S, SAFE_GIT_TIMEOUT_S
from crush_trio.tools.processes.environment import MARKERS
from crush_trio.tools.processes.run_processes import shell
from crush_trio.tools.shell.judge import SafeLine, SafeStep, outside_entries
from crush_trio.tools.shell.safe_git import (
    CONFIG_NAMES,
    filter_names,
    hardened_argv,
    hardened_environment,
)
from crush_trio.tools.shell.safe_words import BUILTINS, LOOK_UPS

_PASSED_ON: Final = frozenset({"HOME", "LANG", "TERM", "TMPDIR", "TZ", "USER"})


def safe_environment(env: Mapping[str, str], line: SafeLine, workspace: Path) -> dict[str, str]:
    """The environment of a safe line: names that are harmless, whatever their values.

    Its PATH has only what lies outside the workspace, unless the line asks what a name stands
    for, and has no git, which looks at the PATH for more than was judged.
    """
    names = {name for name in env if name in _PASSED_ON or name.startswith("LC_")}
    path = env.get("PATH", "")
    asks = any(Path(step.program).name in LOOK_UPS for step in line.steps)
    if not asks or any(step.git is not None for step in line.steps):
        path = ":".join(outside_entries(path, workspace))
    return {name: env[name] for name in names} | dict(MARKERS) | {"PATH": path}


def safe_argv(line: SafeLine) -> tuple[str, ...]:
    """What is executed."""
    first = line.steps[0]
    if len(line.steps) == 1 and not first.redirects and first.program not in BUILTINS:
        return _argv(first)
    program = shell()
    quiet = ("--noprofile", "--norc") if program.endswith("/bash") else ()
    return (program, *quiet, "-c", " ".join(_rendered(line.steps)))


async def run_safe(
    line: SafeLine, workspace: Path, call: ToolCall, context: ToolContext
) -> ShellResult | None:
    """Run it; ``None`` if it has git, and the repository's configuration makes nothing safe."""
    env = safe_environment(context.env, line, workspace)

    async def execute(
        argv: tuple[str, ...],
        env: Mapping[str, str],
        timeout_s: float,
        show: Callable[[str, str], None],
    ) -> ShellResult:
        return await context.processes.run_argv(
            argv,
            cwd=line.directory,
            env=env,
            timeout_s=timeout_s,
            on_output=show,
            spill_name=call.id,
            keep_whole=show is not _unseen,
        )

    git = next((step.program for step in line.steps if step.git is not None), None)
    if git is None:
        return await execute(safe_argv(line), env, BASH_TIMEOUT_S, context.output)
    asked = hardened_environment(env)
    names = await execute((git, *CONFIG_NAMES), asked, SAFE_GIT_TIMEOUT_S, _unseen)
    filters = filter_names(names.stdout)
    if names.exit_code != 0 or names.stdout_dropped or filters is None:
        return None  # a configuration we cannot read, or one that makes nothing safe
    hardened = hardened_environment(env, filters)
    return await execute(safe_argv(line), hardened, SAFE_GIT_TIMEOUT_S, context.output)


def _argv(step: SafeStep) -> tuple[str, ...]:
    if step.git is not None:
        return hardened_argv(step.program, step.git)
    return (step.program, *step.arguments)


def _rendered(steps: Iterable[SafeStep]) -> Iterable[str]:
    for step in steps:
        if step.joint:
            yield step.joint
        yield from map(_quoted, _argv(step))
        for each in step.redirects:
            fd = "" if each.operator.startswith("&") else str(each.fd)
            space = "" if each.operator == ">&" else " "
            yield f"{fd}{each.operator}{space}{_digit(each.target)}"


def _digit(target: str) -> str:
    return target if target in {"1", "2"} else _quoted(target)


def _quoted(word: str) -> str:
    """A word that every shell reads as just this."""
    return "'" + word.replace("'", "'\\''") + "'"


def _unseen(_stream: str, _text: str) -> None:
    """The names of configuration keys are not shown."""
