"""``crush-trio session``: list, show, delete."""

from __future__ import annotations

import click

from crush_trio.cli.options import ServerFlags, directory_option, json_option, server_options


@click.group("session")
def command() -> None:
    """List, show and delete the sessions of a directory."""


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
