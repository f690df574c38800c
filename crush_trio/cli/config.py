"""``crush-trio config``: show, path, check. Reads files; needs no server."""

from __future__ import annotations

import os
from pathlib import Path

import click

from crush_trio.cli import exit_codes
from crush_trio.cli.options import directory_option, json_option
from crush_trio.cli.output import say


@click.group("config")
def command() -> None:
    """Show and check the configuration."""


@command.command("show")
@directory_option
@click.option("--data-dir", metavar="DIR", help="The server's data directory.")
@json_option
def show(*, cwd: str, data_dir: str | None, as_json: bool) -> None:
    """Print the configuration that counts in a directory, its files, and every limit."""
    from crush_trio.config.load import load_config
    from crush_trio.config.paths import data_directory
    from crush_trio.config.show import show_json, show_text

    config = load_config(Path(cwd), environ=os.environ)
    directory = data_directory(os.environ, data_dir)
    if as_json:
        import orjson

        say(orjson.dumps(show_json(config, data_directory=directory)).decode())
    else:
        say(show_text(config, data_directory=directory).rstrip("\n"))


@command.command("path")
@directory_option
@click.option("--data-dir", metavar="DIR", help="The server's data directory.")
def path(*, cwd: str, data_dir: str | None) -> None:
    """Print where configuration, data and socket are, whether they exist or not."""
    from crush_trio.config.paths import (
        WORKSPACE_FILES,
        data_directory,
        extra_config_path,
        user_config_path,
    )
    from crush_trio.protocol.sockets import default_socket_path

    user, extra = user_config_path(os.environ), extra_config_path(os.environ)
    for name, found in (("user", user), ("extra", extra)):
        if found is not None:
            say(f"{name}: {found}")
    for file in WORKSPACE_FILES:
        say(f"workspace: {Path(cwd) / file}")
    directory = data_directory(os.environ, data_dir)
    say(f"data: {directory}")
    say(f"socket: {default_socket_path(directory, os.environ, os.getuid())}")


@command.command("check")
@directory_option
def check(*, cwd: str) -> int:
    """Read the configuration as a run would; exit code 4 if it cannot be used."""
    from crush_trio.config.show import check as checked

    found = checked(Path(cwd), environ=os.environ)
    for line in found.lines:
        say(line)
    return exit_codes.COMPLETED if found.ok else exit_codes.CONFIGURATION
