"""``crush-trio session``: list, show, output, delete, summarize, shell."""

from __future__ import annotations

from typing import Any

import click

from crush_trio.cli.options import (
    Finite,
    ServerFlags,
    absolute_model,
    directory_option,
    json_option,
    server_options,
)


@click.group("session")
def command() -> None:
    """List, show, summarise and delete the sessions of a directory; run a command in one."""


@command.command("list")
@directory_option
@json_option
@server_options
def list_(*, cwd: str, as_json: bool, flags: ServerFlags) -> int:
    """List the sessions of a directory, the most recently used first."""
    import trio

    from crush_trio.cli.session_flow import list_sessions

    return trio.run(list_sessions, flags, cwd, as_json)


@command.command("show")
@click.argument("session", metavar="ID|latest")
@directory_option
@json_option
@server_options
def show(*, session: str, cwd: str, as_json: bool, flags: ServerFlags) -> int:
    """Show the conversation of a session."""
    import trio

    from crush_trio.cli.session_flow import show_session

    return trio.run(show_session, flags, cwd, session, as_json)


@command.command("output", short_help="Print the whole output of a command.")
@click.argument("session", metavar="ID|latest")
@click.argument("output", metavar="OUTPUT")
@directory_option
@server_options
def output(*, session: str, output: str, cwd: str, flags: ServerFlags) -> int:
    """Print the whole output of a command that was too long to be shown.

    The command's result names it. A pipe or file gets the bytes as they were written.
    """
    import trio

    from crush_trio.cli.output_flow import print_output

    return trio.run(print_output, flags, cwd, session, output)


@command.command("delete")
@click.argument("session", metavar="ID")
@directory_option
@json_option
@server_options
def delete(*, session: str, cwd: str, as_json: bool, flags: ServerFlags) -> int:
    """Cancel the runs of a session and delete everything it holds."""
    import trio

    from crush_trio.cli.session_flow import delete_session

    return trio.run(delete_session, flags, cwd, session, as_json)


@command.command("summarize", short_help="Let a session go on from a summary.")
@click.argument("session", metavar="ID|latest")
@click.option("-m", "--model", metavar="PROVIDER/MODEL", help="The model; script/FILE plays one.")
@directory_option
@json_option
@server_options
def summarize(
    *, session: str, model: str | None, cwd: str, as_json: bool, flags: ServerFlags
) -> int:
    """Let a session go on from a summary of what was said in it, and print the summary."""
    name = absolute_model(model)
    return _run(flags, cwd, session, "summarize", {"model": name} if name else {}, as_json)


@command.command("shell", short_help="Run a command as part of a session.")
@click.argument("session", metavar="ID|latest")
@click.argument("shell_command", metavar="COMMAND")
@click.option(
    "--timeout", type=Finite(min=0, min_open=True), metavar="S",
    help="The command may take S seconds.",
)  # fmt: skip
@directory_option
@json_option
@server_options
def shell(
    *,
    session: str,
    shell_command: str,
    timeout: float | None,
    cwd: str,
    as_json: bool,
    flags: ServerFlags,
) -> int:
    """Run COMMAND in the directory as part of a session, and print its output.

    The model reads it with the next prompt. 0 says that the command has ended, whatever its own
    exit code was.
    """
    body: dict[str, Any] = {"command": shell_command}
    if timeout is not None:
        body["limits"] = {"timeout_s": timeout}
    return _run(flags, cwd, session, "shell", body, as_json)


def _run(
    flags: ServerFlags, cwd: str, session: str, kind: str, body: dict[str, Any], as_json: bool
) -> int:
    import trio

    from crush_trio.cli.kind_flow import KindOptions, run_kind

    return trio.run(run_kind, KindOptions(flags, cwd, session, kind, body, as_json))
