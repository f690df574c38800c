"""``crush-trio stop``: end the server in order."""

from __future__ import annotations

import click

from crush_trio.cli.options import ServerFlags, server_options


@click.command("stop")
@server_options
def command(*, flags: ServerFlags) -> int:
    """Stop the server in order and wait until it is gone; without a server that is done.

    Running runs end cancelled, queued ones stay queued for the next start.
    """
    import trio

    from crush_trio.cli.simple_flows import stop

    return trio.run(stop, flags)
