"""``crush-trio ps``: the runs of the server."""

from __future__ import annotations

import click

from crush_trio.cli.options import ServerFlags, json_option, server_options


@click.command("ps")
@click.option("-a", "--all", "everything", is_flag=True, help="Finished runs, too.")
@click.option("-n", "--limit", type=click.IntRange(min=1, max=500), default=50, show_default=True)
@json_option
@server_options
def command(*, everything: bool, limit: int, as_json: bool, flags: ServerFlags) -> int:
    """List the open runs of the server, newest first.

    Without --json also the background jobs that run.
    """
    import trio

    from crush_trio.cli.simple_flows import list_runs

    return trio.run(list_runs, flags, everything, limit, as_json)
