"""``crush-trio completion``: the script for a shell, and the answers to it."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import ShellComplete, get_completion_class, shell_complete

from crush_trio.cli.main import COMPLETING
from crush_trio.cli.output import say

SHELLS: Final = ("bash", "zsh", "fish")
_NAME: Final = "crush-trio"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(*, shell: str) -> None:
    """Print the completion script for SHELL; nothing is installed.

    \b
    bash  eval "$(crush-trio completion bash)"  in ~/.bashrc
    zsh   eval "$(crush-trio completion zsh)"   in ~/.zshrc, after compinit
    fish  crush-trio completion fish > ~/.config/fish/completions/crush-trio.fish

    Commands, options, models of the catalogue, and sessions if a server is running are completed.
    """
    from crush_trio.cli.group import cli

    made = get_completion_class(shell)
    assert made is not None  # click knows all of SHELLS
    # Not bash's own: that would run a bash to see its version, which is the reader's business.
    say(ShellComplete.source(made(cli, {}, _NAME, COMPLETING)).strip("\n"))


def complete(instruction: str) -> int:
    """Answer a shell (``bash_complete`` and the like); the exit code."""
    from crush_trio.cli.group import cli

    try:
        return shell_complete(cli, {}, _NAME, COMPLETING, instruction)
    except BrokenPipeError:  # the shell did not wait for the end
        return 1
