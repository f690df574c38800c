"""``crush-trio logs``: the end of the server's log, also after the server has gone."""

from __future__ import annotations

import os
from typing import BinaryIO

import click

from crush_trio.cli import exit_codes
from crush_trio.cli.output import say, stdout_is_terminal, warn, write_stdout
from crush_trio.cli.sanitize import for_terminal

_LOOK_AGAIN_S = 0.25  # there is no portable way to be told that a file has grown
_CHUNK = 64 * 1024


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(min=0), default=200, show_default=True)
@click.option("--data-dir", metavar="DIR", help="The server's data directory.")
def command(*, follow: bool, lines: int, data_dir: str | None) -> int:
    """Show the end of the log of a data directory's server.

    It is a file, so no server needs to run. Who asked for what is in access.log beside it.
    """
    from crush_trio.client.autostart import SERVER_LOG
    from crush_trio.config.paths import data_directory

    path = data_directory(os.environ, data_dir) / SERVER_LOG
    try:
        file = path.open("rb")
    except OSError as exc:
        warn(f"no log at {path}: {exc.strerror}")
        return exit_codes.FAILED
    with file:
        end = tail(file, lines)
        if end:
            say(end)
        if follow:
            import trio

            trio.run(_follow, file)
    return exit_codes.COMPLETED


def tail(file: BinaryIO, lines: int) -> str:
    """The last ``lines`` lines of ``file``, which is then at its end."""
    position = file.seek(0, os.SEEK_END)
    data = b""
    while position > 0 and data.count(b"\n") <= lines:
        step = min(_CHUNK, position)
        position -= step
        file.seek(position)
        data = file.read(step) + data
    file.seek(0, os.SEEK_END)
    wanted = data.decode("utf-8", "replace").splitlines()
    return "\n".join(wanted[len(wanted) - lines :] if lines < len(wanted) else wanted)


async def _follow(file: BinaryIO) -> None:
    import trio

    while True:
        data = file.read(_CHUNK)
        if not data:
            await trio.sleep(_LOOK_AGAIN_S)
            continue
        if stdout_is_terminal():
            data = for_terminal(data.decode("utf-8", "replace")).encode()
        await write_stdout(data)
