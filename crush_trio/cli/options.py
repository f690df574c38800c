"""Options that several commands share; imports nothing but click."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from crush_trio import limits

Callback = TypeVar("Callback", bound=Callable[..., Any])


class ServerFlags(NamedTuple):
    """Which server the command line names, as given."""

    server: str | None
    data_dir: str | None
    token_file: str | None
    autostart: bool


class Directory(click.ParamType[str]):
    """An existing directory, made absolute with links resolved."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The real path of ``value``."""
        if not value or not os.path.isdir(value):
            self.fail(
                f"{value!r} is not a directory. -C takes the directory to work in; "
                "to go on with the last session use -c.",
                param,
                ctx,
            )
        return os.path.realpath(str(value))


class Finite(click.FloatRange):
    """A number within bounds: not ``nan``, which has no order, nor ``inf``, which bounds nothing.

    JSON has no word for either: sent to the server they would be no limit at all.
    """

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return found


_SERVER_OPTIONS = (
    click.option(
        "--server", "-H", "--host", "server", metavar="URL",
        help="unix:///PATH or tcp://HOST:PORT [default: the socket of the data directory]",
    ),
    click.option(
        "--data-dir", metavar="DIR", help="The server's data directory.", envvar=None
    ),
    click.option(
        "--token-file", metavar="FILE", help="Token for TCP [default: $CRUSH_TRIO_TOKEN]"
    ),
    click.option("--no-autostart", is_flag=True, help="Do not start a server if none answers."),
)  # fmt: skip


def server_options(callback: Callback) -> Callback:
    """Give a command ``--server`` and its relatives, as the one argument ``flags``."""

    @functools.wraps(callback)
    def gathered(
        *args: Any,
        server: str | None,
        data_dir: str | None,
        token_file: str | None,
        no_autostart: bool,
        **others: Any,
    ) -> Any:
        flags = ServerFlags(server, data_dir, token_file, not no_autostart)
        return callback(*args, flags=flags, **others)

    command: Any = gathered
    for option in reversed(_SERVER_OPTIONS):
        command = option(command)
    return command  # type: ignore[no-any-return]


def directory_option(callback: Callback) -> Callback:
    """Give a command ``-C/--cwd``, the directory to work in, as ``cwd``."""
    return click.option(
        "-C", "--cwd", "cwd", type=Directory(), default=".", metavar="DIR",
        help="Directory to work in [default: the current one]",
    )(callback)  # fmt: skip


def json_option(callback: Callback) -> Callback:
    """Give a command ``--json`` as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(callback)


def reconnect_option(callback: Callback) -> Callback:
    """Give a command ``--reconnect-timeout``."""
    return click.option(
        "--reconnect-timeout", type=Finite(min=0), metavar="S",
        default=limits.RECONNECT_TIMEOUT_S, show_default=True,
        help="Give up after this many seconds without the server.",
    )(callback)  # fmt: skip


def absolute_model(name: str | None) -> str | None:
    """The model's name with a script's path made absolute: the server stands elsewhere.

    What else a name means, the server knows.

    Raises:
        click.BadParameter: It is empty, or a script without its file.
    """
    if name is None:
        return None
    provider, _, rest = name.partition("/")
    if not name.strip() or (provider == "script" and not rest):
        raise click.BadParameter(f"{name!r}: write PROVIDER/MODEL", param_hint="-m")
    return f"script/{os.path.abspath(rest)}" if provider == "script" else name
