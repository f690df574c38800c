"""``crush-trio watch``: what happens in a workspace, live."""

from __future__ import annotations

import click

from crush_trio.cli.options import (
    ServerFlags,
    directory_option,
    json_option,
    reconnect_option,
    server_options,
)


@click.command("watch")
@click.option("-s", "--session", metavar="ID|latest", help="Only this session.")
@click.option("--after", metavar="SEQ|now|start", default="now", show_default=True,
              help="Where to begin in the journal.")  # fmt: skip
@directory_option
@json_option
@reconnect_option
@server_options
def command(
    *,
    session: str | None,
    after: str,
    cwd: str,
    as_json: bool,
    reconnect_timeout: float,
    flags: ServerFlags,
) -> int:
    """Show what happens in a directory's workspace, until Ctrl-C.

    Text for people, or with --json every frame on its own line.
    """
    if after not in ("now", "start") and not after.isdecimal():
        raise click.BadParameter(f"{after!r} is no number, now or start.", param_hint="--after")
    import trio

    from crush_trio.cli.watch_flow import WatchOptions, watch

    begin = int(after) if after.isdecimal() else after
    options = WatchOptions(flags, cwd, session, begin, as_json, reconnect_timeout)
    return trio.run(watch, options)
