"""The command group: names and summaries here, each command's file only when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from crush_trio import __version__
from crush_trio.cli import exit_codes
from crush_trio.cli.output import StdoutClosed, keep_standard_streams_open, warn
from crush_trio.protocol.errors import CrushError

COMMANDS = {
    "serve": ("serve", "Serve workspaces on a unix socket or on TCP."),
    "run": ("run", "Send one prompt and stay until its run has ended."),
    "wait": ("wait", "Wait for a run's end and exit with its code."),
    "watch": ("watch", "Show what happens in a workspace or session, live."),
    "cancel": ("cancel", "Cancel a run, or every open run of a session."),
    "ps": ("ps", "List runs."),
    "session": ("session", "List, show, summarise, delete sessions; run commands."),
    "approvals": ("approvals", "List and answer what waits for a person."),
    "models": ("models", "List the models that can be used."),
    "config": ("config", "Show, check and trust the configuration."),
    "doctor": ("doctor", "Check configuration, server and model."),
    "logs": ("logs", "Show the log of the server."),
    "stop": ("stop", "Stop the server in order."),
    "schema": ("schema", "Print a JSON schema."),
    "completion": ("completion", "Print the completion script for a shell."),
}
"""Command → (module in this package, summary)."""


class LazyGroup(click.Group):
    """A group that imports a command's file when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now; ``None`` if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"crush_trio.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, without importing any; else what every group offers."""
        found = [
            CompletionItem(name, help=summary)
            for name, (_, summary) in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=exit_codes.epilog(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="crush-trio", message="%(prog)s %(version)s")
def cli() -> None:
    """A coding agent: a server that works in your directories, and commands that talk to it."""


def help_text() -> str:
    """What ``--help`` says at 80 columns; ``help.txt`` holds it, so that nobody waits for it."""
    context = cli.make_context("crush-trio", [], resilient_parsing=True, terminal_width=80)
    return cli.get_help(context) + "\n"


def run_command_line(arguments: Sequence[str]) -> int:
    """Parse and run; the exit code. Prints one sentence for every expected failure."""
    keep_standard_streams_open()
    try:
        return _invoke(arguments)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        _explain(exc)
        return exc.exit_code
    except (KeyboardInterrupt, click.Abort):
        return exit_codes.INTERRUPTED
    except (StdoutClosed, BrokenPipeError):
        _let_stdout_go()
        return exit_codes.STDOUT_CLOSED
    except CrushError as exc:
        warn(str(exc))
        return code_of(exc)
    except OSError as exc:
        # Only the parser's own printing gets here: everything else has a sentence of its own.
        warn(f"stdout cannot be written: {exc.strerror}")
        _let_stdout_go()
        return exit_codes.FAILED


def _invoke(arguments: Sequence[str]) -> int:
    # By hand rather than `cli.main`, which turns a closed stdout into exit code 1.
    with cli.make_context("crush-trio", list(arguments)) as context:
        result = cli.invoke(context)
    sys.stdout.flush()
    return result if isinstance(result, int) else exit_codes.COMPLETED


def _explain(exc: click.ClickException) -> None:
    if isinstance(exc, click.BadOptionUsage) and exc.option_name in ("-C", "--cwd"):
        click.echo("-C takes a directory; to go on with the last session use -c.", err=True)


def _let_stdout_go() -> None:
    import os

    # The interpreter flushes stdout once more at its end; that must find somebody.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def code_of(exc: CrushError) -> int:
    from crush_trio.client import errors
    from crush_trio.protocol.errors import ConfigError

    if isinstance(exc, errors.ServerRefused):
        return exit_codes.refusal_exit_code(exc.status, exc.code)
    if isinstance(exc, (errors.Unreachable, errors.BadAnswer)):
        return exit_codes.UNREACHABLE
    if isinstance(exc, errors.BadUsage):
        return exit_codes.USAGE
    if isinstance(
        exc, (errors.CannotStart, errors.UnsafeSocket, errors.Misconfigured, ConfigError)
    ):
        return exit_codes.CONFIGURATION
    return exit_codes.FAILED
