"""``crush-trio cancel``: a run, or every open run of a session."""

from __future__ import annotations

import click

from crush_trio.cli.options import ServerFlags, directory_option, json_option, server_options


@click.command("cancel")
@click.argument("run_id", metavar="[RUN]", required=False)
@click.option("-s", "--session", metavar="ID|latest", help="Every open run of this session.")
@directory_option
@json_option
@server_options
def command(
    *, run_id: str | None, session: str | None, cwd: str, as_json: bool, flags: ServerFlags
) -> int:
    """Cancel RUN, or with -s every open run of a session accepted so far.

    On something that is already over it does nothing.
    """
    if (run_id is None) == (session is None):
        raise click.UsageError("give either a RUN or --session.")
    import trio

    from crush_trio.cli.simple_flows import cancel

    return trio.run(cancel, flags, run_id, session, cwd, as_json)
