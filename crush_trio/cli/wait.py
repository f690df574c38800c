"""``crush-trio wait``: its options."""

from __future__ import annotations

import click

from crush_trio.cli.exit_codes import epilog
from crush_trio.cli.options import (
    Finite,
    ServerFlags,
    json_option,
    reconnect_option,
    server_options,
)


@click.command("wait", epilog=epilog())
@click.argument("run_id", metavar="RUN")
@click.option(
    "--timeout", "--wait-timeout", "timeout", type=Finite(min=0), metavar="S",
    help="Stop waiting after S seconds (exit code 124).",
)  # fmt: skip
@json_option
@reconnect_option
@server_options
def command(
    *,
    run_id: str,
    timeout: float | None,
    as_json: bool,
    reconnect_timeout: float,
    flags: ServerFlags,
) -> int:
    """Wait for the end of RUN, print its answer, and exit with its code.

    A steered run is followed into the run it joined.
    """
    if not run_id:  # an unset variable of a script, which would wait for the list of all runs
        raise click.UsageError("RUN is empty; it is the id of a run, as `run -d` prints it.")
    import trio

    from crush_trio.cli.wait_flow import WaitOptions, wait_for_run

    return trio.run(wait_for_run, WaitOptions(flags, run_id, timeout, as_json, reconnect_timeout))
