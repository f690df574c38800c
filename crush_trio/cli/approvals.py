"""``crush-trio approvals``: permission requests that wait."""

from __future__ import annotations

import click

from crush_trio.cli.options import ServerFlags, directory_option, json_option, server_options


@click.command("approvals")
@directory_option
@json_option
@server_options
def command(*, cwd: str, as_json: bool, flags: ServerFlags) -> int:
    """List the permission requests of a directory that wait for an answer.

    This version lists them only; it cannot answer them from the command line.
    """
    import trio

    from crush_trio.cli.simple_flows import list_approvals

    return trio.run(list_approvals, flags, cwd, as_json)
