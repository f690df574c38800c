"""``crush-trio serve``: its options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from crush_trio import limits
from crush_trio.cli.options import Finite

_EPILOG = """\b
Exit codes:
    0  stopped in order
    4  cannot start
   70  the shutdown took too long and the watchdog ended it
   75  the store failed
"""


class Duration(click.ParamType[float]):
    """A number of seconds, or ``never``."""

    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds; infinity for ``never``."""
        if value == "never":
            return float("inf")
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not seconds >= 0 or seconds == float("inf"):
            self.fail(f"{value!r} is neither a number of seconds nor `never`.", param, ctx)
        return seconds


_seconds = Finite(min=0)


@click.command("serve", epilog=_EPILOG)
@click.option("--host", multiple=True, metavar="URL", help="unix:///PATH or tcp://HOST:PORT.")
@click.option("--data-dir", metavar="DIR", help="Where everything is kept.")
@click.option("--durability", type=click.Choice(("full", "normal")), default="full")
@click.option("--idle-exit", type=Duration(), metavar="S|never", help="Exit when unused. [never]")
@click.option(
    "--idle-timeout",
    type=_seconds,
    default=limits.IDLE_TIMEOUT_S,
    metavar="S",
    help="Close an unused workspace.",
    show_default=True,
)
@click.option(
    "--shutdown-timeout",
    type=_seconds,
    default=limits.SHUTDOWN_TIMEOUT_S,
    metavar="S",
    help="Bound of an orderly shutdown.",
    show_default=True,
)
@click.option(
    "--requeue-within",
    type=_seconds,
    default=limits.REQUEUE_WITHIN_S,
    metavar="S",
    help="Older queued runs are lost at start; 0: all.",
    show_default=True,
)
@click.option("--allow-script-models", is_flag=True, help="Script models on TCP, too.")
@click.option("--allowed-host", multiple=True, metavar="NAME", help="A further Host on TCP.")
@click.option("--allowed-origin", multiple=True, metavar="ORIGIN", help="A web page that may call.")
@click.option("--insecure-plaintext", is_flag=True, help="TCP beyond loopback without TLS.")
@click.option("--token-file", metavar="FILE", help="Lines NAME:TOKEN for TCP.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def command(
    *,
    host: tuple[str, ...],
    data_dir: str | None,
    idle_exit: float | None,
    idle_timeout: float,
    shutdown_timeout: float,
    requeue_within: float,
    allowed_host: tuple[str, ...],
    allowed_origin: tuple[str, ...],
    token_file: str | None,
    **others: Any,
) -> int:
    """Serve workspaces on a unix socket or on TCP, until told to stop.

    The first line of stdout says where, once requests are answered.
    """
    from crush_trio.config.paths import data_directory

    directory = data_directory(os.environ, data_dir)  # before the heavy imports: may refuse

    import trio

    from crush_trio.server.options import ServeOptions
    from crush_trio.server.serve import serve

    options = ServeOptions(
        data_dir=directory,
        hosts=host,
        idle_exit_s=None if idle_exit in (None, float("inf")) else idle_exit,
        idle_timeout_s=idle_timeout,
        shutdown_timeout_s=shutdown_timeout,
        requeue_within_s=requeue_within,
        allowed_hosts=allowed_host,
        allowed_origins=allowed_origin,
        token_file=None if token_file is None else Path(os.path.abspath(token_file)),
        **others,
    )
    return trio.run(serve, options)
